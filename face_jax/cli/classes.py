"""The command explain-classes: several classes together, and the page that leads to each one's report."""

from __future__ import annotations

import pathlib
import shlex
import sys
import time
from typing import Annotated, Any

import rich.markup
import typer

from ..support.interrupts import interruptible
from .options import check_counts, check_signs, cropping_of, labels_of, last_map, names_in, rank_of, strength_of
from .output import SAY, bars, errors_in_words

_OUT = pathlib.Path("face-jax-classes")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("explain-classes", epilog="Example: face-jax explain-classes photos/ --rank 25 --out classes")(
        explain_classes
    )


def explain_classes(
    images: Annotated[
        str,
        typer.Argument(
            help="A folder with a folder of photographs for each class, named as the class is (_ may stand for a "
            "space); with --target any photographs."
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(help="A class by name or number, several times: the photographs that the model puts in each."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared/--each", help="One bank of concepts for all classes, or one bank each.")
    ] = False,
    rank: Annotated[
        str | None, typer.Option(help="Number of concepts (25) of each class, or of the shared bank; or auto.")
    ] = None,
    model: Annotated[str, typer.Option(help="As for explain.")] = "efficientnet_lite0",
    weights: Annotated[str, typer.Option(help="As for explain.")] = "DEFAULT",
    class_names: Annotated[pathlib.Path | None, typer.Option(help="As for explain.")] = None,
    multi_label: Annotated[bool | None, typer.Option("--multi-label/--multi-class", help="As for explain.")] = None,
    threshold: Annotated[float | None, typer.Option(help="As for explain.")] = None,
    layer: Annotated[str | None, typer.Option(help="As for explain.")] = None,
    crops: Annotated[str | None, typer.Option(help="As for explain.")] = None,
    signs: Annotated[str, typer.Option(help="As for explain.")] = "mixed",
    faithfulness: Annotated[
        str | None,
        typer.Option(help="As for explain; λ is chosen once, and taken for the other classes in proportion."),
    ] = None,
    pairs: Annotated[
        int, typer.Option(help="How many pairs of classes are told apart, the most confusable first.")
    ] = 3,
    out: Annotated[
        pathlib.Path,
        typer.Option(
            help="Folder for index.html, classes.json, and a folder for each class. What is there already of the same "
            "photographs and settings isn't made again."
        ),
    ] = _OUT,
    batch: Annotated[int, typer.Option(help="As for explain.")] = 32,
    seed: Annotated[int, typer.Option(help="As for explain.")] = 0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="As for explain.")] = False,
) -> None:
    """Explain several classes together: which uses which concept, and what tells them apart."""
    with errors_in_words(), interruptible():
        check_signs(signs)
        strength, number = strength_of(faithfulness), rank_of(rank)
        check_counts(number, batch, 0)
        if pairs < 0:
            raise ValueError(f"--pairs {pairs} isn't a number of pairs; give 0 or more")
        meant, names = labels_of(multi_label, threshold), names_in(class_names)
        begun = time.perf_counter()
        from ..pictures.photographs import photographs
        from ..pipeline.several import explain_classes as explained
        from ..report import write_classes
        from ..support.cache import ArrayCache, cache_folder
        from ..support.cache import no_cache as without_cache
        from ..support.compilations import keep_compilations

        keep_compilations()
        every = photographs(images)
        split = _split(model, weights, meant, names, layer)
        keep: Any = without_cache if no_cache else ArrayCache(cache_folder() / "activations")
        found = explained(
            split, every, target or None, shared=shared, rank=number, crops=cropping_of(crops, split), signs=signs,  # pyright: ignore[reportArgumentType]
            faithfulness=strength, batch=batch, key=seed, cache=keep, folder=out, progress=bars,
        )  # fmt: skip
        page = write_classes(found, out, command=shlex.join(["face-jax", *sys.argv[1:]]), pairs=pairs)
        for name, one in found.explanations.items():
            SAY.print(
                f"[bold]{rich.markup.escape(name)}[/bold]: {len(one.photographs)} photographs, "
                f"{100 * one.scores.own.agreement:.0f} % of the held-out predictions stay"
            )
        for name, reason in found.failed.items():
            SAY.print(f"[yellow]{rich.markup.escape(name)} isn't explained:[/yellow] {rich.markup.escape(reason)}")
        SAY.print(f"[dim]{time.perf_counter() - begun:.1f} s[/dim]")
        print(page)


def _split(model: str, weights: str, multi_label: Any, classes: Any, layer: str | None) -> Any:
    """The model, cut at a layer."""
    from face_jax import bridges

    bridges.share_processor()
    bridges.keep_freed_memory()
    loaded = bridges.load(model, weights=weights, multi_label=multi_label, classes=classes)
    return loaded.split(layer or last_map(loaded))
