"""Finding out what a function from pictures to a network's input does, by giving it pictures of few values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .crop_and_resize import Place

# How far a ramp may be from a line, in steps of its 256 values or pixels of the input, whichever is more.
_OFF_LINE = 1.5


@dataclasses.dataclass(frozen=True)
class Probe:
    """A function, to be tried.

    **Arguments:**

    - `prepared`: from a picture to the network's input; it raises `ValueError` where the function gives none.
    - `reads`: how many channels pictures have.
    - `size`: the input's height and width.
    """

    prepared: Callable[[np.ndarray], np.ndarray]
    reads: int
    size: tuple[int, int]

    def _of_one_value(self, shape: tuple[int, int], value: int) -> Float[np.ndarray, "height width colour"]:
        return self.prepared(np.full((*shape, self.reads), value, np.uint8))

    def normalization(self, shape: tuple[int, int], colours: int) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
        """What stands for `mean` and `std`, and whether that's what the function does, of pictures of one value."""
        nothing = (0.0,) * colours, (1.0,) * colours, False
        try:
            black, middle, white = (self._of_one_value(shape, value) for value in (0, 102, 255))
        except ValueError:
            return nothing
        # Borders have one value whatever the picture, and say nothing.
        inside = np.abs(white - black).max(-1) > 0
        if not inside.any():
            return nothing
        low, between, high = (values[inside].astype(np.float64) for values in (black, middle, white))
        gain = (high - low).mean(0)
        least = np.abs(gain).max() * 1e-3
        flat = all(float(values.std(0).max()) <= least for values in (low, between, high))
        affine = np.abs(between.mean(0) - (low.mean(0) + 0.4 * gain)).max() <= least
        if not flat or not affine or gain.min() <= least:
            return nothing
        return tuple((0.0 - low.mean(0) / gain).tolist()), tuple((1 / gain).tolist()), True

    def place(self, shape: tuple[int, int]) -> Place | None:
        """Where the input lies in photographs of a shape, found by ramps; None where it's no upright box of them."""
        if min(shape) < 8:
            return None
        try:
            black, white = (self._of_one_value(shape, value).astype(np.float64) for value in (0, 255))
            lines = []
            for axis, length in enumerate(shape):
                line = _line(self._along(shape, axis, np.linspace(0, 255, length), black, white), length)
                if line is None:
                    return None
                # A function of all values, such as one that equalizes them, makes lines of other slopes of ramps.
                begin, apart = line
                count = self.size[axis]
                for share in (0.3, 0.7):
                    edge = round(begin + apart * share * count)
                    if not 1 <= edge <= length - 1:
                        continue
                    step = self._along(shape, axis, 255.0 * (np.arange(length) >= edge), black, white)
                    if abs(int((step >= 0.5).argmax()) - (edge - begin) / apart) > 2:
                        return None
                lines.append(line)
        except ValueError:
            return None
        (top, down), (left, across) = lines
        return Place(
            (max(1, round(shape[0] / down)), max(1, round(shape[1] / across))),
            (round(top / down), round(left / across)),
        )

    def _along(
        self,
        shape: tuple[int, int],
        axis: int,
        values: Float[np.ndarray, " length"],
        black: Float[np.ndarray, "height width colour"],
        white: Float[np.ndarray, "height width colour"],
    ) -> Float[np.ndarray, " place"]:
        """What becomes of values that change along one axis only, as shares of white; NaN in borders.

        Raises `ValueError` where the other axis or the channels don't agree.
        """
        whole = np.round(values).astype(np.uint8)
        whole = whole[:, None, None] if axis == 0 else whole[None, :, None]
        given = self.prepared(np.ascontiguousarray(np.broadcast_to(whole, (*shape, self.reads)))).astype(np.float64)
        gain = white - black
        known = np.abs(gain) > 1e-3 * max(float(np.abs(gain).max()), 1e-30)
        share = np.where(known, (given - black) / np.where(known, gain, 1), np.nan)
        share = np.moveaxis(share, axis, 0).reshape(given.shape[axis], -1)
        found = np.full(len(share), np.nan)
        for at in np.flatnonzero((~np.isnan(share)).any(1)):
            inside = share[at][~np.isnan(share[at])]
            if np.ptp(inside) > 2 * _OFF_LINE / 255:
                raise ValueError("the other axis, or other channels, are others")
            found[at] = float(np.median(inside))
        return found


def _line(share: Float[np.ndarray, " place"], length: int) -> tuple[float, float] | None:
    """Of a ramp's picture: where in the photograph the input begins along an axis, and how far its pixels are apart.

    None where it isn't the ramp, cut out and resized, and nothing else.
    """
    # At the ends of the photograph, filters look at what isn't there.
    inside = (share > 0.04) & (share < 0.96)
    if inside.sum() < 4:
        return None
    at = np.flatnonzero(inside) + 0.5
    places = share[inside] * (length - 1) + 0.5
    apart, begin = np.polyfit(at, places, 1)
    off = np.abs(begin + apart * at - places).max()
    if apart <= 0 or off > _OFF_LINE * max(length / 255, apart):
        return None
    return float(begin), float(apart)
