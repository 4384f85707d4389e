"""One run of the command, from its words to the report."""

from __future__ import annotations

import pathlib
import shlex
import sys
import time
from typing import Any, Literal

import rich.markup

from ..support.atomic_folder import put_together
from ..support.compilations import keep_compilations
from .options import (
    PICTURES,
    check_counts,
    check_depth,
    check_preset,
    check_room,
    check_signs,
    checked,
    cropping_of,
    forget_extras,
    split_of,
    strength_of,
    text_image_of,
    visualized,
    vocabulary_of,
)
from .output import SAY, bars, timed


def run(
    images: Any,
    *,
    target: str | None,
    rank: int | Literal["auto"] | None,
    out: pathlib.Path,
    seed: int,
    no_cache: bool,
    model: str = "efficientnet_lite0",
    weights: str = "DEFAULT",
    layer: str | None = None,
    crops: str | None = None,
    batch: int = 32,
    faithfulness: str | None = None,
    depth: int = 0,
    layers: tuple[str, ...] | None = None,
    visualize: int = 0,
    sanity: bool = False,
    transform_input: bool | None = None,
    signs: Any = "mixed",
    multi_label: Any = None,
    classes: tuple[str, ...] | None = None,
    preset: Any = None,
    labels: str | None = None,
    namer: str | None = None,
    vocabulary: pathlib.Path | None = None,
    memory: float | None = None,
    store: pathlib.Path | None = None,
) -> None:
    """Explain, and write and tell what came of it; the arguments are the command's options."""
    check_signs(signs)
    check_preset(preset)
    words = vocabulary_of(namer, vocabulary)
    strength = strength_of(faithfulness)
    check_depth(depth, layers)
    check_counts(rank, batch, visualize)
    check_room(memory, store)
    begun = time.perf_counter()
    import jax

    from ..action.naming import name_concepts
    from ..pictures.labels import FOLDERS, files_of
    from ..pictures.photographs import photographs
    from ..pipeline.explain import explain
    from ..recursion.recurse import recurse
    from ..support.cache import ArrayCache, cache_folder
    from ..support.cache import no_cache as without_cache

    keep_compilations()
    every = photographs(images)
    if labels not in (None, FOLDERS):
        files_of(labels)
    loaded, split, earlier = split_of(
        model, layer, depth, layers, weights=weights, transform_input=transform_input, multi_label=multi_label,
        classes=classes,
    )  # fmt: skip
    text_image = None if namer is None else text_image_of(namer)
    keep = without_cache if no_cache else ArrayCache(cache_folder() / "activations")
    ready = time.perf_counter()
    always: Any = {
        "batch": batch,
        "key": jax.random.key(seed),
        "progress": bars,
        "memory": memory,
        "store": store,
    }
    alike: Any = always | {"cache": keep, "signs": signs}
    crops_of = cropping_of(crops, split)
    explanation = explain(
        split, every, target, rank=rank, crops=crops_of, faithfulness=strength, preset=preset, **alike
    )
    more = {"starting and loading the model": ready - begun}
    if earlier:
        explanation = recurse(explanation, earlier, **alike)
        more["sub-concepts"] = time.perf_counter() - ready - sum(explanation.provenance.seconds.values())
    if text_image is not None:
        with timed(more, "names"):
            explanation = name_concepts(explanation, text_image, words, progress=bars)
    misread = None
    if labels is not None:
        from ..action.misled import misled

        with timed(more, "photographs that are misread"):
            misread = misled(explanation, every, labels, batch=batch, key=alike["key"], progress=bars)
    _write(explanation, out, more, misread)
    extras: Any = {"visualize": visualize, "sanity": sanity, "misread": misread}
    _write_extras(explanation, loaded, out, more, always, **extras)
    _tell(explanation, more)
    print(out / "report.html")


def _write(explanation: Any, out: pathlib.Path, more: dict[str, float], misread: Any, **extras: Any) -> None:
    """The report, with the explanation itself beside it unless that's there already."""
    from ..explanation.saving import save
    from ..report import write_report

    with (
        timed(more, "report with these" if extras else "report"),
        bars("Report", 1) as advance,
        put_together(out, claim=False) as new,
    ):
        if not extras:
            save(explanation, new)
        command = shlex.join(["face-jax", *sys.argv[1:]])
        write_report(explanation, new, command=command, misread=misread, **extras)
        advance(1)


def _write_extras(
    explanation: Any,
    loaded: Any,
    out: pathlib.Path,
    more: dict[str, float],
    options: dict[str, Any],
    *,
    visualize: int,
    sanity: bool,
    misread: Any,
) -> None:
    """What takes minutes, each as soon as it's there, and the report again with it."""
    from ..report import write_sanity_check

    forget_extras(out)
    pictures = check = None
    if visualize:
        with timed(more, "feature visualization"):
            pictures = visualized(explanation, visualize, bars, options["key"])
            with put_together(out, claim=False) as new:
                pictures.save(new / PICTURES)
    if sanity:
        with timed(more, "sanity check"):
            check = checked(explanation, loaded, **options)
            with put_together(out, claim=False) as new:
                write_sanity_check(check, new)
    if visualize or sanity:
        _write(explanation, out, more, misread, visualization=pictures, sanity=check)


def _tell(explanation: Any, more: dict[str, float]) -> None:
    from ..report.verdicts import percent

    concepts = explanation.concepts
    if not explanation.importance.sobol.exact:
        # Sampled indices overlap: they are no shares of a whole.
        shares = f"the first has a total Sobol index of {concepts[0].importance:.2f}"
    elif len(concepts) > 3:
        shares = f"the first three have {100 * sum(one.importance for one in concepts[:3]):.0f} % of the importance"
    else:
        shares = f"the first has {100 * concepts[0].importance:.0f} % of the importance"
    # Names of files and classes may have brackets, which mean something to rich.
    name = rich.markup.escape(explanation.target_name)
    SAY.print(
        f"[bold]{name}[/bold] ({explanation.target.chosen}): {len(concepts)} concepts; {shares}. "
        f"Rebuilt from concepts, {percent(explanation.scores.own.agreement)} of the held-out "
        f"{'predictions' if explanation.model.outputs.exclusive else 'labels'} stay."
    )
    for note in explanation.notes:
        SAY.print(f"[yellow]Note:[/yellow] {rich.markup.escape(note)}")
    seconds = explanation.provenance.seconds | more
    total = sum(seconds.values())
    parts = ", ".join(
        f"{work} {spent:.1f} s ({100 * spent / total:.0f} %)"
        for work, spent in sorted(seconds.items(), key=lambda item: -item[1])
    )
    SAY.print(f"[dim]{total:.1f} s: {parts}[/dim]")
