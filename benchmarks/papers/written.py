"""Tables as JSON, Markdown and PNG."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

_PACKAGES = ("face-jax", "jax", "torch", "torchvision", "scikit-learn", "scikit-image", "numpy")
# Methods have colours, none of them grey, and each colour the next dashes when it comes again; controls are grey.
_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)))
# What should be small and is so many times as large elsewhere has a logarithmic axis: the worst hide what the others
# differ by.
_WIDE = 8


@dataclasses.dataclass(frozen=True)
class Column:
    """One of a table's columns.

    **Arguments:**

    - `number`: what it's called in rows.
    - `title`: as shown; arrows say what is better.
    - `digits`: behind the point.
    - `floor`: the number that is shown in brackets behind it.
    """

    number: str
    title: str
    digits: int = 3
    floor: str | None = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a drawing, with one standard deviation on each side."""

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float]
    control: bool = False


@dataclasses.dataclass(frozen=True)
class Panel:
    """Some curves with common axes."""

    x: str
    y: str
    curves: Sequence[Curve]
    logarithmic: bool = False


@dataclasses.dataclass(frozen=True)
class Made:
    """What a table is when it has been computed.

    **Arguments:**

    - `rows`: a dictionary each, with `method`, `control`, numbers and their `…_std`.
    - `columns`: what Markdown shows of them.
    - `panels`: what the drawing shows; bars of the columns if there are none.
    - `notes`: sentences below.
    """

    rows: list[dict[str, Any]]
    columns: tuple[Column, ...]
    panels: tuple[Panel, ...] = ()
    notes: tuple[str, ...] = ()


def markdown(made: Made) -> str:
    """A table with `mean ± std`, controls in italics, and the ceilings last."""
    head = ["", *(column.title for column in made.columns)]
    lines = [head, ["---"] * len(head)]
    for row in made.rows:
        name = f"*{row['method']}*" if row["control"] else row["method"]
        lines.append([name, *(_cell(row, column) for column in made.columns)])
    ceilings = [_ceiling(made.rows, column) for column in made.columns]
    if any(ceilings):
        lines.append(["ceiling", *ceilings])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _ceiling(rows: list[dict[str, Any]], column: Column) -> str:
    """The best that's possible: C-Ins's depends on where a method begins, and all on the number of concepts."""
    known = [row[f"{column.number}_ceiling"] for row in rows if f"{column.number}_ceiling" in row]
    shown = [f"{each:.{column.digits}f}" for each in (min(known), max(known))] if known else [""]
    return " to ".join(dict.fromkeys(shown))


def _cell(row: dict[str, Any], column: Column) -> str:
    value = row.get(column.number)
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    large = abs(value) >= 1000 and column.digits
    shown = f"{value:.3g}" if large else f"{value:.{column.digits}f}"
    std = row.get(f"{column.number}_std")
    if std is not None:
        shown += f" ± {std:.{column.digits}f}"
    return shown if column.floor is None else f"{shown} ({row.get(column.floor, math.nan):.{column.digits}f})"


def write(folder: pathlib.Path, name: str, title: str, made: Made, settings: dict[str, Any]) -> str:
    """Writes `name.json`, `name.md` and `name.png`; gives the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = "\n".join(made.notes)
    text = f"### {title}\n\n{settings['said']}\n\n{markdown(made)}\n{notes}\n"
    (folder / f"{name}.md").write_text(text)
    record = {
        "table": name, "title": title, "settings": settings | {"versions": versions()}, "rows": made.rows,
        "columns": [dataclasses.asdict(column) for column in made.columns], "notes": list(made.notes),
    }  # fmt: skip
    part = folder / f"{name}.json.{os.getpid()}"
    part.write_text(json.dumps(record, indent=1, default=_plain))
    os.replace(part, folder / f"{name}.json")
    draw(folder / f"{name}.png", title, made)
    return text


def versions() -> dict[str, str]:
    """Of what results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def draw(path: pathlib.Path, title: str, made: Made) -> None:
    """Curves with bands, or bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if made.panels:
        across = min(3, len(made.panels))
        down = -(-len(made.panels) // across)
        named = len({curve.name for panel in made.panels for curve in panel.curves})
        figure = Figure(
            figsize=(4.6 * across, 3.4 * down + 0.5 + 0.16 * -(-named // (2 * across))), layout="constrained"
        )
        for axes, panel in zip(figure.subplots(down, across, squeeze=False).flat, made.panels, strict=False):
            _curves(axes, panel)
        drawn = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
        lines = {curve.name: drawn[curve.name] for curve in made.panels[0].curves}
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=2 * across, fontsize=7, frameon=False)
    else:
        shown = [c for c in made.columns if any(isinstance(row.get(c.number), float) for row in made.rows)]
        figure = Figure(figsize=(2.2 * len(shown) + 2, 0.28 * len(made.rows) + 1.2), layout="constrained")
        for number, (axes, column) in enumerate(
            zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True)
        ):
            _bars(axes, made.rows, column, labelled=number == 0)
    figure.suptitle(title, fontsize=9)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=100)


def _curves(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    known = {control: [each.name for each in panel.curves if each.control is control] for control in (True, False)}
    values = [value for curve in panel.curves for value in curve.mean]
    if "↓" in panel.y and min(values) > 0 and max(values) > _WIDE * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    for curve in sorted(panel.curves, key=lambda each: not each.control):
        x, mean, std = (np.asarray(each, float) for each in (curve.x, curve.mean, curve.std))
        number = known[curve.control].index(curve.name)
        times = 1 if curve.control else len(_COLOURS)
        style = {"color": "0.5" if curve.control else _COLOURS[number % times]}
        axes.plot(
            x, mean, linestyle=_DASHES[number // times % len(_DASHES)], label=curve.name,
            linewidth=1.1 if curve.control else 1.5, marker="." if len(x) < 15 and not curve.control else "", **style,
        )  # fmt: skip
        axes.fill_between(x, mean - std, mean + std, alpha=0.07 if curve.control else 0.15, linewidth=0, **style)
    if panel.logarithmic:
        axes.set_xscale("symlog", linthresh=min(x for curve in panel.curves for x in curve.x if x > 0))
    axes.set_xlabel(panel.x, fontsize=8)
    axes.set_ylabel(panel.y, fontsize=8)
    axes.tick_params(labelsize=7)


def _bars(axes: Any, rows: list[dict[str, Any]], column: Column, *, labelled: bool) -> None:
    names = [row["method"] for row in rows]
    values = [row[column.number] if isinstance(row.get(column.number), float) else math.nan for row in rows]
    errors = [row.get(f"{column.number}_std") or 0.0 for row in rows]
    colours = ["0.7" if row["control"] else "C0" for row in rows]
    axes.barh(range(len(rows)), values, xerr=errors, color=colours, error_kw={"linewidth": 0.8})
    axes.set_yticks(range(len(rows)), names if labelled else [""] * len(rows), fontsize=6)
    axes.invert_yaxis()
    axes.set_title(column.title, fontsize=7)
    axes.tick_params(axis="x", labelsize=6)
