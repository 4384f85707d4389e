"""The command `face-jax`: a torch classifier and photographs in, a report out."""

from __future__ import annotations

import contextlib
import pathlib
import shlex
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

try:
    import rich.console
    import rich.markup
    import rich.table
    import typer
except ImportError as error:
    raise SystemExit("the command face-jax needs more packages: pip install face-jax[cli]") from error

from ..support.atomic_folder import claimed, put_together
from ..support.compilations import keep_compilations
from ..support.interrupts import interruptible
from .options import (
    PICTURES,
    check_counts,
    check_depth,
    checked,
    cropping_of,
    earlier_of,
    forget_extras,
    last_map,
    rank_of,
    strength_of,
    visualized,
)
from .output import SAY, bars, errors_in_words, timed

app = typer.Typer(
    name="face-jax",
    help="Explain an image classifier by concepts: which it uses, where they are, and how far to trust that.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Model = Annotated[
    str, typer.Option(help="A torchvision classifier's name, such as resnet34, or efficientnet_lite0 (embedded).")
]
Weights = Annotated[
    str, typer.Option(help="DEFAULT (downloaded by torchvision; embedded for efficientnet_lite0), or a file .pth.")
]
TransformInput = Annotated[
    bool | None,
    typer.Option(
        "--transform-input/--no-transform-input",
        help="Of googlenet and inception_v3 with a file of your own: whether they rescale their input inside.",
    ),
]
Out = Annotated[
    pathlib.Path,
    typer.Option(help="Folder for report.html and the explanation itself (explanation.json and others)."),
]
Faithfulness = Annotated[
    str, typer.Option(help="How much the predictions must be kept: none, auto, or a number (FACE's λ).")
]
Depth = Annotated[
    int,
    typer.Option(help="Levels of sub-concepts: concepts of mixed crops are taken apart at earlier layers."),
]
Visualize = Annotated[
    int,
    typer.Option(
        metavar="N", help="Make pictures of what the network looks for, for the N most important concepts (minutes)."
    ),
]
Sanity = Annotated[
    bool, typer.Option("--sanity", help="Check that the explanation falls apart when the model forgets (minutes).")
]
Seed = Annotated[int, typer.Option(help="For crops, the split and the controls; the same seed gives the same report.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep activations of earlier runs.")]


@app.command(
    epilog="Example: face-jax explain --model resnet34 --images photos/ --target church --rank 25 --out church"
)
def explain(
    images: Annotated[str, typer.Option(help="A folder of photographs, one photograph, or an .npz of images.")],
    model: Model = "efficientnet_lite0",
    weights: Weights = "DEFAULT",
    transform_input: TransformInput = None,
    layer: Annotated[
        str | None, typer.Option(help="Where the model is split; the last feature map by default. See: face-jax layers")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class, by name or number; what the model predicts most often, by default.")
    ] = None,
    rank: Annotated[str, typer.Option(help="Number of concepts, or auto: by the error on what is left out.")] = "25",
    crops: Annotated[
        str | None,
        typer.Option(
            help="Random crops of each photograph (by default at least 10, and 300 in all), grid, or native (FACE's)."
        ),
    ] = None,
    faithfulness: Faithfulness = "none",
    depth: Depth = 0,
    layers: Annotated[
        str | None, typer.Option(help="The earlier layers of --depth, nearest first, with commas between; else chosen.")
    ] = None,
    visualize: Visualize = 0,
    sanity: Sanity = False,
    out: Out = pathlib.Path("face-jax-report"),
    batch: Annotated[int, typer.Option(help="Pictures that go through the network together.")] = 32,
    seed: Seed = 0,
    no_cache: NoCache = False,
) -> None:
    """Explain a class (or one photograph) by the concepts the model uses for it."""
    with errors_in_words(), interruptible(), _claimed(out):
        names = None if layers is None else tuple(name.strip() for name in layers.split(","))
        _run(
            images, model=model, weights=weights, layer=layer, target=target, rank=rank_of(rank), crops=crops, out=out,
            batch=batch, seed=seed, no_cache=no_cache, faithfulness=faithfulness, depth=depth or len(names or ()),
            layers=names, visualize=visualize, sanity=sanity, transform_input=transform_input,
        )  # fmt: skip


@app.command(epilog="Example: face-jax demo --photos coffee --out coffee-report")
def demo(
    photos: Annotated[
        str, typer.Option(help="chelsea (a cat), coffee, motorcycle, china, flower; or imagenette (needs internet).")
    ] = "chelsea",
    rank: Annotated[
        int | None, typer.Option(help="Number of concepts; 6 for one photograph, 25 for a class, by default.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The class; by default what the model predicts.")] = None,
    faithfulness: Faithfulness = "none",
    depth: Depth = 0,
    visualize: Visualize = 0,
    sanity: Sanity = False,
    out: Out = pathlib.Path("face-jax-report"),
    seed: Seed = 0,
    no_cache: NoCache = False,
) -> None:
    """Explain one embedded photograph with an embedded pretrained classifier: nothing is downloaded."""
    with errors_in_words(), interruptible(), _claimed(out):
        if photos == "imagenette":
            from face_jax.bridges import imagenette

            target = target or "tench"
            source: Any = imagenette(target, _folder() / "imagenette")
            rank = 25 if rank is None else rank
        else:
            from .demo_photograph import embedded_photograph

            source = embedded_photograph(photos)
            rank = 6 if rank is None else rank
        _run(
            source, target=target, rank=rank, out=out, seed=seed, no_cache=no_cache, faithfulness=faithfulness,
            depth=depth, visualize=visualize, sanity=sanity,
        )  # fmt: skip


@app.command(epilog="Example: face-jax layers --model mobilenet_v2 --weights DEFAULT")
def layers(
    model: Model = "efficientnet_lite0", weights: Weights = "DEFAULT", transform_input: TransformInput = None
) -> None:
    """List where a model can be split: name, shape, sign, and what kind of head is behind it."""
    with errors_in_words():
        from face_jax import bridges
        from face_jax.bridges.splitting.layer_table import lines_of

        loaded = bridges.load(model, weights=weights, transform_input=transform_input)
        places = loaded.layers()
        # Names are there to be copied: other columns are folded before these.
        names = rich.table.Column(
            "layer", no_wrap=True, min_width=max((len(place.name) for place in places), default=0)
        )
        titles, *rows = lines_of(places)
        table = rich.table.Table(names, *titles[1:])
        table.title = rich.markup.escape(loaded.name)
        for row in rows:
            table.add_row(*map(rich.markup.escape, row))
        console = rich.console.Console()
        if not console.is_terminal:
            # In a pipe nothing needs to be folded.
            console.width = 10_000
        console.print(table)


def _run(
    images: Any,
    *,
    target: str | None,
    rank: int | Literal["auto"],
    out: pathlib.Path,
    seed: int,
    no_cache: bool,
    model: str = "efficientnet_lite0",
    weights: str = "DEFAULT",
    layer: str | None = None,
    crops: str | None = None,
    batch: int = 32,
    faithfulness: str = "none",
    depth: int = 0,
    layers: tuple[str, ...] | None = None,
    visualize: int = 0,
    sanity: bool = False,
    transform_input: bool | None = None,
) -> None:
    strength = strength_of(faithfulness)
    check_depth(depth, layers)
    check_counts(rank, batch, visualize)
    begun = time.perf_counter()
    import jax

    from ..explanation.saving import save
    from ..pictures.photographs import photographs
    from ..pipeline.explain import explain as explain_
    from ..recursion.recurse import recurse
    from ..report import write_report, write_sanity_check
    from ..support.cache import ArrayCache
    from ..support.cache import no_cache as without_cache

    keep_compilations()
    every = photographs(images)
    from face_jax import bridges

    bridges.share_processor()
    bridges.keep_freed_memory()

    loaded = bridges.load(model, weights=weights, transform_input=transform_input)
    split = loaded.split(layer or last_map(loaded))
    earlier = earlier_of(loaded, split.layer, depth, layers)
    keep = without_cache if no_cache else ArrayCache(_folder() / "activations")
    ready = time.perf_counter()
    explanation = explain_(
        split,
        every,
        target,
        rank=rank,
        crops=cropping_of(crops, split),
        faithfulness=strength,
        batch=batch,
        key=jax.random.key(seed),
        cache=keep,
        progress=bars,
    )
    if earlier:
        explanation = recurse(explanation, earlier, batch=batch, key=jax.random.key(seed), cache=keep, progress=bars)
    more = {"starting and loading the model": ready - begun}
    if earlier:
        more["sub-concepts"] = time.perf_counter() - ready - sum(explanation.provenance.seconds.values())
    pictures = check = None
    command = shlex.join(["face-jax", *sys.argv[1:]])
    with timed(more, "report"), bars("Report", 1) as advance, put_together(out, claim=False) as new:
        save(explanation, new)
        write_report(explanation, new, command=command)
        advance(1)
    forget_extras(out)
    if visualize:
        with timed(more, "feature visualization"):
            pictures = visualized(explanation, visualize, bars, jax.random.key(seed))
            with put_together(out, claim=False) as new:
                pictures.save(new / PICTURES)
    if sanity:
        with timed(more, "sanity check"):
            check = checked(explanation, loaded, batch, bars, jax.random.key(seed))
            with put_together(out, claim=False) as new:
                write_sanity_check(check, new)
    if visualize or sanity:
        with (
            timed(more, "report with these"),
            bars("Report", 1) as advance,
            put_together(out, claim=False) as new,
        ):
            write_report(explanation, new, command=command, visualization=pictures, sanity=check)
            advance(1)
    _tell(explanation, more)
    print(out / "report.html")


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
        f"Rebuilt from concepts, {percent(explanation.scores.own.agreement)} of the held-out predictions stay."
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


@contextlib.contextmanager
def _claimed(out: pathlib.Path) -> Iterator[None]:
    """The folder for this run alone, from the beginning: another run into it needn't do all the work in vain."""
    _writable(out)
    with claimed(out):
        yield


def _writable(out: pathlib.Path) -> None:
    """Tries whether files can be written there, and leaves nothing: the explanation may yet be refused."""
    probe = out / ".writable"
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        for folder in missing:
            folder.rmdir()
    except OSError as error:
        raise OSError(f"--out {str(out)!r} can't be written to ({error.strerror}); name another folder") from error


def _folder() -> pathlib.Path:
    from ..support.cache import cache_folder

    return cache_folder()


def main() -> None:
    """Entry point of the command."""
    app()
