"""The first pass over rows that come piece by piece: checks, sizes, and samples on the way."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...blocks.scratch import Scratch
from .. import validate
from .stream import Piece, Scale, Stream

_KEEP_ORDER = 64 * 2**20  # bytes of a sample whose rows stay in the order in which they were chosen


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of all rows.

    **Arguments:**

    - `low`, `high`: the lowest and highest value; `counted`: the largest magnitude of entries that have weight.
    - `total`, `magnitudes`: sums of the values and of their magnitudes, entries that are left out counted as `visible`.
    - `mean`: of each channel by the weights; None without.
    - `most_weight`: the largest weight.
    - `digest`: of all bytes.
    """

    low: float
    high: float
    counted: float
    total: float
    magnitudes: float
    mean: Float[np.ndarray, " channel"] | None
    most_weight: float
    digest: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """Rows that are wanted of a pass, and where they go: `into[k]` is row `chosen[k]`."""

    chosen: np.ndarray
    into: np.ndarray

    @staticmethod
    def of(stream: Stream, chosen: np.ndarray, scratch: Scratch) -> Sample:
        """Room for these rows; large samples are kept in the order of the rows."""
        shape = (len(chosen), stream.shape[1])
        if len(chosen) * stream.shape[1] * stream.source.dtype.itemsize > _KEEP_ORDER and len(chosen) > shape[1]:
            chosen = np.sort(chosen)
        return Sample(chosen, scratch.array(shape, stream.source.dtype))


def look(stream: Stream, samples: Sequence[Sample] = (), *, signed: bool, digest: bool = False) -> Facts:
    """Go through all rows once.

    **Arguments:**

    - `stream`: the rows.
    - `samples`: filled on the way.
    - `signed`: whether values below zero may be.
    - `digest`: take one of all bytes, as a checkpoint needs it.

    **Returns:** what is known of them. Raises `ValueError` for what `factorize` refuses.
    """
    found: Any = None
    tiny, hidden = float(jnp.finfo(stream.dtype).tiny), False
    negatives, crc, most_weight, where = 0, 0, 0.0, [np.argsort(sample.chosen, kind="stable") for sample in samples]
    for piece in stream:
        here = piece.anywhere
        seen = jax.tree.map(np.asarray, _seen(here, stream.scale))
        for sample, order in zip(samples, where, strict=True):
            _take(sample, order, piece)
        if digest:
            for part in (piece.values, piece.weights):
                if part is not None:
                    crc = zlib.crc32(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data, crc)
        _check_piece(piece, seen, stream)
        # Processors take what is smaller for zero.
        hidden |= float(max(-seen["low"], seen["high"])) < tiny and bool(np.any(piece.values))
        negatives += int(seen["negatives"])
        sums = {name: np.asarray(seen[name], np.float64) for name in ("total", "magnitudes", "weighted", "weights")}
        ranges = {name: float(seen[name]) for name in ("low", "high", "counted")}
        most_weight = max(most_weight, float(seen["most_weight"]))
        if found is None:
            found = (ranges, sums)
        else:
            pairs = zip((min, max, max), ("low", "high", "counted"), strict=True)
            ranges = {name: pick(found[0][name], ranges[name]) for pick, name in pairs}
            found = (ranges, {name: found[1][name] + value for name, value in sums.items()})
    ranges, sums = found
    if hidden and max(-ranges["low"], ranges["high"]) < tiny:
        raise ValueError(
            f"all of activations is below the smallest normal number of {stream.dtype}, {tiny:.3g}; multiply it by a "
            "power of two, or give float64"
        )
    if negatives and not signed:
        count = stream.shape[0] * stream.shape[1]
        raise ValueError(
            f"activations has {negatives} of {count} entries below zero ({negatives / count:.1%}), the lowest "
            f"{ranges['low']:.4g}; {validate.SIGNED}"
        )
    mean = None
    if stream.weights is not None:
        mean = (sums["weighted"] / np.where(sums["weights"] > 0, sums["weights"], 1)).astype(stream.dtype)
    return Facts(
        **ranges, total=float(sums["total"]), magnitudes=float(sums["magnitudes"]), mean=mean,
        most_weight=most_weight, digest=crc,
    )  # fmt: skip


def _check_piece(piece: Piece, seen: dict[str, Any], stream: Stream) -> None:
    if seen["bad"]:
        bad = ~np.isfinite(np.asarray(piece.values).astype(stream.dtype))
        row, channel = np.argwhere(bad)[0]
        raise ValueError(
            f"activations has {int(bad.sum())} entries that are NaN or infinite in rows {piece.start} to "
            f"{piece.stop - 1}, the first at {(piece.start + int(row), int(channel))}; leave their rows out, or mask "
            "them with SquaredError(weights=...) after np.nan_to_num"
        )
    if piece.weights is not None and not (seen["least_weight"] >= 0 and np.isfinite(seen["most_weight"])):
        raise ValueError(
            f"weights has entries that are NaN, infinite or below zero in rows {piece.start} to {piece.stop - 1}; give "
            "weights of at least 0; 0 leaves an entry out"
        )


@jax.jit
def _seen(piece: Piece, scale: Scale) -> dict[str, Array]:
    values = scale.activations(piece)
    one, nothing = jnp.ones((), values.dtype), jnp.zeros((), values.dtype)
    found = {
        "low": jnp.min(values), "high": jnp.max(values), "negatives": jnp.sum(values < 0, dtype=jnp.int32),
        # Counted: a minimum may pass over NaN where it is compiled to be fast.
        "bad": jnp.sum(~jnp.isfinite(values), dtype=jnp.int32),
        "total": jnp.sum(values), "magnitudes": jnp.sum(jnp.abs(values)), "weighted": nothing, "weights": nothing,
        "most_weight": one, "least_weight": nothing, "counted": jnp.max(jnp.abs(values)),
    }  # fmt: skip
    if piece.weights is None:
        return found
    weights = piece.weights.astype(values.dtype)
    return found | {
        "weighted": jnp.sum(weights * values, axis=0), "weights": jnp.sum(weights, axis=0),
        "most_weight": jnp.max(weights), "least_weight": jnp.min(weights),
        "counted": jnp.max(jnp.abs(jnp.where(weights > 0, values, 0))),
    }  # fmt: skip


def _take(sample: Sample, order: np.ndarray, piece: Piece) -> None:
    first, last = np.searchsorted(sample.chosen, [piece.start, piece.stop], sorter=order)
    places = order[first:last]
    sample.into[places] = np.asarray(piece.values)[sample.chosen[places] - piece.start]
