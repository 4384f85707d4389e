"""Methods by the words of commands: those that are here, and one's own in files."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from .autoencoder import SparseAutoencoder
from .bank import Method
from .decompositions import ICA, PCA, KMeans, RobustPCA
from .factorizations import CRAFT, FACE, ICE, NMF, SparseCoding
from .packages import scikit_learn
from .segments import ACE


@dataclasses.dataclass(frozen=True)
class Known:
    """What a word stands for.

    **Arguments:**

    - `make`: makes the method, with its default settings.
    - `needs_scikit_learn`: whether that has to be installed.
    - `non_negative`: whether it can't represent activations below zero.
    """

    make: Callable[[], Any]
    needs_scikit_learn: bool = False
    non_negative: bool = False

    def check_installed(self) -> None:
        """Raises `ImportError` that says what to install, before anything is fitted."""
        if self.needs_scikit_learn:
            scikit_learn(self.make().name)


KNOWN = MappingProxyType(
    {
        "face": Known(FACE),
        "face-published": Known(FACE.published, non_negative=True),
        "nmf": Known(NMF),
        "sparse-coding": Known(SparseCoding),
        "craft": Known(CRAFT, needs_scikit_learn=True, non_negative=True),
        "ice": Known(ICE, needs_scikit_learn=True, non_negative=True),
        "ace": Known(ACE, needs_scikit_learn=True),
        "pca": Known(PCA, needs_scikit_learn=True),
        "ica": Known(ICA, needs_scikit_learn=True),
        "kmeans": Known(KMeans, needs_scikit_learn=True),
        "rca": Known(RobustPCA),
        "sae": Known(SparseAutoencoder),
    }
)


def method_named(word: str) -> Known:
    """The method that a word stands for, or one's own in a file: `FILE.py:NAME`, of a class or an object.

    Raises `ValueError` with the nearest words, and where a file has no such method. What the file's own code
    raises is left as it is.
    """
    if word in KNOWN:
        return KNOWN[word]
    file, colon, name = word.rpartition(":")
    if not colon and not word.endswith(".py"):
        close = difflib.get_close_matches(word.lower(), KNOWN, n=3, cutoff=0.5)
        nearest = f"nearest: {', '.join(close)}; all" if close else "give one of these"
        raise ValueError(f"{word!r} is no method; {nearest}: {', '.join(KNOWN)}; or FILE.py:NAME")
    if not colon or not name:
        raise ValueError(f"{word!r} names no class in the file; give FILE.py:NAME")
    found = method_in(pathlib.Path(file), name)
    return Known(lambda: found)


def method_in(file: pathlib.Path, name: str) -> Method:
    """A method of one's own: the object of that name in a file, or what a class makes without arguments.

    The file is run, as `python FILE` would. Raises `ValueError` where there is no such thing.
    """
    if not file.is_file():
        raise ValueError(f"{str(file)!r}: there is no such file; give FILE.py:NAME")
    module = _run(file.resolve())
    if not hasattr(module, name):
        raise ValueError(f"{str(file)!r} has no {name}; give the name of a class or an object in it")
    found = getattr(module, name)
    if isinstance(found, type):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(
                f"{name} in {str(file)!r} can't be made without arguments ({error}); give the name of an object"
            ) from error
    if not isinstance(found, Method):
        raise ValueError(
            f"{name} in {str(file)!r} isn't a method; it needs a name and fit(activations, rank, key), which gives a "
            "methods.Bank"
        )
    return found


def _run(file: pathlib.Path) -> Any:
    """A file as a module, which may import what lies beside it."""
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) != str(file):
        # Somebody's numpy.py must not stand for NumPy.
        name = f"{name}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{str(file)!r} isn't a file of Python; give FILE.py:NAME")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
