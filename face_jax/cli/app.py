"""The command `face-jax`: a torch classifier and photographs in, a report out."""

from __future__ import annotations

import contextlib
import importlib.metadata
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any

from ..support.extras import installing

try:
    import rich.console
    import rich.markup
    import rich.table
    import typer
except ImportError as error:
    raise SystemExit(f"the command face-jax needs {error.name or 'more packages'}; {installing('cli')}") from error

from ..support.atomic_folder import claimed
from ..support.interrupts import interruptible
from . import actions, classes, methods
from .options import labels_of, names_in, names_of, rank_of
from .output import errors_in_words, writable
from .run import run

app = typer.Typer(
    name="face-jax",
    help="Explain an image classifier by concepts: which it uses, where they are, and how far to trust that.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(asked: bool | None) -> None:
    if asked:
        print(f"face-jax {importlib.metadata.version('face-jax')}")
        raise typer.Exit


@app.callback()
def _command(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = None,
) -> None:
    pass


Model = Annotated[
    str,
    typer.Option(
        help="A torchvision classifier's name, such as resnet34, or efficientnet_lite0 (embedded); timm/NAME, "
        "hf/OWNER/NAME of the Hugging Face hub, or a folder with config.json and model.safetensors."
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="DEFAULT (downloaded once; embedded for efficientnet_lite0), random, or a file .pth or .safetensors."
    ),
]
TransformInput = Annotated[
    bool | None,
    typer.Option(
        "--transform-input/--no-transform-input",
        help="Of googlenet and inception_v3 with a file of your own: whether they rescale their input inside.",
    ),
]
MultiLabels = Annotated[
    bool | None,
    typer.Option(
        "--multi-label/--multi-class",
        help="Whether each of the model's outputs is a label by itself, or each picture of one class; by default told "
        "from the model.",
    ),
]
ClassNames = Annotated[
    pathlib.Path | None,
    typer.Option(
        help="The classes' names where the model doesn't bring them: a text file with one a line in the order of the "
        "logits, or a .json with a list, names by numbers (id2label) or numbers by names. Their number sets the number "
        "of logits."
    ),
]
Out = Annotated[
    pathlib.Path,
    typer.Option(help="Folder for report.html and the explanation itself (explanation.json and others)."),
]
Signs = Annotated[
    str,
    typer.Option(
        help="Where a layer has activations below zero: mixed (concepts of either sign), or apart (positive and "
        "negative parts as channels of their own)."
    ),
]
Faithfulness = Annotated[
    str | None,
    typer.Option(
        help="How much the predictions must be kept: none, auto, or a number (FACE's λ); by default auto, where there "
        "are photographs enough to choose it on."
    ),
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
Memory = Annotated[
    float | None,
    typer.Option(
        metavar="GIB",
        help="GiB of memory that activations may take, half of what is free by default; more are kept in files.",
    ),
]
Store = Annotated[
    pathlib.Path | None,
    typer.Option(
        metavar="FOLDER", help="Where these files are, while it runs; the system's temporary ones by default."
    ),
]


@app.command(
    epilog="Example: face-jax explain --model resnet34 --images photos/ --target church --rank 25 --out church"
)
def explain(
    images: Annotated[str, typer.Option(help="A folder of photographs, one photograph, or an .npz of images.")],
    model: Model = "efficientnet_lite0",
    weights: Weights = "DEFAULT",
    transform_input: TransformInput = None,
    class_names: ClassNames = None,
    multi_label: MultiLabels = None,
    threshold: Annotated[
        float | None, typer.Option(help="With --multi-label: the probability above which a label is predicted (0.5).")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Where the model is split; the last feature map by default. See: face-jax layers")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The class, by name or number; what the model predicts most often, by default.")
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="Number of concepts (25), or auto: by the error on what is left out.")
    ] = None,
    crops: Annotated[
        str | None,
        typer.Option(
            help="Random crops of each photograph (by default at least 10, and 300 in all), grid, or native (FACE's)."
        ),
    ] = None,
    signs: Signs = "mixed",
    faithfulness: Faithfulness = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A paper's settings from crops to scores: face, craft or ice. Options given beside it win, and the "
            "report says so."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="CSV|folders",
            help="What photographs show, as for face-jax why: the report then has those that the model gets wrong.",
        ),
    ] = None,
    namer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model of texts and pictures that guesses what concepts are called: hf/OWNER/NAME, such as "
            "hf/openai/clip-vit-base-patch32, or a folder.",
        ),
    ] = None,
    vocabulary: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="With --namer: the words to choose from, a text file with one a line; else the classes' names."
        ),
    ] = None,
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
    memory: Memory = None,
    store: Store = None,
) -> None:
    """Explain a class (or one photograph) by the concepts the model uses for it."""
    with errors_in_words(), interruptible(), _claimed(out):
        names = names_of(layers)
        run(
            images, model=model, weights=weights, layer=layer, target=target, rank=rank_of(rank), crops=crops, out=out,
            batch=batch, seed=seed, no_cache=no_cache, faithfulness=faithfulness, depth=depth or len(names or ()),
            layers=names, visualize=visualize, sanity=sanity, transform_input=transform_input, signs=signs,
            multi_label=labels_of(multi_label, threshold), classes=names_in(class_names), preset=preset, labels=labels,
            namer=namer, vocabulary=vocabulary,
            memory=memory, store=store,
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
    faithfulness: Faithfulness = None,
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

            from ..support.cache import cache_folder

            target = target or "tench"
            source: Any = imagenette(target, cache_folder() / "imagenette")
            rank = 25 if rank is None else rank
        else:
            from .demo_photograph import embedded_photograph

            source = embedded_photograph(photos)
            rank = 6 if rank is None else rank
        run(
            source, target=target, rank=rank, out=out, seed=seed, no_cache=no_cache, faithfulness=faithfulness,
            depth=depth, visualize=visualize, sanity=sanity,
        )  # fmt: skip


@app.command(epilog="Example: face-jax layers --model mobilenet_v2 --weights DEFAULT")
def layers(
    model: Model = "efficientnet_lite0",
    weights: Weights = "DEFAULT",
    transform_input: TransformInput = None,
    class_names: ClassNames = None,
    multi_label: MultiLabels = None,
) -> None:
    """List where a model can be split: name, shape, sign, and what kind of head is behind it."""
    with errors_in_words():
        from face_jax import bridges
        from face_jax.bridges.splitting.layer_table import lines_of

        classes = names_in(class_names)
        loaded = bridges.load(
            model, weights=weights, transform_input=transform_input, multi_label=multi_label, classes=classes
        )
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


actions.register(app)
classes.register(app)
methods.register(app)


@contextlib.contextmanager
def _claimed(out: pathlib.Path) -> Iterator[None]:
    """The folder for this run alone, from the beginning: another run into it needn't do all the work in vain."""
    writable(out)
    with claimed(out):
        yield


def main() -> None:
    """Entry point of the command."""
    app()
