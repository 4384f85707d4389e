"""The picture of a sanity check: what remains of the explanation, and of its maps, while the model forgets."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from ..sanity import SanityCheck
from ..support.arguments import instance, path_of
from ..support.atomic_folder import folder_of
from ..support.extras import installing
from .figures import settle
from .pictures import PALETTE, concept_colour, spotlight

# Maps of so many concepts are drawn.
_CONCEPTS = 3
_NARROWEST = 6.6  # inches
_INK, _MUTED, _GRID = "#16191d", "#5c6470", "#dfe3e8"


def write_sanity_check(check: SanityCheck, folder: str | pathlib.Path) -> pathlib.Path:
    """Writes `sanity.json` (the numbers) and `sanity.png` (the figure) into a folder, which is made if need be.

    **Returns:** the folder.

    **Example:**

    >>> check = fj.sanity_check(explanation, [("trained", model), ("again", model)])
    >>> sorted(file.name for file in fj.write_sanity_check(check, folder / "sanity").iterdir())
    ['sanity.json', 'sanity.png']
    """
    instance("check", check, SanityCheck, "the result of face_jax.sanity_check")
    folder = folder_of(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = ("dictionary", "importance", "maps", "logit_agreement")
    text = {
        "stages": [
            {"name": stage.name} | {name: _finite(getattr(stage, name)) for name in numbers} for stage in check.stages
        ],
        "floors": {name: _finite(getattr(check, f"{name}_floor")) for name in numbers[:3]},
    }
    content = json.dumps(text, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "sanity.json").write_text(content + "\n", encoding="utf-8")
    sanity_figure(check, folder / "sanity.png")
    return folder


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if np.isfinite(value) else None


def sanity_figure(check: SanityCheck, path: str | pathlib.Path) -> pathlib.Path:
    """Draws likeness by stage, each with its floor, above maps of one photograph at each stage.

    **Arguments:**

    - `check`: from `face_jax.sanity_check`.
    - `path`: the file; its ending says the format.

    **Returns:** the path.

    **Example:**

    >>> check = fj.sanity_check(explanation, [("trained", model), ("again", model)])
    >>> fj.sanity_figure(check, folder / "sanity.svg").name
    'sanity.svg'
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"drawing a sanity check needs matplotlib; {installing('report')}") from error
    instance("check", check, SanityCheck, "the result of face_jax.sanity_check")
    path = path_of("path", path, "a file for the figure")
    columns, concepts = len(check.stages) + 1, min(_CONCEPTS, len(check.shown))
    with mpl.rc_context({"font.size": 9, "font.family": "sans-serif", "svg.hashsalt": "face_jax"}):
        # The legend needs its width however few stages there are.
        width = max(1.35 * columns + 0.6, _NARROWEST)
        figure = Figure(figsize=(width, 2.9 + 1.45 * concepts), layout="constrained")
        grid = figure.add_gridspec(concepts + 1, columns, height_ratios=[2.1, *[1] * concepts])
        _curves(check, figure.add_subplot(grid[0, :]))
        for row in range(concepts):
            for column in range(columns):
                axes = figure.add_subplot(grid[row + 1, column])
                strength = (check.shown if column == 0 else check.stages[column - 1].shown)[row]
                colour = concept_colour(row + 1)
                axes.imshow(spotlight(check.photograph, np.asarray(strength), colour))
                axes.set(xticks=[], yticks=[])
                for spine in axes.spines.values():
                    spine.set_visible(False)
                if column == 0:
                    axes.set_ylabel(f"concept {row + 1}", color=_INK)
                if row == 0:
                    title = "explanation" if column == 0 else check.stages[column - 1].name
                    axes.set_title(_folded(title), fontsize=7.5, color=_MUTED)
        settle(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=130, facecolor="white", metadata=metadata)
    return path


def _curves(check: SanityCheck, axes) -> None:
    # The first column belongs to the explanation itself, under which all likenesses are 1.
    places = np.arange(len(check.stages)) + 1
    series = (
        ("concepts (matched cosine)", "dictionary", check.dictionary_floor, "o"),
        ("importance (rank correlation)", "importance", check.importance_floor, "s"),
        ("maps (SSIM)", "maps", check.maps_floor, "^"),
    )
    for number, (label, name, floor, marker) in enumerate(series):
        values = np.asarray([1.0, *(getattr(stage, name) for stage in check.stages)])
        colour = PALETTE[(4, 5, 2)[number]]
        axes.plot([0, *places], values, color=colour, marker=marker, markersize=5, linewidth=2, label=label)
        axes.axhline(floor, color=colour, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(-0.5, len(check.stages) + 0.5), xticks=[])
    axes.set_ylim(top=1.05)
    axes.set_ylabel("likeness (dashes: by chance)", color=_MUTED)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_MUTED, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(frameon=False, loc="lower left", labelcolor=_INK, ncols=3, bbox_to_anchor=(0, 1.0))


def _folded(title: str, width: int = 16) -> str:
    """A title in lines of about so many letters, broken at spaces and points."""
    lines = [""]
    for part in title.replace(".", ".\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)
