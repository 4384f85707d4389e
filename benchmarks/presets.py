"""What do the papers' settings do to the scores, beside the default's, on classes of real photographs?

    python benchmarks/presets.py                       # all eight classes, 60 photographs each
    python benchmarks/presets.py --classes 497 --photographs 40

Each setting explains the same photographs of a class by EfficientNet-Lite0's last layer, with the same ones held out.
First come the scores as the setting has them, by its own rules for codes, importance and C-Del; then all by one rule:
non-negative least squares on averages and exact importance, with the control "mean activation and noise", which learned
nothing. Activations are kept in `.cache/`.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import numpy as np
from explained_classes import CACHE, CLASSES, DATA, Network, files_of

import face_jax as fj
from face_jax.methods import PUBLISHED
from face_jax.metrics import c_deletion

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "default, `faithfulness=None`": {"faithfulness": None},
    "`face`": {"preset": "face"},
    "`face`, `faithfulness=None`": {"preset": "face", "faithfulness": None},
    "`craft`": {"preset": "craft"},
    "`ice`": {"preset": "ice"},
}
COLUMNS = ("error", "KL", "agreement", "C-Ins", "C-Del", "C-Gini")
CONTROL = "mean activation and noise"


def numbers(score: fj.metrics.Score, definition: str = "paper") -> list[float]:
    """One row of a table."""
    curves = score.fidelity
    deleted = c_deletion(curves.deletion.accuracy, definition)
    return [score.relative_error, score.kl, score.agreement, curves.c_insertion, deleted, score.gini]


def table(rows: dict[str, list[list[float]]], seconds: dict[str, list[float]]) -> None:
    """Means over classes, and standard deviations between them."""
    print(f"| setting | {' | '.join(COLUMNS)} | s |\n|{'---|' * (len(COLUMNS) + 2)}")
    for name, found in rows.items():
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
        cells = " | ".join(f"{one:.3f} ± {other:.3f}" for one, other in zip(mean, spread, strict=True))
        print(f"| {name} | {cells} | {np.mean(seconds[name]):.0f} |" if name in seconds else f"| {name} | {cells} | |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--photographs", type=int, default=60)
    parser.add_argument("--rank", type=int, default=25)
    parser.add_argument("--key", type=int, default=0)
    arguments = parser.parse_args()
    fj.keep_compilations()
    network = Network()
    model = network.split()
    own, alike, seconds = ({name: [] for name in SETTINGS} for _ in range(3))
    control: list[list[float]] = []
    for target in arguments.classes:
        files = files_of(arguments.data, target, arguments.photographs)
        for name, settings in SETTINGS.items():
            begun = time.perf_counter()
            found = fj.explain(
                model, files, target, rank=arguments.rank, key=arguments.key, cache=CACHE, progress=False, **settings
            )
            seconds[name].append(time.perf_counter() - begun)
            definition = PUBLISHED[settings["preset"]].deletion if "preset" in settings else "paper"
            own[name].append(numbers(found.scores.own, definition))
            pictures = found.pictures
            fitted, held_out = (pictures.collected[index] for index in (pictures.fitted, pictures.held_out))
            by_one = fj.score_bank(model, held_out, found.dictionary, target=target, fitted=fitted)
            alike[name].append(numbers(by_one.score))
            if not settings:
                control += [numbers(row) for row in found.scores.controls if row.name == CONTROL]
            print(f"<!-- {target} {name}: {own[name][-1]} {alike[name][-1]} -->", flush=True)
    print("\nBy each setting's own rules:\n")
    table(own, seconds)
    print("By one rule for all:\n")
    table({**alike, f"control: {CONTROL}": control}, {})


if __name__ == "__main__":
    main()
