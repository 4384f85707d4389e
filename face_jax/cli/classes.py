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
from .options import (
    check_counts,
    check_depth,
    check_preset,
    check_room,
    check_signs,
    cropping_of,
    labels_of,
    names_in,
    names_of,
    rank_of,
    split_of,
    strength_of,
    text_image_of,
    vocabulary_of,
)
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
    model: Model = "efficientnet_lite0",
    weights: Weights = "DEFAULT",
    transform_input: TransformInput = None,
    class_names: ClassNames = None,
    multi_label: MultiLabels = None,
    threshold: Threshold = None,
    layer: Layer = None,
    crops: Crops = None,
    signs: Annotated[str, typer.Option(help="As for explain.")] = "mixed",
    faithfulness: Annotated[
        str | None,
        typer.Option(help="As for explain; λ is chosen once, and taken for the other classes in proportion."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="As for explain.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="CSV|folders",
            help="What photographs show, as for explain: each class's report then has those that the model gets wrong.",
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="As for explain.")] = 0,
    layers: Annotated[str | None, typer.Option(help="As for explain.")] = None,
    namer: Annotated[str | None, typer.Option(metavar="MODEL", help="As for explain.")] = None,
    vocabulary: Annotated[pathlib.Path | None, typer.Option(help="As for explain.")] = None,
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
    batch: Batch = 32,
    seed: Annotated[int, typer.Option(help="As for explain.")] = 0,
    no_cache: NoCache = False,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="As for explain, of the activations of all classes together.")
    ] = None,
    store: Annotated[pathlib.Path | None, typer.Option(metavar="FOLDER", help="As for explain.")] = None,
) -> None:
    """Explain several classes together: which uses which concept, and what tells them apart."""
    with errors_in_words(), interruptible():
        check_signs(signs)
        check_preset(preset)
        strength, number = strength_of(faithfulness), rank_of(rank)
        check_counts(number, batch, 0)
        earlier_names = names_of(layers)
        depth = depth or len(earlier_names or ())
        check_depth(depth, earlier_names)
        check_room(memory, store)
        words = vocabulary_of(namer, vocabulary)
        if pairs < 0:
            raise ValueError(f"--pairs {pairs} isn't a number of pairs; give 0 or more")
        meant, names = labels_of(multi_label, threshold), names_in(class_names)
        begun = time.perf_counter()
        import jax

        from ..action.misled import misled
        from ..action.naming import name_concepts
        from ..pictures.labels import FOLDERS, files_of
        from ..pictures.photographs import photographs
        from ..pipeline.several import explain_classes as explained
        from ..recursion.recurse import recurse
        from ..report import write_classes
        from ..support.cache import ArrayCache, cache_folder
        from ..support.cache import no_cache as without_cache
        from ..support.compilations import keep_compilations

        keep_compilations()
        every = photographs(images)
        if labels not in (None, FOLDERS):
            files_of(labels)
        _, split, earlier = split_of(
            model, layer, depth, earlier_names, weights=weights, transform_input=transform_input, multi_label=meant,
            classes=names,
        )  # fmt: skip
        text_image = None if namer is None else text_image_of(namer)
        keep: Any = without_cache if no_cache else ArrayCache(cache_folder() / "activations")
        found = explained(
            split, every, target or None, shared=shared, rank=number, crops=cropping_of(crops, split), signs=signs,  # pyright: ignore[reportArgumentType]
            faithfulness=strength, preset=preset, batch=batch, key=seed, cache=keep, folder=out, memory=memory,  # pyright: ignore[reportArgumentType]
            store=store, progress=bars,
        )  # fmt: skip
        if earlier:
            options: Any = {
                "batch": batch,
                "key": jax.random.key(seed),
                "cache": keep,
                "progress": bars,
                "signs": signs,
                "memory": memory,
                "store": store,
            }
            found = found.map(lambda one: recurse(one, earlier, **options))
        if text_image is not None:
            found = found.map(lambda one: name_concepts(one, text_image, words, progress=bars))
        if earlier or text_image is not None:
            _save(found, out)
        misread = None
        if labels is not None:
            # Folders that are no class's are told as failed already.
            known = [one for one in every if labels != FOLDERS or _of_a_class(one, split.classes)]
            misread = {
                name: misled(one, known, labels, batch=batch, key=seed, progress=bars)
                for name, one in found.explanations.items()
            }
        command = shlex.join(["face-jax", *sys.argv[1:]])
        page = write_classes(found, out, command=command, pairs=pairs, misread=misread)
        for name, one in found.explanations.items():
            SAY.print(
                f"[bold]{rich.markup.escape(name)}[/bold]: {len(one.photographs)} photographs, "
                f"{100 * one.scores.own.agreement:.0f} % of the held-out predictions stay"
            )
        for name, reason in found.failed.items():
            SAY.print(f"[yellow]{rich.markup.escape(name)} isn't explained:[/yellow] {rich.markup.escape(reason)}")
        SAY.print(f"[dim]{time.perf_counter() - begun:.1f} s[/dim]")
        print(page)


def _of_a_class(photograph: Any, classes: Any) -> bool:
    """Whether the folder that a photograph lies in is named as a class."""
    from ..pictures.labels import folder_of
    from ..support.classes import UnknownClassError, class_of_folder

    try:
        class_of_folder(classes, folder_of(photograph))
    except UnknownClassError:
        return False
    return True


def _save(found: Any, out: pathlib.Path) -> None:
    """Puts what was added to explanations into their folders, too."""
    from ..explanation.saving import save
    from ..pipeline.class_folders import folder_names

    folders = folder_names([*found.explanations, *found.failed])
    for name, one in found.explanations.items():
        save(one, out / folders[name])
