"""Argument checks, one for each kind of argument, used by all public functions."""

from __future__ import annotations

import inspect
import math
import operator
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from .memory import NotEnoughMemoryError

if TYPE_CHECKING:
    Whole = SupportsIndex
    Real = SupportsFloat
    Seed = Key[Array, ""] | int | None
    Concepts = SupportsIndex | Iterable[SupportsIndex] | None
    # What settings keep.
    Count = int
    Number = float
else:
    # Whoever gives something else is told so by the checks below, not by those that tests switch on for annotations.
    Whole = Real = Seed = Concepts = Count = Number = Any

# DLPack's numbers of memory that NumPy reads: the processor's own, and pinned for a GPU.
_HOST_DEVICES = (1, 3)
_ON_THE_HOST = {"torch": "value.detach().cpu().float().numpy()", "cupy": "value.get()"}


def shown(value: Any) -> str:
    """A value as an error names it: what it is, without its contents where these are long."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None and (shape or isinstance(value, Tracer)):
        return f"(an array of shape {shape}, {dtype})"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def native(name: str, value: Any) -> Any:
    """An array whose numbers are laid out as this machine and JAX have them; what is one for JAX already stays.

    Other byte orders and NumPy's long numbers are converted; what torch, CuPy and others have on an accelerator stays
    there (DLPack). Raises `ValueError` for masked entries, and for what isn't an array.
    """
    if hasattr(value, "aval"):
        if isinstance(value, jax.Array) and not isinstance(value, Tracer) and value.is_deleted():
            raise ValueError(f"{name} was deleted, or given away to a program (donated); give a copy that is kept")
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is random keys, not numbers; give an array")
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with {int(np.ma.count_masked(value))} masked entries, whose values mean "
            "nothing; give value.filled(0), and SquaredError(weights=...) with 0 there where it is factorized"
        )
    kind = type(value).__module__.partition(".")[0]
    if kind == "scipy" or (kind == "jax" and hasattr(value, "todense")):
        raise ValueError(f"{name} is a {type(value).__name__}, which is sparse; give all its entries, value.todense()")
    try:
        if _elsewhere(value):
            return jax.dlpack.from_dlpack(value)
        value = np.asarray(value)
    except NotEnoughMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        # Torch's are also refused where they want gradients, which would be lost.
        remedy = _ON_THE_HOST.get(kind, "rows of equal length")
        raise ValueError(f"{name} can't be read as an array ({error}); give {remedy}") from error
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if value.dtype.kind in "fc" and value.dtype.itemsize > 8 * (1 + (value.dtype.kind == "c")):
        value = value.astype(np.float64 if value.dtype.kind == "f" else np.complex128)
    return value


def _elsewhere(value: Any) -> bool:
    """Whether an array says that its numbers are in an accelerator's memory."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    return int(value.__dlpack_device__()[0]) not in _HOST_DEVICES


def index_or_none(value: Any) -> int | None:
    """The whole number that a value is, whichever package's; None for anything else, for truth values as well."""
    # Torch takes a tensor of one entry, or a truth value, for a number.
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")) or len(getattr(value, "shape", ())):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole(name: str, value: Any, what: str, *, least: int = 0, most: int | None = None) -> int:
    """A whole number in a range; raises `ValueError` for anything else.

    **Arguments:**

    - `name`: the argument's.
    - `value`: what was given: whatever has `__index__`, but no truth value.
    - `what`: what it is a number of, in the plural.
    - `least`, `most`: the range.
    """
    number = index_or_none(value)
    if number is None or number < least or (most is not None and number > most):
        given = shown(value) if number is None else number
        range_ = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}={given} isn't a number of {what}; give {range_}, a whole number")
    return number


def check_count(name: str, value: Any, what: str) -> int:
    """A whole number from 1 on."""
    return whole(name, value, what, least=1)


def enough(name: str, value: Any, least: int) -> int:
    """A whole number that isn't too few."""
    number = index_or_none(value)
    if number is None:
        raise ValueError(f"{name}={shown(value)} isn't a whole number; give {least} or more")
    if number < least:
        raise ValueError(f"{name}={number} is too few; give {least} or more")
    return number


def real(
    name: str,
    value: Any,
    what: str,
    *,
    least: float | int | None = None,
    above: float | int | None = None,
    most: float | int | None = None,
    below: float | int | None = None,
) -> float:
    """A finite number in a range; raises `ValueError` for anything else.

    **Arguments:**

    - `name`: the argument's.
    - `value`: what was given: a number of Python, or one number of another package.
    - `what`: what it should be, such as `"share"`.
    - `least`, `above`, `most`, `below`: the range, with and without its ends.
    """
    found = float_or_none(value)
    if (
        found is None
        or not math.isfinite(found)
        or (least is not None and found < least)
        or (above is not None and found <= above)
        or (most is not None and found > most)
        or (below is not None and found >= below)
    ):
        words = [
            f"{word} {edge:g}"
            for word, edge in (("at least", least), ("above", above), ("at most", most), ("below", below))
            if edge is not None
        ]
        article = "an" if what[0] in "aeio" else "a"
        remedy = " ".join(["give a finite number", " and ".join(words)]).strip()
        raise ValueError(f"{name}={shown(value)} isn't {article} {what}; {remedy}")
    return found


def float_or_none(value: Any) -> float | None:
    """The number that a value is, whichever package's, NaN and infinity too; None for anything else."""
    dtype = str(getattr(value, "dtype", ""))
    if isinstance(value, (bool, str, bytes)) or "bool" in dtype or "complex" in dtype:
        return None
    if isinstance(value, Tracer) or len(getattr(value, "shape", ())):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def share(name: str, value: Any, example: float) -> float:
    """A number between 0 and 1, neither of them."""
    found = float_or_none(value)
    if found is None or not 0 < found < 1:
        raise ValueError(f"{name}={shown(value)} isn't a share; give a number between 0 and 1, such as {example:g}")
    return found


def several(name: str, values: Any, what: str) -> tuple[Any, ...]:
    """A list's entries; raises `ValueError` for a single value."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) or getattr(values, "shape", None) == ():
        raise ValueError(f"{name}={shown(values)} isn't a list of {what}; give several in brackets")
    return tuple(values)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={shown(value)} is neither True nor False; give one of these")
    return bool(value)


def one_of(name: str, value: Any, words: tuple[str, ...]) -> str:
    """One of some words."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name}={shown(value)} is unknown; give {' or '.join(map(repr, words))}")
    return value


def instance(name: str, value: Any, kinds: type | tuple[type, ...], examples: str) -> Any:
    """A settings object of the right kind; raises `ValueError` for words and classes that stand for one.

    **Arguments:**

    - `name`: the argument's.
    - `value`: what was given.
    - `kinds`: what it may be an instance of.
    - `examples`: what to give, in words.
    """
    if not isinstance(value, kinds):
        kind = f"the class {value.__name__}" if isinstance(value, type) else shown(value)
        raise ValueError(f"{name}={kind} isn't valid; give an object such as {examples}")
    return value


def function(name: str, value: Any, examples: str) -> Any:
    """Something that can be called, and isn't a class."""
    if not callable(value) or isinstance(value, type):
        raise ValueError(f"{name}={shown(value)} can't be called; give {examples}")
    return value


def callable_with(name: str, value: Any, remedy: str, *given: Any, **named: Any) -> Any:
    """Something that can be called with such arguments, as far as it tells; raises `ValueError` for anything else."""
    if not callable(value):
        raise ValueError(f"{name}={shown(value)} can't be called; {remedy}")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return value  # such as some built-in functions
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        raise ValueError(f"{name}={shown(value)} can't be called as it will be ({error}); {remedy}") from error
    return value


def text(name: str, value: Any, what: str) -> str:
    """Some text; raises `ValueError` for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"{name}={shown(value)} isn't {what}; give text in quotes")
    return value


def path_of(name: str, value: Any, what: str) -> pathlib.Path:
    """A path; raises `ValueError` for what names nothing."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise ValueError(f"{name}={shown(value)} isn't the path of {what}; give one in quotes, or a pathlib.Path")
    return pathlib.Path(value)


def key_of(value: Any, name: str = "key") -> Key[Array, ""]:
    """A key for random numbers.

    **Arguments:**

    - `value`: a key of JAX, an old one (`jax.random.PRNGKey`) too; a seed; None for `jax.random.key(0)`.
    - `name`: the argument's.

    **Returns:** the key. Raises `ValueError` for several keys and for anything else.
    """
    if value is None:
        return jax.random.key(0)
    seed = index_or_none(value)
    # JAX would drop what is above 32 bits unless 64 are switched on.
    if seed is not None and 0 <= seed < 2**32:
        return jax.random.key(seed)
    dtype = getattr(value, "dtype", None)
    if isinstance(value, jax.Array) and value.shape == () and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    if isinstance(value, (jax.Array, np.ndarray)) and dtype == np.uint32 and value.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(value), impl="threefry2x32")
    raise ValueError(
        f"{name}={shown(value)} isn't a key; give one, such as jax.random.key(0), or a seed from 0 to 2³² − 1"
    )


def real_array(name: str, value: Any, axes: str | None = None, *, finite: bool = True) -> np.ndarray:
    """Real numbers as a NumPy array; raises `ValueError` for anything else.

    **Arguments:**

    - `name`: the argument's.
    - `value`: what was given.
    - `axes`: words for its axes, such as `"row × channel"`; any if None.
    - `finite`: whether NaN and infinity are refused.
    """
    # What is known only inside `jit` has no values to look at.
    found = np.asarray(None if isinstance(value, Tracer) else native(name, value))
    if found.dtype.kind not in "fiu" and not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"{name}={shown(value)} isn't an array of real numbers; give one{f', {axes}' if axes else ''}")
    if axes is not None and (found.ndim != axes.count("×") + 1 or 0 in found.shape):
        raise ValueError(f"{name} has shape {found.shape}; give {axes}")
    if finite and not np.isfinite(found).all():
        raise ValueError(
            f"{name} has {int((~np.isfinite(found)).sum())} entries that are NaN or infinite; leave them out"
        )
    return found
