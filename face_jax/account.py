"""What a reader should know of how an explanation was made, and what it takes to make it again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from .activations import Survey
from .fitting import Fitted
from .model import SplitModel
from .photographs import Photograph

# Below this many pictures held out, a score's last digit is one picture.
_FEW_HELD_OUT = 10


def notes_on(every: tuple[Photograph, ...], seen: Survey, fitted: int, scored: int, solution: Any) -> tuple[str, ...]:
    """What should be known before the explanation is believed."""
    notes = []
    if seen.skipped:
        named = "; ".join(seen.skipped[:10]) + (" …" if len(seen.skipped) > 10 else "")
        notes.append(f"{len(seen.skipped)} of {len(every)} files were skipped, because they can't be read: {named}")
    if len(seen.index) == 1:
        notes.append(
            "One photograph: these are the concepts of this picture, not of the class. They are found in crops of it "
            "and scored on other crops of it, which overlap. Give 20 photographs or more to explain the class."
        )
    elif scored < _FEW_HELD_OUT:
        notes.append(
            f"Only {scored} photographs are held out to score on, {fitted} are fitted: a share moves by "
            f"{1 / scored:.0%} with each of them. Give 50 photographs or more for scores that can be compared."
        )
    if not bool(solution.result.successful):
        notes.append(f"The factorization didn't converge: {solution.result.message}")
    return tuple(notes)


def settings_of(
    model: SplitModel,
    rank: int,
    crops: Any,
    fitting: Fitted,
    held_out: float,
    key: Key[Array, ""],
    target: int,
) -> dict[str, Any]:
    """Everything that the explanation depends on besides the photographs."""
    packages = ("face-jax", "jax", "jaxlib", "numpy", "flax", "torch", "torchvision")
    return {
        "model": model.name,
        "layer": model.layer,
        "fingerprint": model.fingerprint,
        "target": target,
        "rank": rank,
        "crops": repr(crops),
        "objective": repr(fitting.objective),
        "faithfulness": bool(fitting.objective.terms),
        "solver": repr(fitting.solver),
        "start": repr(fitting.start),
        "held_out": held_out,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "preprocess": dataclasses.asdict(model.preprocess),
        "versions": {name: version for name in packages if (version := _version(name))},
        "python": platform.python_version(),
        "device": str(jax.devices()[0]),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def fit_summary(solution: Any) -> dict[str, Any]:
    """What the solver says of the factorization."""
    stats = solution.stats
    return {
        "result": solution.result.message,
        "steps": int(stats.steps),
        "objective": float(stats.final_objective),
        "scaled_kkt_residual": float(stats.final_residual),
        "dead_concepts": int(stats.dead),
        "duplicated_concepts": int(stats.duplicated),
    }
