"""Curves as drawings that take the page's colours and letters."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..evaluation import MethodResult
from ..faithfulness import Path
from ..metrics import Score, band_over_runs
from ..nmf import RankScan
from ..support.sentences import in_digits
from .pictures import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Matplotlib wants colours; these stand for the page's own, which differ by day and by night.
_INK, _MUTED, _ACCENT, _GRID = "#010203", "#040506", "#070809", "#0a0b0c"
_IN_PAGE = {_INK: "var(--ink)", _MUTED: "var(--muted)", _ACCENT: "var(--accent)", _GRID: "var(--line)"}
_LETTER = (5.5, 11)  # the room that a letter takes, and a line, in points
_NEAR = 8  # from a point to its label, in points
# Lengths of ink and gap, and widths of the lines, which are pixels however large the page draws a figure: the legend's
# samples have the same.
_DASHES = ((), (7, 4), (2, 3), (9, 3, 2, 3), (16, 4))
_WIDTHS = {True: 3.0, False: 1.6}


def curve_figure(scores: tuple[Score, ...], which: Literal["insertion", "deletion"]) -> str:
    """Share of held-out pictures for which the target is predicted, by the number of concepts put in or taken out.

    **Arguments:**

    - `scores`: the explanation first, then its controls.
    - `which`: the curve.

    **Returns:** an SVG element, whose colours are the page's CSS variables.
    """
    with _drawing(which) as (axes, finished):
        for number, row in enumerate(scores):
            accuracy = getattr(row.fidelity, which).accuracy
            main = number == 0
            axes.plot(
                np.arange(len(accuracy)),
                accuracy,
                color=_ACCENT if main else _MUTED,
                linewidth=_WIDTHS[main],
                linestyle=_linestyle(number),
                zorder=3 if main else 2,
                clip_on=False,
            )
        _shares_by_concepts(axes, which, len(scores[0].fidelity.insertion.accuracy) - 1)
    return finished()


@dataclasses.dataclass(frozen=True)
class Line:
    """How a method's curve is drawn: its colour, lengths of ink and gap, and its width in pixels."""

    name: str
    control: bool
    colour: str
    dashes: tuple[int, ...]
    width: float

    @property
    def css_colour(self) -> str:
        """The colour as the page has it."""
        return _IN_PAGE.get(self.colour, self.colour)

    @property
    def svg_dashes(self) -> str:
        """The dashes as SVG wants them."""
        return _in_svg(self.dashes)


def method_lines(results: Sequence[MethodResult]) -> list[Line]:
    """A line for each method: colours and dashes both differ, so that either tells two apart; controls are grey."""
    lines, counts = [], {True: 0, False: 0}
    for result in results:
        number = counts[result.control]
        counts[result.control] += 1
        if result.control:
            # None is solid, as the first method is.
            lines.append(Line(result.name, True, _MUTED, _DASHES[1 + number % (len(_DASHES) - 1)], 1.6))
        else:
            colour, dashes = PALETTE[number % len(PALETTE)], _DASHES[number % len(_DASHES)]
            lines.append(Line(result.name, False, colour, dashes, 2.4))
    return lines


def band_figure(results: Sequence[MethodResult], which: Literal["insertion", "deletion"]) -> str:
    """The curves of several methods, as `curve_figure` has those of one explanation, each with its band over folds.

    **Arguments:**

    - `results`: methods and controls, of at least two folds each.
    - `which`: the curve.

    **Returns:** an SVG element. Lines are those of `method_lines`; bands are one standard deviation on each side.
    """
    with _drawing(which) as (axes, finished):
        for result, line in zip(results, method_lines(results), strict=True):
            band = band_over_runs(getattr(result, which))
            steps, order = np.arange(len(band.mean)), 2 if line.control else 3
            axes.fill_between(
                steps,
                band.low,
                band.high,
                color=line.colour,
                alpha=0.08 if line.control else 0.14,
                linewidth=0,
                zorder=order - 1,
            )
            axes.plot(
                steps, band.mean, color=line.colour, linewidth=line.width, linestyle=_style(line.dashes),
                zorder=order, clip_on=False,
            )  # fmt: skip
        _shares_by_concepts(axes, which, getattr(results[0], which).shape[1] - 1)
    return finished()


def _shares_by_concepts(axes: Any, which: Literal["insertion", "deletion"], concepts: int) -> None:
    """The axes of insertion and deletion curves."""
    from matplotlib import ticker

    axes.set(ylim=(0, 1), xlim=(0, concepts))
    axes.set_xlabel(f"concepts {'put in' if which == 'insertion' else 'taken out'}, most important first")
    axes.set_ylabel("pictures still in the class")
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, symbol=" %"))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=8))


def path_figure(path: Path) -> str:
    """What faithfulness costs: squared error against KL on pictures held out, a point for each λ; the chosen filled."""
    with _drawing("path") as (axes, finished):
        error = [point.held_out_error for point in path.points]
        loss = [point.held_out_loss for point in path.points]
        axes.plot(error, loss, color=_MUTED, linewidth=1.3, marker="o", markersize=5, markerfacecolor=_GRID)
        axes.plot(error[path.chosen], loss[path.chosen], color=_ACCENT, marker="o", markersize=9)
        axes.set_xlabel("relative squared error")
        axes.set_ylabel("KL")
        axes.set_ylim(0, 1.12 * max(loss) or 1)
        axes.margins(x=0.2)
        axes.locator_params(axis="x", nbins=5)
        words = [f"λ = {in_digits(point.weight)}" for point in path.points]
        places = _apart(axes, list(zip(error, loss, strict=True)), words, path.chosen)
        for number, (across, up) in enumerate(places):
            far = max(abs(across), abs(up)) > _NEAR
            axes.annotate(
                words[number],
                (error[number], loss[number]),
                xytext=(across, up),
                textcoords="offset points",
                ha=_side(across, "left", "right"),
                va=_side(up, "bottom", "top"),
                color=_INK if number == path.chosen else _MUTED,
                arrowprops={"arrowstyle": "-", "color": _MUTED, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
                if far
                else None,
            )
    return finished()


def _side(offset: float, after: str, before: str) -> str:
    return "center" if abs(offset) < 3 else after if offset > 0 else before


def _apart(axes: Any, points: list[tuple[float, float]], words: list[str], chosen: int) -> list[tuple[float, float]]:
    """Where each point's label goes, in points from it: beside it where there is room, else further off.

    The one chosen is placed first, then both ends. A place is the worse the more of other labels, points and lines it
    covers.
    """
    axes.figure.draw_without_rendering()  # lays the axes out
    scale = 72 / axes.figure.dpi
    at = np.round(axes.transData.transform(points) * scale, 1)
    low, high = axes.bbox.min * scale, axes.bbox.max * scale
    lines = np.concatenate([np.linspace(start, stop, 20) for start, stop in itertools.pairwise(at)] or [at])
    angles = np.arange(16) * np.pi / 8
    offsets = [(far * np.cos(angle), far * np.sin(angle)) for far in (_NEAR, 16, 26, 38, 52) for angle in angles]
    found: dict[int, tuple[float, float]] = {}
    boxes: list[tuple[np.ndarray, np.ndarray]] = []
    for number in dict.fromkeys([chosen, 0, len(points) - 1, *range(len(points))]):
        size = np.array([_LETTER[0] * len(words[number]), _LETTER[1]])
        others = np.delete(at, number, axis=0)
        costs = []
        for offset in offsets:
            corner = _corner(at[number], offset, size)
            end = corner + size
            covered = sum(bool(np.all((corner < stop) & (start < end))) for start, stop in boxes)
            outside = bool(np.any(corner < low) | np.any(end > high))
            leader = at[number] + np.linspace(0, 1, 12)[:, None] * offset
            crossed = sum(_inside(leader, start, stop) for start, stop in boxes)
            # A label nearer to another point than to its own would be taken for that one's.
            away = np.linalg.norm(at - np.clip(at, corner, end), axis=1)
            taken = int(np.sum(np.delete(away, number) < away[number] + 1)) if np.hypot(*offset) <= _NEAR else 0
            costs.append(
                1000 * (covered + outside)
                + 300 * _inside(others, corner, end, 4.0)
                + 100 * crossed
                + 20 * (_inside(lines, corner, end) + taken)
                + np.hypot(*offset)
            )
        best = int(np.argmin(np.round(costs, 3)))
        across, up = offsets[best]
        found[number] = (round(across, 1), round(up, 1))
        corner = _corner(at[number], offsets[best], size)
        boxes.append((corner, corner + size))
    return [found[number] for number in range(len(points))]


def _corner(point: np.ndarray, offset: tuple[float, float], size: np.ndarray) -> np.ndarray:
    """The lower left corner of a label so far from its point, as `_side` anchors it."""
    return point + offset - size * [0.5 if abs(part) < 3 else float(part < 0) for part in offset]


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray, margin: float = 0.0) -> int:
    return int(np.sum(np.all((points > low - margin) & (points < high + margin), axis=1)))


def rank_figure(scan: RankScan) -> str:
    """Which rank: held-out error with its standard error, and stability over starts with its floor, by rank."""
    with _drawing("rank") as (axes, finished):
        axes.errorbar(
            scan.ranks, scan.held_out, yerr=scan.held_out_error, color=_ACCENT, linewidth=2.2, marker="o", markersize=5
        )
        axes.plot(
            scan.ranks, scan.stability, color=_INK, linewidth=1.6, linestyle=_linestyle(1), marker="s", markersize=4
        )
        axes.plot(scan.ranks, scan.floor, color=_MUTED, linewidth=1.3, linestyle=_linestyle(2))
        axes.set_xlabel("concepts")
        axes.set_ylabel("share")
        axes.set_ylim(0, 1.02)
        axes.set_xticks(scan.ranks)
    return finished()


@contextlib.contextmanager
def _drawing(name: str) -> Iterator[tuple[Any, Callable[[], str]]]:
    """Axes to draw on, and the function that then gives the drawing."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "font.size": 10,
        "font.family": "sans-serif",
        "svg.hashsalt": "face_jax",
        "lines.scale_dashes": False,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(4.6, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y", color=_GRID, linewidth=0.8)

        def finished() -> str:
            _plain(axes)
            buffer = io.StringIO()
            with mpl.rc_context(settings):
                settle(figure)
                figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            drawing = buffer.getvalue()
            for stand_in, variable in _IN_PAGE.items():
                drawing = drawing.replace(stand_in, variable)
            return _inline(drawing, name)

        yield axes, finished


def settle(figure: Figure) -> None:
    """Lay a figure out now, with axes at rounded places.

    The layout's solver goes through its constraints in the order of their addresses, so that places differ in the
    last bit from run to run, and with them the names within an SVG file.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(edge, 6) for edge in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))


def _plain(axes: Any) -> None:
    """No frame, no ticks, labels in the page's quiet colour."""
    axes.tick_params(colors=_MUTED, length=0)
    axes.xaxis.label.set_color(_MUTED)
    axes.yaxis.label.set_color(_MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)


def legend(scores: tuple[Score, ...]) -> list[tuple[str, str, float, bool]]:
    """For each line its name, its dashes and its width as SVG wants them, and whether it's the explanation's."""
    return [
        (row.name, _in_svg(_DASHES[number % len(_DASHES)]), _WIDTHS[number == 0], number == 0)
        for number, row in enumerate(scores)
    ]


def _in_svg(dashes: tuple[int, ...]) -> str:
    return " ".join(map(str, dashes)) or "none"


def _linestyle(number: int) -> Any:
    return _style(_DASHES[number % len(_DASHES)])


def _style(dashes: tuple[int, ...]) -> Any:
    return (0, dashes) if dashes else "-"


def _inline(drawing: str, which: str) -> str:
    """Only the element, with names of its own (two drawings share a page), as wide as there's room."""
    element = drawing[drawing.index("<svg") :]
    size, rest = element.split(">", 1)
    box = size[size.index("viewBox=") :].split('"')[1]
    element = (
        f'<svg viewBox="{box}" role="img" aria-label="{which} curves" xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
    )
    for attribute in ('id="', 'href="#', "url(#"):
        element = element.replace(attribute, f"{attribute}{which}-")
    return element
