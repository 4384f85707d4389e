"""The concepts of one picture in one figure: each place in the colour of the concept that is strongest there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ..support.extras import installing
from .pictures import PALETTE, concept_colour

# A concept's area is where its map is above this share of its peak; paint ends softly around that.
AREA = 0.5
_EDGE = 0.08


@dataclasses.dataclass(frozen=True)
class ShownConcept:
    """One concept of a coloured picture.

    **Arguments:**

    - `number`: the concept's, from 1.
    - `name`: what the legend calls it.
    - `colour`: as `#rrggbb`.
    - `share`: its part of the strength of all concepts given.
    - `strength`: its map, smoothed, as a share of its peak.
    - `peak`: where it is strongest, `(y, x)`.
    """

    number: int
    name: str
    colour: str
    share: float
    strength: Float[np.ndarray, "y x"]
    peak: tuple[int, int]

    @property
    def area(self) -> Bool[np.ndarray, "y x"]:
        """Where it is at least half as strong as at its peak."""
        return self.strength >= AREA


def shown_concepts(
    maps: Float[np.ndarray, "concept y x"],
    numbers: Sequence[int],
    *,
    strengths: Float[np.ndarray, " concept"] | None = None,
    names: Sequence[str] | None = None,
    most: int = 4,
    smooth: float = 0.04,
) -> tuple[ShownConcept, ...]:
    """Which concepts a coloured picture shows, in which colours, and where each is.

    **Arguments:**

    - `maps`: where concepts are, by any method; what is below zero counts as nothing.
    - `numbers`: the concepts' numbers, from 1.
    - `strengths`: how strong each concept is in this picture, such as what it adds to the logit; the strongest are
        shown. By default, the sum of its map.
    - `names`: what the legend calls them; "concept 3" by default.
    - `most`: at most that many, and at most 8, which is how many colours anybody can tell apart.
    - `smooth`: width of the Gaussian that makes areas of maps that flicker from pixel to pixel, as a share of the
        picture's height.

    **Returns:** the concepts, strongest first; those that are nowhere in the picture aren't among them. Each has the
    colour that its number has everywhere in the report.
    """
    if not len(maps) == len(numbers) or (names is not None and len(names) != len(numbers)):
        raise ValueError(
            f"maps has {len(maps)} concepts, numbers {len(numbers)}"
            + (f", names {len(names)}" if names is not None else "")
            + "; give each one map, one number and one name"
        )
    if not 1 <= most <= len(PALETTE):
        raise ValueError(f"most={most} can't be told apart by colour; give 1 to {len(PALETTE)}")
    smoothed = [_smoothed(np.maximum(one, 0), smooth * one.shape[0]) for one in maps.astype(np.float64)]
    weight = np.asarray([one.sum() for one in smoothed]) if strengths is None else np.maximum(strengths, 0)
    weight = np.where([one.max() > 0 for one in smoothed], weight, 0)
    best = [int(at) for at in np.argsort(-weight, kind="stable")[:most] if weight[at] > 0]
    shown = []
    for at in best:
        y, x = np.unravel_index(int(smoothed[at].argmax()), smoothed[at].shape)
        shown.append(
            ShownConcept(
                number=numbers[at],
                name=f"concept {numbers[at]}" if names is None else names[at],
                colour=concept_colour(numbers[at]),
                share=float(weight[at] / weight.sum()),
                strength=smoothed[at] / smoothed[at].max(),
                peak=(int(y), int(x)),
            )
        )
    return tuple(shown)


def coloured_pixels(picture: UInt8[np.ndarray, "y x 3"], shown: Sequence[ShownConcept]) -> UInt8[np.ndarray, "y x 3"]:
    """A pale grey picture, painted in concepts' areas, at each place in the colour of the one that is strongest there.

    Strong means near its own peak: a weak concept's peak is painted like a strong one's. Light and dark of the
    picture stay, so that one sees what lies beneath.
    """
    grey = picture.astype(np.float64).mean(axis=-1, keepdims=True)
    if not shown:
        return np.repeat(grey, 3, axis=-1).astype(np.uint8)
    strengths = np.stack([one.strength for one in shown])
    winner = strengths.argmax(axis=0)
    strongest = strengths.max(axis=0)
    inside = np.clip((strongest - AREA + _EDGE) / (2 * _EDGE), 0, 1)
    paint = (inside * (0.3 + 0.5 * strongest))[..., None]
    colour = np.asarray([[int(one.colour[at : at + 2], 16) for at in (1, 3, 5)] for one in shown], np.float64)[winner]
    pale = 70 + 0.7 * grey
    return np.clip(pale * (1 - paint) + colour * (0.35 + 0.65 * grey / 160) * paint, 0, 255).astype(np.uint8)


def coloured_figure(
    picture: UInt8[np.ndarray, "y x 3"],
    maps: Float[np.ndarray, "concept height width"],
    numbers: Sequence[int],
    *,
    strengths: Float[np.ndarray, " concept"] | None = None,
    names: Sequence[str] | None = None,
    most: int = 4,
    smooth: float = 0.04,
    title: str = "",
    legend: str = "share of all concepts' maps",
) -> Any:
    """A picture beside itself with its strongest concepts in colour, numbered, with a legend (CRAFT, figures 1 and 2).

    Outlines enclose where a concept is at least half as strong as at its peak, also where another is stronger still.

    **Arguments:**

    - `picture`: what the network sees (`face_jax.pictures.crop_and_resize.visible`), of the maps' size.
    - `title`: above the figure.
    - `legend`: what the legend's shares are shares of; say so if `strengths` are given.
    - the others: as for `shown_concepts`.

    **Returns:** a `matplotlib.figure.Figure`, which has `savefig`.
    """
    if picture.shape[:2] != maps.shape[1:]:
        raise ValueError(
            f"picture has {picture.shape[:2]} pixels and maps {maps.shape[1:]}; give what the network sees, "
            "as face_jax.pictures.crop_and_resize.visible cuts it"
        )
    try:
        from matplotlib import patheffects
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError as error:
        raise ImportError(f"figures need matplotlib; {installing('report')}") from error
    shown = shown_concepts(maps, numbers, strengths=strengths, names=names, most=most, smooth=smooth)
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    plain, painted, words = figure.subplots(1, 3, width_ratios=(1, 1, 0.62))
    plain.imshow(picture)
    painted.imshow(coloured_pixels(picture, shown))
    halo = [patheffects.withStroke(linewidth=3.2, foreground="#1a1a1a")]
    for one in shown:
        lines = painted.contour(one.strength, levels=[AREA], colors=[one.colour], linewidths=1.8)
        lines.set_path_effects(halo)
    places = apart([one.peak for one in shown], picture.shape)
    for one, (y, x) in zip(shown, places, strict=True):
        painted.annotate(
            str(one.number), xy=one.peak[::-1], xytext=(x, y), color="white", fontsize=10, fontweight="bold",
            ha="center", va="center", arrowprops={"arrowstyle": "-", "color": "#1a1a1a", "lw": 1.6},
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "#1a1a1a", "edgecolor": one.colour, "lw": 2},
        )  # fmt: skip
    handles = [
        Line2D([], [], linestyle="", marker="s", markersize=13, color=one.colour, markeredgecolor="#1a1a1a")
        for one in shown
    ]
    labels = [f"{one.name}, {100 * one.share:.0f} %" for one in shown]
    if shown:
        words.legend(
            handles, labels, loc="center left", frameon=False, fontsize=11, labelspacing=1.1, title=legend,
            title_fontsize=9, alignment="left",
        )  # fmt: skip
    else:
        words.text(0, 0.5, "none of the concepts\nis in this picture", va="center", fontsize=11)
    for axes in (plain, painted, words):
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def _smoothed(strength: Float[np.ndarray, "y x"], sigma: float) -> Float[np.ndarray, "y x"]:
    import scipy.ndimage

    return scipy.ndimage.gaussian_filter(strength, sigma, mode="nearest") if sigma > 0 else strength


def apart(peaks: list[tuple[int, int]], shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """Places for labels, each as near to its peak as the edge and the labels before it allow."""
    rim, distance = 0.06 * shape[0], shape[0] / 9
    grid = np.stack(np.meshgrid(np.arange(rim, shape[0] - rim), np.arange(rim, shape[1] - rim), indexing="ij"), -1)
    free = np.full(grid.shape[:2], True)
    found: list[tuple[float, float]] = []
    for peak in peaks:
        away = np.where(free, np.hypot(*np.moveaxis(grid - np.asarray(peak), -1, 0)), np.inf)
        y, x = grid[np.unravel_index(int(away.argmin()), away.shape)]
        found.append((float(y), float(x)))
        free &= np.hypot(grid[..., 0] - y, grid[..., 1] - x) >= distance
    return found
