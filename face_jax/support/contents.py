"""Digests of what values hold and of what functions do, so that a kept result is taken for the same thing only."""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import sysconfig
import types
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_PACKAGE = __name__.partition(".")[0]
_COMPUTING = (
    "jax", "jaxlib", "numpy", "scipy", "optax", "flax", "scikit-learn", "scikit-image", "pillow", "torch", "torchvision"
)  # fmt: skip
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range, slice)
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# How objects are shown, compared and made; what they hold is looked at by itself.
_ASIDE = frozenset(
    {"__repr__", "__str__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__setattr__", "__delattr__"}
)


class NoContentsError(ValueError):
    """Something whose contents can't be told."""


def contents_digest(value: Any, name: str) -> bytes:
    """A digest of what a value holds, and of what its functions do: the same in another process.

    Functions and classes of one's own go in by their compiled code, with defaults, closures, and whatever of one's own
    they name in turn: so an edited `fit` has another digest, and so has an edited function that it calls. Comments and
    line numbers don't matter. Those of installed packages go in by name and version; those of face_jax by name, as
    `package_digest` has their files. Of dataclasses the fields count that tell two of them apart: fields with
    `compare=False`, such as a cache, are left out. Files that are read at run time aren't known here.

    **Arguments:**

    - `value`: anything made of numbers, text, arrays, containers, dataclasses, functions, classes and their objects.
    - `name`: what errors call it.

    Raises `NoContentsError` for what can't be told, such as a compiled function of one's own or a lock.
    """
    return _Walk(name)(value)


@functools.cache
def package_digest() -> bytes:
    """A digest of face_jax's own files and of the versions that it computes with, made once in a process."""
    spec = importlib.util.find_spec(f"{_PACKAGE}.bridges")
    roots = [pathlib.Path(__file__).resolve().parent.parent]
    roots += [] if spec is None else [pathlib.Path(each) for each in spec.submodule_search_locations or ()]
    found = hashlib.sha256(repr([_installed(each) for each in _COMPUTING]).encode())
    for number, root in enumerate(roots):
        for file in sorted(root.rglob("*.py")):
            for part in (f"{number} {file.relative_to(root).as_posix()}".encode(), file.read_bytes()):
                found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()


class _Walk:
    """Digests of values, each made of those of its parts; a value within itself is called by how far up it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[int, bytes] = {}
        # Those that are being looked at, outermost first.
        self._within: list[int] = []
        # An identity belongs to an object for as long as it lives.
        self._alive: list[Any] = []

    def __call__(self, value: Any) -> bytes:
        if id(value) in self._known:
            return self._known[id(value)]
        if id(value) in self._within:
            return f"within {self._within.index(id(value))}".encode()
        self._alive.append(value)
        self._within.append(id(value))
        found = hashlib.sha256()
        for part in self._parts(value):
            found.update(len(part).to_bytes(8, "little") + part)
        self._within.pop()
        self._known[id(value)] = found.digest()
        return self._known[id(value)]

    def _parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}".encode()
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            yield from self._array(value)
        elif isinstance(value, types.ModuleType):
            yield from self._module(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, types.CodeType):
            yield from self._code(value)
        elif isinstance(value, types.MethodType):
            yield b"method"
            yield self((value.__func__, value.__self__))
        elif isinstance(value, property):
            yield self((value.fget, value.fset, value.fdel))
        elif isinstance(value, functools.cached_property):
            yield self(value.func)
        elif isinstance(value, functools.partial):
            yield b"partial"
            yield self((value.func, value.args, value.keywords))
        elif callable(getattr(value, "__wrapped__", None)):
            # Compiled by jax.jit, kept by functools.cache, or a class's static method.
            yield self(type(value))
            yield self(value.__wrapped__)
        elif isinstance(value, types.BuiltinFunctionType | types.WrapperDescriptorType | types.MethodDescriptorType):
            yield from self._builtin(value)
        else:
            yield from self._object(value)

    def _array(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            yield b"key"
            value = jax.random.key_data(value)
        array = np.asarray(value)
        yield f"array {array.dtype} {array.shape}".encode()
        if array.dtype.hasobject:
            yield self(array.tolist())
        else:
            yield np.ascontiguousarray(array).tobytes()

    def _object(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, list | tuple):
            yield self(type(value))
            for each in value:
                yield self(each)
        elif isinstance(value, set | frozenset):
            # In no order: each by itself.
            yield self(type(value))
            yield from sorted(map(self, value))
        elif isinstance(value, dict | types.MappingProxyType):
            yield self(type(value))
            for key, each in value.items():
                yield self(key)
                yield self(each)
        elif dataclasses.is_dataclass(value):
            yield self(type(value))
            for field in dataclasses.fields(value):
                if field.compare:
                    yield field.name.encode()
                    yield self(getattr(value, field.name, None))
        elif isinstance(value, weakref.ref):
            yield b"reference"
            yield self(value())
        elif hasattr(value, "detach"):
            yield b"tensor"
            yield self(np.asarray(value.detach().cpu()))
        else:
            yield from self._reduced(value)

    def _reduced(self, value: Any) -> Iterator[bytes]:
        """As pickling takes an object apart, which objects may have a say in."""
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            raise self._refused(value, "can't be taken apart") from error
        if isinstance(made, str) and _is_own(getattr(value, "__module__", None) or type(value).__module__):
            # What is found by its name alone.
            raise self._refused(value, "is compiled")
        yield self(type(value))
        parts = (made,) if isinstance(made, str) else made
        yield self(tuple(list(part) if isinstance(part, Iterator) else part for part in parts))

    def _class(self, value: type) -> Iterator[bytes]:
        yield f"class {_version(value.__module__)} {value.__module__} {value.__qualname__}".encode()
        if not _is_own(value.__module__):
            return
        for base in value.__bases__:
            yield self(base)
        for name, each in sorted(vars(value).items()):
            hidden = name.startswith("__") and not isinstance(each, types.FunctionType | staticmethod | classmethod)
            if not hidden and name not in _ASIDE and not isinstance(each, _SLOTS) and not name.startswith("_abc_"):
                yield name.encode()
                yield self(each.__func__ if isinstance(each, staticmethod | classmethod) else each)

    def _function(self, value: types.FunctionType) -> Iterator[bytes]:
        if _is_found(value):
            yield f"function {_version(value.__module__)} {value.__module__} {value.__qualname__}".encode()
            return
        yield b"function"
        cells = [_held(cell) for cell in value.__closure__ or ()]
        yield self((value.__defaults__, value.__kwdefaults__, cells))
        module = value.__globals__.get("__name__", "")
        if not _is_own(module):
            # Made in a package, such as by jax.vmap: of what was given to it the closure tells.
            yield f"{_version(module)} {module} {value.__code__.co_qualname}".encode()
            return
        yield self(value.__code__)
        for name in sorted(_globals_of(value.__code__)):
            if name in value.__globals__:
                yield name.encode()
                yield self(value.__globals__[name])

    def _code(self, value: types.CodeType) -> Iterator[bytes]:
        yield value.co_code + value.co_exceptiontable
        taken = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
        yield self((taken, counts, value.co_consts))
        for each in dis.get_instructions(value):
            if each.opname == "IMPORT_NAME" and isinstance(each.argval, str) and _is_own(each.argval):
                module = sys.modules.get(each.argval)
                yield from (self(module),) if module is not None else self._file_of(each.argval)

    def _module(self, value: types.ModuleType) -> Iterator[bytes]:
        """A module of one's own by its file, and by those of one's own that it took something from."""
        name = value.__name__
        yield f"module {_version(name)} {name}".encode()
        file = getattr(value, "__file__", None)
        if not _is_own(name) or file is None:
            return
        yield pathlib.Path(file).read_bytes()
        for _, each in sorted(vars(value).items()):
            other = each.__name__ if isinstance(each, types.ModuleType) else getattr(each, "__module__", None)
            if isinstance(other, str) and other != name and _is_own(other) and other in sys.modules:
                yield self(sys.modules[other])

    def _file_of(self, name: str) -> Iterator[bytes]:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        yield name.encode()
        if spec is not None and spec.has_location and spec.origin is not None:
            yield pathlib.Path(spec.origin).read_bytes()

    def _builtin(self, value: Any) -> Iterator[bytes]:
        owner = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or getattr(value, "__objclass__", type(owner)).__module__
        if owner is not None and not isinstance(owner, types.ModuleType):
            yield f"method {value.__name__}".encode()
            yield self(owner)
        elif _is_own(module):
            raise self._refused(value, "is compiled")
        else:
            yield f"builtin {_version(module)} {module} {value.__name__}".encode()

    def _refused(self, value: Any, why: str) -> NoContentsError:
        return NoContentsError(
            f"{self._name} has a {type(value).__qualname__} ({value!r:.80}) that {why}, so that nobody could tell "
            "whether it's still the same; leave it out, say in a dataclass's field(compare=False) or by __getstate__"
        )


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not given a value yet
        return None


def _globals_of(code: types.CodeType) -> set[str]:
    """Names that a function, and those within it, look up where they were defined."""
    found = {
        each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }  # fmt: skip
    return found.union(*(_globals_of(each) for each in code.co_consts if isinstance(each, types.CodeType)))


def _is_found(value: types.FunctionType) -> bool:
    """Whether a function is a package's, by the name that it has there."""
    found = None if _is_own(value.__module__ or "") else sys.modules.get(value.__module__ or "")
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(module: str) -> str:
    """Of the package that a module is of, where it tells one."""
    said = getattr(sys.modules.get(module.partition(".")[0]), "__version__", "")
    return said if isinstance(said, str) else ""


@functools.cache
def _is_own(module: str) -> bool:
    """Whether a module is somebody's own: neither Python's, nor face_jax's, nor an installed package's."""
    top = module.partition(".")[0]
    if top in ("", "builtins", _PACKAGE):
        return False
    if top == "__main__":
        return True
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if file is None and loaded is None:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        file = None if spec is None or not spec.has_location else spec.origin
    if file is None:
        return top not in sys.stdlib_module_names
    # By its place: a file of one's own may be called like a module of Python's.
    installed = (sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib"))
    place = pathlib.Path(file).resolve()
    return not (
        any(place.is_relative_to(pathlib.Path(each).resolve()) for each in installed)
        or {"site-packages", "dist-packages"} & set(place.parts)
    )
