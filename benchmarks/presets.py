"""What do the papers' settings do to the scores, beside the default's, on classes of real photographs?

    python benchmarks/presets.py                       # all eight classes, 60 photographs each
    python benchmarks/presets.py --classes 497 --photographs 40
    python benchmarks/presets.py --settings face craft ice

Each setting explains the same photographs of a class by EfficientNet-Lite0's last layer, with the same ones held out.
First come the scores as the setting has them, by its own rules for codes and importance; then all by one rule:
non-negative least squares on averages and exact importance. C-Del divides by r + 1 in both. Beside each rule are the
controls that it gives, which learned nothing, and the ceilings. Activations are kept in `.cache/`.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import Any

import numpy as np
from explained_classes import CACHE, CLASSES, DATA, Network, files_of

import face_jax as fj
from face_jax.metrics import deletion_ceiling, gini_ceiling, insertion_ceiling

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "default, `faithfulness=None`": {"faithfulness": None},
    "`face`": {"preset": "face"},
    "`face`, `faithfulness=None`": {"preset": "face", "faithfulness": None},
    "`craft`": {"preset": "craft"},
    "`ice`": {"preset": "ice"},
}
COLUMNS = ("error", "KL", "agreement", "C-Ins", "C-Del", "C-Gini")
CONTROLS = ("NNDSVD start, no steps taken", "mean activation and noise")


def numbers(score: fj.metrics.Score) -> list[float]:
    """One row of a table."""
    curves = score.fidelity
    return [score.relative_error, score.kl, score.agreement, curves.c_insertion, curves.c_deletion, score.gini]


def table(rows: dict[str, list[list[float]]], seconds: dict[str, list[float]], rank: int) -> None:
    """Means over classes, and standard deviations between them."""
    print(f"| setting | {' | '.join(COLUMNS)} | s |\n|{'---|' * (len(COLUMNS) + 2)}")
    for name, found in rows.items():
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
        cells = " | ".join(f"{one:.3f} ± {other:.3f}" for one, other in zip(mean, spread, strict=True))
        print(f"| {name} | {cells} | {np.mean(seconds[name]):.0f} |" if name in seconds else f"| {name} | {cells} | |")
    ceilings = (insertion_ceiling(rank, 0.0), deletion_ceiling(rank), gini_ceiling(rank))
    print(f"| ceiling | | | 1 | {' | '.join(f'{one:.3f}' for one in ceilings)} | |\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--photographs", type=int, default=60)
    parser.add_argument("--rank", type=int, default=25)
    parser.add_argument("--key", type=int, default=0)
    parser.add_argument(
        "--settings", nargs="+", choices=[name.replace("`", "") for name in SETTINGS], help="these only"
    )
    arguments = parser.parse_args()
    fj.keep_compilations()
    network = Network()
    model = network.split()
    chosen = {
        name: settings for name, settings in SETTINGS.items()
        if arguments.settings is None or name.replace("`", "") in arguments.settings
    }  # fmt: skip
    own, alike, seconds = ({name: [] for name in chosen} for _ in range(3))
    controls: dict[str, list[list[float]]] = {}
    for target in arguments.classes:
        files = files_of(arguments.data, target, arguments.photographs)
        for name, settings in chosen.items():
            begun = time.perf_counter()
            found = fj.explain(
                model, files, target, rank=arguments.rank, key=arguments.key, cache=CACHE, progress=False, **settings
            )
            seconds[name].append(time.perf_counter() - begun)
            own[name].append(numbers(found.scores.own))
            pictures = found.pictures
            fitted, held_out = (pictures.collected[index] for index in (pictures.fitted, pictures.held_out))
            by_one = fj.score_bank(model, held_out, found.dictionary, target=target, fitted=fitted)
            alike[name].append(numbers(by_one.score))
            for row in found.scores.controls:
                # Without the term they are the same.
                if row.name in CONTROLS and "faithfulness" not in settings:
                    controls.setdefault(f"*{row.name}, {name}*", []).append(numbers(row))
            print(f"<!-- {target} {name}: {own[name][-1]} {alike[name][-1]} -->", flush=True)
    print("\nBy each setting's own rules:\n")
    table(own | controls, seconds, arguments.rank)
    print("By one rule for all:\n")
    # The default's rule is the one for all.
    table(alike | {name: rows for name, rows in controls.items() if "default" in name}, {}, arguments.rank)


if __name__ == "__main__":
    main()
