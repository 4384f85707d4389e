"""Provenance: the notes that a reader needs, and the settings and versions that make the same explanation again."""

from __future__ import annotations

import collections
import importlib.metadata
import platform
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..activations import Survey
from ..blocks.room import share_of
from ..explanation.parts import Fit, Settings
from ..faithfulness import Path
from ..model import SplitModel
from ..nmf import RESULTS, RankScan
from ..pictures.photographs import Photograph
from ..signs import are_apart
from ..support.classes import Target as Class
from ..support.classes import other_reading
from ..support.memory import in_bytes
from ..support.sentences import counted, first_of, in_digits
from .fitting import Fitted
from .material import Material
from .presets import Preset
from .selection import hardly_any

# Below this many pictures held out, a score's last digit is one picture.
FEW_HELD_OUT = 10


def notes_on(
    model: SplitModel,
    target: int,
    asked: Class | None,
    every: tuple[Photograph, ...],
    seen: Survey,
    *,
    material: Material,
    fitting: Fitted,
    scan: RankScan | None,
    preset: Preset | None = None,
    filed: int = 0,
) -> tuple[str, ...]:
    """What should be known before the explanation is believed.

    **Arguments:**

    - `model`, `target`: what is explained.
    - `asked`: the target in the user's words, which could have meant something else.
    - `every`, `seen`: the photographs given, and what the model made of them.
    - `material`: what concepts were found in and scored on.
    - `fitting`, `scan`: how the concepts, and how many of them, were found.
    - `preset`: the paper's settings, if these were asked for.
    - `filed`: bytes of activations that were kept in files.

    **Returns:** the notes.
    """
    other = other_reading(model.classes, asked)
    return (
        *model.notes,
        *model.preprocess.notes,
        *([] if other is None else [other]),
        *on_photographs(model, target, every, seen),
        *_on_pictures(model, target, material),
        *_on_signs(model, seen.kept.maps, fitting),
        *_on_fitting(fitting, scan, preset),
        *_on_files(filed),
    )


def _on_files(filed: int) -> Iterator[str]:
    if filed:
        yield (
            f"Activations of {in_bytes(filed)} didn't fit into the memory that they may take: they were kept in "
            "files and read in blocks, which changes results by rounding alone."
        )


def on_photographs(model: SplitModel, target: int, every: tuple[Photograph, ...], seen: Survey) -> Iterator[str]:
    """What should be known of the photographs given: those that took no part, and why."""
    if seen.skipped:
        yield (
            f"{len(seen.skipped)} of {len(every)} files were skipped, because they can't be read: "
            f"{first_of(seen.skipped)}"
        )
    if seen.copies:
        yield (
            f"{counted(len(seen.copies), 'photograph')} took no part, because pixel for pixel "
            f"{'it is' if len(seen.copies) == 1 else 'they are'} another one once more, and nothing is scored on what "
            f"was fitted: {first_of(seen.copies)}"
        )
    if seen.faint:
        yield (
            f"{counted(len(seen.faint), 'picture')} of 16 bits a value use less than a tenth of them and are nearly "
            "black to the network, as pictures of 12 bits are in such files: multiply their values by a common factor "
            f"if the model was trained on brighter ones: {first_of(seen.faint)}"
        )
    others = [
        f"{every[number].name} ({', '.join(model.classes[one] for one in np.flatnonzero(predicted)[:3]) or 'none'})"
        for number, predicted in zip(seen.readable.tolist(), seen.predicted, strict=True)
        if not predicted[target]
    ]
    if others:
        why = "predicts another class" if model.outputs.exclusive else "doesn't predict the label"
        yield (
            f"{len(others)} of {counted(len(seen.readable), 'photograph')} took no part, because the model {why}: "
            f"{first_of(others)}"
        )


def _on_pictures(model: SplitModel, target: int, material: Material) -> Iterator[str]:
    scored, crops = material.scored, material.crops_seen
    if crops:
        yield (
            "One photograph: these are the concepts of this picture, not of the class. They are found in crops of it "
            "and scored on other crops of it, which overlap. Give 20 photographs or more to explain the class."
        )
    elif (few := len(scored)) < FEW_HELD_OUT:
        yield (
            f"Only {counted(few, 'photograph')} {'is' if few == 1 else 'are'} held out to score on, and "
            f"{len(material.fitted)} fitted: a share moves by {100 / few:.0f} % with each of them. Give 50 photographs "
            "or more for scores that can be compared."
        )
    if not scored.maps.any():
        yield (
            f"All activations of layer {model.layer} are 0 in the pictures held out: there is no error to score, and "
            "every concept counts as absent there. Give more photographs, or choose another layer."
        )
    if any(hardly_any(model, some, target) for some in crops):
        name = model.classes[target]
        predicted = model.outputs.predicted(np.concatenate([some.logits for some in crops]))
        counts = collections.Counter(
            number for number in np.nonzero(predicted)[1].tolist() if number != target
        ).most_common(3)
        become = ", ".join(f"{count} {model.classes[number]}" for number, count in counts)
        yield (
            f"Only {int(predicted[:, target].sum())} of {len(predicted)} crops are still {name} to the model"
            f"{f' ({become})' if become else ''}: the "
            f"importance and the scores are of the quarter that comes closest to it, and not about {name}. Give more "
            "photographs of the class, or larger crops (in Python crops=face_jax.RandomCrops(largest=0.9))."
        )


def _on_signs(model: SplitModel, maps: Float[np.ndarray, "image y x channel"], fitting: Fitted) -> Iterator[str]:
    if are_apart(model):
        share = share_of(np.split(maps, 2, axis=-1)[1], lambda some: some > 0)
        yield (
            f"{share:.0%} of the activations of layer {model.layer} in the photographs are below zero: positive and "
            "negative ones are channels of their own here, so that concepts are what is added up of both. Concepts of "
            'either sign (signs="mixed", or --signs mixed) rebuild the activations more closely, but are found again '
            "less often in other photographs."
        )
        return
    if not fitting.solver.signed_dictionary:
        return
    share = share_of(maps, lambda some: some < 0)
    having = (
        f"has activations of either sign ({share:.0%} of those in the photographs are below zero)"
        if share > 0
        else "has no activations below zero in the photographs"
    )
    yield (
        f"Layer {model.layer} {having}, and concepts are directions whose entries have either sign; how much of a "
        f"concept is somewhere is never negative ({type(fitting.solver).__name__}). "
        + (
            "They were found at all places of the photographs, with a price on how much of them is there, so that few "
            "are at each place: without it, any mixture of them would fit as well."
            if fitting.of_places
            else 'Other such concepts may fit as well: signs="apart", or --signs apart, fits less closely; its '
            "concepts are found again more often, and their crops show more of the same."
        )
    )


def _on_fitting(fitting: Fitted, scan: RankScan | None, preset: Preset | None) -> Iterator[str]:
    if scan is not None and len(scan.ranks) > 1 and scan.suggested == scan.ranks[-1]:
        yield (
            f"The error on what is left out still falls at {scan.suggested} concepts, the largest number that was "
            "tried: more of them may describe the class better. Give a larger number as rank to see."
        )
    solution = fitting.solution
    largest, rank = fitting.crop_codes.max(axis=0), len(solution.dictionary)
    # Less is rounding.
    dead = int((largest <= 1e-6 * largest.max()).sum())
    if dead:
        yield (
            f"{dead} of {counted(rank, 'concept')} {'is' if dead == 1 else 'are'} in no crop: the activations don't "
            f"have as many parts. Their directions mean nothing; give rank={max(1, rank - dead)} or less."
        )
    ended = solution.result
    if not fitting.said and not bool(ended.successful) and ended != RESULTS.objective_overflowed:
        asked = None if preset is not None else getattr(fitting.solver, "rtol", None)
        residual = float(solution.stats.final_residual)
        yield (
            "The factorization stopped before it converged: its scaled KKT residual, which is 0 where no small change "
            f"of the concepts would be better, is {residual:.1e}"
            + ("" if asked is None else f" instead of at most {asked:.1e}")
            + (
                f". Preset {preset.paper.name} ends it there; without preset and solver, explain goes on."
                if preset is not None
                else ". All numbers are of the concepts as they are; "
                + _on_residual(residual, getattr(fitting.solver, "max_steps", None))
            )
        )
    if fitting.path is not None:
        yield _on_path(fitting.path)
    if fitting.plain:
        yield (
            "These concepts were fitted without the faithfulness term, which is there by default, so that predictions "
            f"may be lost when activations are rebuilt: {fitting.plain}."
        )


def _on_residual(residual: float, steps: int | None) -> str:
    """How far from converged that is: a step of its length lowers the squared error by about its square."""
    gain = residual**2
    if gain < 1e-4:
        return "converged ones may differ a little."
    return (
        f"by this residual a single step would lower the squared error by about {100 * gain:.2g} % of the activations' "
        "squares, and many steps by more: converged concepts may be "
        + ("others, with clearly lower errors and divergences. " if gain >= 1e-2 else "noticeably better. ")
        + f"In Python, give a solver of more {'steps' if steps is None else f'than {steps} steps'}, or leave out one "
        "that was given."
    )


def _on_path(path: Path) -> str:
    """What the faithfulness that was chosen bought."""
    begun, taken = path.points[0], path.points[path.chosen]
    if path.chosen == 0:
        return (
            f"No faithfulness was worth it: of {len(path.points) - 1} λ none lowered the loss of the pictures held out "
            f"for the choice (KL {begun.held_out_loss:.3g} without the term) within the bound on their error."
        )
    gained = 1 - taken.held_out_loss / begun.held_out_loss if begun.held_out_loss > 0 else 0.0
    return (
        f"Faithfulness with λ={in_digits(taken.weight)} was chosen of {len(path.points)}: on the pictures held out "
        f"for the choice it lowered KL from {begun.held_out_loss:.3g} to {taken.held_out_loss:.3g} and took the "
        f"relative squared error from {begun.held_out_error:.3g} to {taken.held_out_error:.3g}."
        + (" That is hardly a gain: without the term the fit is much faster." if gained < 0.05 else "")
    )


def settings_of(
    model: SplitModel,
    rank: int,
    crops: Any,
    fitting: Fitted,
    held_out: float,
    key: Key[Array, ""],
    target: int,
    preset: Preset | None = None,
) -> Settings:
    """Everything that the explanation depends on besides the photographs."""
    packages = ("face-jax", "jax", "jaxlib", "numpy", "flax", "torch", "torchvision")
    return Settings(
        model=model.name,
        layer=model.layer,
        fingerprint=model.fingerprint,
        target=target,
        rank=rank,
        crops=repr(crops),
        objective=repr(fitting.objective),
        faithfulness=_weights_of(fitting.objective),
        solver=fitting.method or repr(fitting.solver),
        start="as the method has it" if fitting.method else repr(fitting.start),
        held_out=held_out,
        key=tuple(np.asarray(jax.random.key_data(key)).ravel().tolist()),
        preprocess=model.preprocess.settings(),
        versions={name: version for name in packages if (version := _version(name))},
        python=platform.python_version(),
        device=str(jax.devices()[0]),
        outputs=repr(model.outputs),
        preset=None if preset is None else preset.paper.name,
    )


def _weights_of(objective: Any) -> float | tuple[float, ...] | bool:
    """λ of the objective's terms, beside `½ ‖A − U Wᵀ‖²`; False without terms."""
    weights = tuple(float(weighted.weight) for weighted in objective.terms)
    return weights if len(weights) > 1 else weights[0] if weights else False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def fit_of(fitting: Fitted, scan: RankScan | None) -> Fit:
    """How the concepts were found: what the solver says, and what was chosen."""
    solution, stats = fitting.solution, fitting.solution.stats
    return Fit(
        result=fitting.said or solution.result.message,
        steps=int(stats.steps),
        objective=float(stats.final_objective),
        scaled_kkt_residual=float(stats.final_residual),
        dead_concepts=int(stats.dead),
        duplicated_concepts=int(stats.duplicated),
        path=fitting.path,
        rank_scan=scan,
        of_places=fitting.of_places,
    )
