"""The commands that act on an explanation: why, edit, compare."""

from __future__ import annotations

import pathlib
from typing import Annotated, Any

import typer

from ..support.interrupts import interruptible
from .as_for_explain import ClassNames, MultiLabels, Threshold
from .options import labels_of, names_in
from .output import SAY, bars, errors_in_words

_EXPLANATION = pathlib.Path("face-jax-report")
_SUSPECTS = 3
_WEIGHTS = "edited.safetensors"
# The status after an edit whose weights were asked for and aren't written; the page is. Wrong options end with 2.
_NO_WEIGHTS = 3

Explained = Annotated[
    pathlib.Path, typer.Option("--explanation", help="The folder that face-jax explain wrote (its --out).")
]
Images = Annotated[
    str | None, typer.Option(help="A folder of photographs, one photograph, or an .npz; else the files of --labels.")
]
LabelsFile = Annotated[
    str | None,
    typer.Option(
        metavar="CSV|folders",
        help="What photographs show: a CSV file with the columns file, label and, if wanted, group; or folders, where "
        "they lie in folders named as their classes.",
    ),
]
Model = Annotated[str | None, typer.Option(help="As for explain; by default the model that was explained.")]
Weights = Annotated[str, typer.Option(help="As for explain, whose weights these must be.")]
Seed = Annotated[int, typer.Option(help="For controls, intervals and sampled values.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog='Example: face-jax why cat.jpg --instead-of "Egyptian cat" --out why')(why)
    app.command(epilog="Example: face-jax edit --remove 1 --labels labels.csv --out without-1")(edit)
    app.command(epilog="Example: face-jax compare before/ after/ --out compared")(compare)


def why(
    image: Annotated[str | None, typer.Argument(help="A photograph; leave it out to ask about --labels.")] = None,
    instead_of: Annotated[
        str | None, typer.Option(help="The other class, by name or number; the most probable other one by default.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The class; that of the explanation by default.")] = None,
    images: Images = None,
    labels: LabelsFile = None,
    explanation: Explained = _EXPLANATION,
    model: Model = None,
    weights: Weights = "DEFAULT",
    class_names: ClassNames = None,
    multi_label: MultiLabels = None,
    threshold: Threshold = None,
    out: Annotated[pathlib.Path, typer.Option(help="Folder for why.html and why.json.")] = pathlib.Path("face-jax-why"),
    seed: Seed = 0,
) -> None:
    """Say which concepts decide between two classes in a photograph, or mislead the model in those it gets wrong."""
    with errors_in_words(), interruptible():
        if (image is None) == (labels is None):
            raise ValueError(
                "give either a photograph, or --labels (and --images) for the photographs that the model gets wrong"
            )
        from ..action.misled import misled, suspects
        from ..report import balance, write_why

        found, _ = _loaded(explanation, model, weights, class_names, labels_of(multi_label, threshold))
        if image is not None:
            reasons: Any = found.why(image, instead_of, target=target, key=seed)
            for line in balance(reasons):
                SAY.print(line, markup=False)
        else:
            reasons = misled(found, _source(images, labels), labels, key=seed, progress=bars)
            SAY.print(f"{len(reasons)} photographs of or as {found.target_name} are misread", markup=False)
            for one in suspects(reasons, key=seed)[:_SUSPECTS] if len(reasons) > 1 else ():
                SAY.print(
                    f"concept {one.number} adds {one.adds.value:+.2f} to the mistake ({one.adds.low:+.2f} to "
                    f"{one.adds.high:+.2f})",
                    markup=False,
                )
        notes = [] if image is not None or reasons else ["The model gets none of the photographs wrong, of this class."]
        print(write_why(found, reasons, out, notes=notes, report=_report(explanation)))


def edit(
    labels: LabelsFile = None,
    images: Images = None,
    remove: Annotated[
        list[int] | None, typer.Option(help="A concept that is taken out, by its number in the report; several times.")
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(metavar="CONCEPT=FACTOR", help="A concept that is scaled, such as 2=0.5.")
    ] = None,
    codes: Annotated[
        str, typer.Option(help="exact (non-negative least squares), or linear (a matrix, folded into the weights).")
    ] = "exact",
    along: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="A table as --labels, of other photographs: take out what goes with the concept in these.",
        ),
    ] = None,
    explanation: Explained = _EXPLANATION,
    model: Model = None,
    weights: Weights = "DEFAULT",
    class_names: ClassNames = None,
    multi_label: MultiLabels = None,
    threshold: Threshold = None,
    draws: Annotated[int, typer.Option(help="Of each control that is drawn at random.")] = 10,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Write the weights of a linear edit that isn't recommended, too.")
    ] = False,
    out: Annotated[
        pathlib.Path,
        typer.Option(
            help="Folder for edit.html, edit.json and, of a linear edit that is recommended, edited.safetensors."
        ),
    ] = pathlib.Path("face-jax-edit"),
    seed: Seed = 0,
) -> None:
    """Take concepts out of a model, and measure what that does on labelled photographs, beside controls.

    Ends with 0 where the page is written, whatever it recommends, and with 3 where a linear edit's weights are not
    written beside it: it isn't recommended, or isn't in the weights of a last layer.
    """
    with errors_in_words(), interruptible():
        if labels is None:
            raise ValueError("--labels is needed: what an edit does can only be told on labelled photographs")
        if anyway and codes != "linear":
            raise ValueError("--anyway is of the weights, which only a linear edit has; give --codes linear with it")
        asked: Any = {
            "remove": [_index("--remove", number) for number in remove or ()],
            "scale": dict(_scaled(word) for word in scale or ()),
            "codes": codes,
        }
        from ..action.edits import edit as edit_model
        from ..action.edits import edit_of
        from ..action.measured import measure_edit
        from ..report import write_edit

        found, loaded = _loaded(explanation, model, weights, class_names, labels_of(multi_label, threshold))
        edit_of(found, **asked)
        source = _source(images, labels)
        if along is not None:
            asked["along"] = _along(found, images, along, source, labels, asked)
        effect = measure_edit(found, source, labels, **asked, draws=draws, key=seed, progress=bars)
        if codes == "linear" and (effect.recommended or anyway):
            written, note = _saved(edit_model(found.model, found, **asked), loaded, out)
            notes = [note]
            if not effect.recommended:
                notes.insert(0, "The edit isn't recommended, and its weights were asked for all the same (--anyway).")
        else:
            written = False
            notes = _without_weights(effect.recommended, out)
        for line in (effect.verdict, *notes):
            SAY.print(line, markup=False)
        print(write_edit(found, effect, out, notes=notes, report=_report(explanation)))
        if codes == "linear" and not written:
            raise typer.Exit(_NO_WEIGHTS)


def compare(
    first: Annotated[pathlib.Path, typer.Argument(help="A folder that face-jax explain wrote.")],
    second: Annotated[pathlib.Path, typer.Argument(help="Another one.")],
    images: Annotated[
        str | None,
        typer.Option(
            help="Photographs to compare them in; by default those that both explain, or either, if both share few."
        ),
    ] = None,
    model: Model = None,
    weights: Weights = "DEFAULT",
    second_model: Annotated[str | None, typer.Option(help="The second one's model, likewise.")] = None,
    second_weights: Annotated[
        str | None, typer.Option(help="The second one's weights; the first's by default.")
    ] = None,
    class_names: ClassNames = None,
    second_class_names: Annotated[
        pathlib.Path | None, typer.Option(help="The second one's class names; the first's by default.")
    ] = None,
    multi_label: MultiLabels = None,
    threshold: Threshold = None,
    out: Annotated[pathlib.Path, typer.Option(help="Folder for comparison.html and comparison.json.")] = pathlib.Path(
        "face-jax-comparison"
    ),
    seed: Seed = 0,
) -> None:
    """Put two explanations beside each other: concepts that both have, and those that only one has."""
    with errors_in_words(), interruptible():
        from ..action.comparing import compare as compared
        from ..report import write_comparison

        meant = labels_of(multi_label, threshold)
        one, _ = _loaded(first, model, weights, class_names, meant)
        names = second_class_names or class_names
        other, _ = _loaded(second, second_model or model, second_weights or weights, names, meant)
        found = compared(one, other, images, key=seed, progress=bars)
        SAY.print(
            f"{len(found.shared)} concepts are shared, {len(found.only_first)} only in the first, "
            f"{len(found.only_second)} only in the second"
        )
        for note in found.notes:
            SAY.print(note, markup=False)
        print(write_comparison(found, out))


def _along(explanation: Any, images: str | None, along: str, source: Any, labels: Any, asked: Any) -> Any:
    """What goes with the concepts, in photographs that aren't those that the edit is measured on."""
    from ..action.directions import check_apart, content_of
    from ..action.erasing import erasing_directions
    from ..model import labelled_photographs_for

    # Before anything is computed, and by the options' names.
    learned = _source(images, along)
    ours, theirs = (
        labelled_photographs_for(explanation.model, *pair).photographs for pair in ((learned, along), (source, labels))
    )
    check_apart(content_of(ours).keys(), theirs, ("--along", "--labels"))
    named = [*asked["remove"], *asked["scale"]]
    return erasing_directions(explanation, learned, along, remove=named, codes=asked["codes"], progress=bars)


def _loaded(
    folder: pathlib.Path, model: str | None, weights: str, class_names: pathlib.Path | None, multi_label: Any
) -> tuple[Any, Any]:
    """An explanation, with the model that it is of."""
    from face_jax import bridges

    from ..explanation.loading import load, saved_settings
    from ..support.compilations import keep_compilations

    keep_compilations()
    settings = saved_settings(folder)
    bridges.share_processor()
    bridges.keep_freed_memory()
    if multi_label is None and settings.outputs.startswith("MultiLabel"):
        multi_label = True
    loaded = bridges.load(
        model or settings.model, weights=weights, multi_label=multi_label, classes=names_in(class_names)
    )
    return load(folder, loaded.split(settings.layer)), loaded


def _source(images: str | None, labels: str | None) -> Any:
    """The photographs that labels are of."""
    from ..pictures.labels import FOLDERS, files_of

    if images is not None:
        return images
    if labels is None or labels == FOLDERS:
        raise ValueError("--images is needed with --labels folders; name the folder that has a folder for each class")
    return files_of(labels)


def _report(folder: pathlib.Path) -> pathlib.Path | None:
    """The report beside an explanation's files, if there is one."""
    file = folder / "report.html"
    return file if file.exists() else None


def _index(option: str, number: int) -> int:
    """A report's number of a concept, counted from 0."""
    if number < 1:
        raise ValueError(f"{option} {number} isn't a concept's number; give one as the report has them, from 1")
    return number - 1


def _scaled(word: str) -> tuple[int, float]:
    number, _, factor = word.partition("=")
    try:
        found = int(number), float(factor)
    except ValueError:
        raise ValueError(f"--scale {word!r} isn't a concept and a factor; give them as 2=0.5") from None
    return _index("--scale", found[0]), found[1]


def _without_weights(recommended: bool, out: pathlib.Path) -> list[str]:
    """What to say where no weights are written."""
    if recommended:
        return [
            "To use it: the same command with --codes linear measures the edit as one matrix and, if that is "
            "recommended, too, writes the edited weights. In Python face_jax.edit gives this edit itself, with exact "
            "codes, and face_jax.bridges.edited_module a torch module of it."
        ]
    notes = ["No weights are written, as the edit isn't recommended (those of a linear edit are with --anyway)."]
    if (out / _WEIGHTS).exists():
        notes.append(f"{_WEIGHTS} in this folder is of an earlier run.")
    return notes


def _saved(edited: Any, loaded: Any, out: pathlib.Path) -> tuple[bool, str]:
    """Weights of the edited network in a file, where it's the same architecture; whether, and what to say of it."""
    from safetensors.torch import save_file

    from face_jax import bridges

    from ..support.atomic_folder import folder_of, put_together

    module = bridges.edited_module(edited, loaded.model)
    if isinstance(module, bridges.EditedNetwork):
        return False, (
            "The edit isn't in the weights of a last layer here; face_jax.bridges.edited_module gives it as a module."
        )
    with put_together(folder_of(out)) as new:
        state = {name: value.clone().contiguous() for name, value in module.state_dict().items()}
        file = new / _WEIGHTS
        # It would be for its owner alone, whatever other files are.
        file.touch()
        mode = file.stat().st_mode
        save_file(state, file)
        file.chmod(mode)
    return True, f"The edited weights, of the same architecture, are in {_WEIGHTS}."
