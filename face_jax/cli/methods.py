"""The command compare-methods: ways of finding concepts on the same photographs, and the page of what they score."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Sequence
from typing import Annotated, Any

import rich.markup
import typer

from ..support.extras import installing
from ..support.interrupts import interruptible
from .as_for_explain import (
    Batch,
    ClassNames,
    Crops,
    Layer,
    Model,
    MultiLabels,
    NoCache,
    Threshold,
    TransformInput,
    Weights,
)
from .options import check_counts, check_signs, cropping_of, labels_of, names_in, split_of, strength_of
from .output import SAY, bars, errors_in_words, writable

_OUT = pathlib.Path("face-jax-methods")
# Where fits are kept, below --out.
_FITS = "fits"
# What is compared where no method is named; those that take longest are left to whoever names them.
_USUAL = ("face", "nmf", "sparse-coding", "craft", "ice", "ace", "pca", "ica", "kmeans")
_COLOURS = {"good": "green", "warn": "yellow"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(
        "compare-methods",
        epilog="Example: face-jax compare-methods --images photos/ --target church --method nmf --method mine.py:Mine",
    )(compare_methods)


def compare_methods(
    images: Annotated[str, typer.Option(help="As for explain; 50 photographs of the class or more.")],
    target: Annotated[str | None, typer.Option(help="As for explain.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="face, face-published, nmf, sparse-coding, craft, ice, ace, pca, ica, kmeans, rca (robust PCA), sae "
            "(a sparse autoencoder), or FILE.py:NAME for a class or an object of one's own; several times. By default "
            "those but face-published, rca and sae that can represent the layer's activations."
        ),
    ] = None,
    rank: Annotated[int, typer.Option(help="Number of concepts, of every method.")] = 25,
    folds: Annotated[
        int, typer.Option(help="Parts of the photographs; each method is fitted without each, and scored on it.")
    ] = 5,
    starts: Annotated[
        int, typer.Option(help="Fits of the same photographs that are compared with each other; 1 for none.")
    ] = 2,
    model: Model = "efficientnet_lite0",
    weights: Weights = "DEFAULT",
    transform_input: TransformInput = None,
    class_names: ClassNames = None,
    multi_label: MultiLabels = None,
    threshold: Threshold = None,
    layer: Layer = None,
    crops: Crops = None,
    signs: Annotated[
        str, typer.Option(help="As for explain; with apart, methods that take no activations below zero do, too.")
    ] = "mixed",
    faithfulness: Annotated[
        str | None,
        typer.Option(
            help="λ of face: none (0), auto, or a number; by default auto, which is searched in every fit and takes "
            "most of the time. Where explain wouldn't have it by default, face is only compared if it's named."
        ),
    ] = None,
    out: Annotated[
        pathlib.Path,
        typer.Option(
            help="Folder for methods.html and methods.json. Fits are kept in its folder fits, so that the same command "
            "goes on where it was stopped."
        ),
    ] = _OUT,
    batch: Batch = 32,
    seed: Annotated[int, typer.Option(help="For crops, folds, fits and controls.")] = 0,
    no_cache: NoCache = False,
) -> None:
    """Compare ways of finding concepts on photographs of a class, beside controls that learned nothing."""
    with errors_in_words(), interruptible():
        check_signs(signs)
        strength, meant, names = strength_of(faithfulness), labels_of(multi_label, threshold), names_in(class_names)
        check_counts(rank, batch, 0)
        for option, value, least, what in (("--folds", folds, 2, "parts"), ("--starts", starts, 1, "fits")):
            if value < least:
                raise ValueError(f"{option} {value} isn't a number of {what}; give {least} or more")
        writable(out)
        begun = time.perf_counter()
        from ..evaluation import compare_methods as compared
        from ..evaluation import pictures_and_crops
        from ..pictures.photographs import photographs
        from ..report import write_methods
        from ..signs import signs_apart
        from ..support.cache import ArrayCache, cache_folder
        from ..support.cache import no_cache as without_cache
        from ..support.compilations import keep_compilations

        asked = _known(method)
        keep_compilations()
        every = photographs(images)
        _, split, _ = split_of(
            model, layer, 0, None, weights=weights, transform_input=transform_input, multi_label=meant, classes=names
        )
        keep: Any = without_cache if no_cache else ArrayCache(cache_folder() / "activations")
        given: Any = {
            "crops": cropping_of(crops, split), "batch": batch, "key": seed, "cache": keep, "progress": bars,
        }  # fmt: skip
        seen = pictures_and_crops(split, every, target, **given)
        if signs == "apart" and seen.signed:
            split = signs_apart(split)
            seen = pictures_and_crops(split, every, seen.target, **given)
        _check_folds(folds, seen, split)
        chosen, left_out = _chosen(asked, seen, split, strength, rank, folds)
        notes = [*seen.notes, *left_out]
        for note in notes:
            SAY.print(f"[yellow]Note:[/yellow] {rich.markup.escape(note)}")
        found = compared(
            split, seen.pictures, chosen, target=seen.target, rank=rank, folds=folds, starts=starts, crops=seen.crops,
            crop_of=seen.crop_of, folder=out / _FITS, key=seed, progress=bars,
        )  # fmt: skip
        page = write_methods(found, out, notes=notes)
        _tell(found, time.perf_counter() - begun)
        print(page)


def _known(words: Sequence[str] | None) -> dict[str, Any] | None:
    """What the options --method name, checked before any work; None for the usual ones."""
    from ..methods.by_name import method_named

    if not words:
        return None
    found = {}
    for word in words:
        try:
            found[word] = method_named(word)
        except ValueError as error:
            raise ValueError(f"--method {error}") from error
        found[word].check_installed()
    return found


def _check_folds(folds: int, seen: Any, split: Any) -> None:
    """Refuses more folds than photographs."""
    count = len(seen.photographs)
    if count < folds:
        fewer = f", or --folds {count}" if count > 1 else ""
        raise ValueError(
            f"--folds {folds}: the model puts {count} of the photographs in {split.classes[seen.target]!r}, and each "
            f"fold needs one; give more photographs of the class{fewer}"
        )


def _chosen(
    asked: dict[str, Any] | None, seen: Any, split: Any, strength: Any, rank: int, folds: int
) -> tuple[list[Any], list[str]]:
    """The methods, and of those that would be compared by default what is left out, and why."""
    from ..methods.by_name import KNOWN

    known, left_out = asked, []
    if known is None:
        known = {word: KNOWN[word] for word in _USUAL}
        if not seen.signed:
            # Where concepts add up, explain has no such price on codes.
            del known["sparse-coding"]
        reasons = {word: _why_not(word, each, seen, split, strength, rank, folds) for word, each in known.items()}
        for why in dict.fromkeys(filter(None, reasons.values())):
            words = [word for word, reason in reasons.items() if reason == why]
            left_out.append(f"Not compared: {', '.join(words)}. {why}")
        known = {word: each for word, each in known.items() if not reasons[word]}
    for word, each in known.items():
        if each.non_negative and seen.signed:
            raise ValueError(
                f"--method {word} can't represent {_below_zero(split)}; leave it out, give --signs apart, or a --layer "
                "behind a ReLU"
            )
    return [_face(strength) if word == "face" else each.make() for word, each in known.items()], left_out


def _why_not(word: str, known: Any, seen: Any, split: Any, strength: Any, rank: int, folds: int) -> str:
    """Why a method isn't compared by default, as a sentence; nothing if it is."""
    from ..pipeline.fitting import why_not_faithful

    if known.non_negative and seen.signed:
        return f"They can't represent {_below_zero(split)}; with --signs apart they are compared, too."
    if word == "face" and strength == "usual":
        count = len(seen.photographs)
        fitted = count - math.ceil(count / folds)
        why = why_not_faithful(split.head, fitted, len(seen.crops) * fitted // count, rank)
        return why and f"{why[0].upper()}{why[1:]}; --faithfulness auto compares it all the same."
    try:
        known.check_installed()
    except ImportError:
        return f"They need scikit-learn; {installing('methods')}"
    return ""


def _below_zero(split: Any) -> str:
    return f"activations below zero, which layer {split.layer} of {split.name} has"


def _face(strength: Any) -> Any:
    """FACE with the λ of --faithfulness, searched where explain would."""
    from ..methods import FACE

    if strength in ("usual", "auto"):
        return FACE()
    weight = float(strength or 0)
    return FACE(weight, name=f"FACE, λ = {weight:g}")


def _tell(found: Any, seconds: float) -> None:
    """What can be believed, as the page has it."""
    from ..report.standings import Standings

    for level, text in Standings(found).verdicts():
        colour = _COLOURS.get(level)
        said = rich.markup.escape(text)
        SAY.print(said if colour is None else f"[{colour}]{said}[/{colour}]")
    SAY.print(f"[dim]{found.pictures} photographs, {len(found.results)} methods and controls, {seconds:.1f} s[/dim]")
