"""Public functions that the fuzzer calls with odd arguments, each with some that it takes; those it doesn't call."""

from __future__ import annotations

import functools
import inspect
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from layered_model import layered_model, warm_pictures

import face_jax as fj
from face_jax import bridges, importance, metrics, study
from face_jax.activations import Collected
from face_jax.attribution import attribution_method, concept_gradients, forward_with_pullback, upsampled_codes
from face_jax.heads import Affine
from face_jax.study.page import answer_key
from face_jax.study.trials import Option, Trial

PACKAGES = (fj, fj.attribution, fj.evaluation, fj.heads, fj.importance, fj.methods, fj.metrics, fj.study, bridges)
# Public functions that aren't fuzzed, and why.
LEFT_OUT = {
    "face_jax.keep_compilations": "sets JAX's options for the whole process",
    "face_jax.bridges.share_processor": "sets torch's and JAX's threads for the whole process",
    "face_jax.bridges.share_accelerator": "sets what JAX may have of an accelerator, for the whole process",
    "face_jax.bridges.keep_freed_memory": "takes nothing, and sets the process's allocator",
    "face_jax.bridges.known_models": "takes nothing",
    "face_jax.bridges.imagenette": "downloads a data set",
    "face_jax.bridges.load": "names of models are among the command lines' words",
    "face_jax.bridges.load_text_image": "asks the hub for what may be a name; the command lines' --namer has the words",
    "face_jax.bridges.edited_module": "takes what `edit` returned, which is fuzzed",
}


def public_functions() -> dict[str, Callable[..., Any]]:
    """Every public function, by its name."""
    found: dict[int, tuple[str, Callable[..., Any]]] = {}
    for package in PACKAGES:
        for name in dir(package):
            thing = getattr(package, name)
            if name[0] != "_" and inspect.isfunction(thing) and thing.__module__.startswith("face_jax"):
                found.setdefault(id(thing), (f"{package.__name__}.{name}", thing))
    return dict(found.values())


SAVED = pathlib.Path(__file__).parent / "explanation" / "saved_format_5"


@functools.cache
def explanation() -> Any:
    """An explanation that takes no fitting."""
    return fj.load(SAVED, layered_model("last"))


@functools.cache
def network() -> Any:
    """A small network of torch's."""
    from torch import nn

    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(6, 3)).eval()


@functools.cache
def places() -> Any:
    """Where it can be cut."""
    return bridges.layers(network(), size=16)


def _answers(folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
    """A file of answers, and its key."""
    options = tuple(Option((), str(number)) for number in range(3))
    trials = [Trial(f"t{n}", "intruder", "concept", "?", (), options, correct=n % 3) for n in range(4)]
    rows = ["study,participant,trial,choice,seconds", *(f"s,ada,t{n},{n % 2},2.0" for n in range(4))]
    (folder / "ada.csv").write_text("\n".join(rows))
    return str(folder / "ada.csv"), answer_key("s", "A study", trials)


Table = dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]]


def measures(folder: pathlib.Path) -> Table:
    """Functions of numbers, files and small networks, each with arguments that it takes, made when they're wanted."""
    random = np.random.default_rng(0)
    rows, bank = random.random((12, 6)).astype(np.float32), random.random((2, 6)).astype(np.float32)
    codes = random.random((3, 1, 1, 2)).astype(np.float32)
    shares = np.asarray([0.0, 0.5, 1.0])
    logits = random.normal(size=(5, 3))
    head = Affine(np.ones((6, 3), np.float32), np.zeros(3, np.float32))
    asked = {"head": head, "codes": codes, "dictionary": bank, "target": 0}
    model, images = layered_model("last"), warm_pictures()
    seen = model.preprocess(images[:2])
    answers, key = _answers(folder)
    options = (Option((), "fox"), Option((), "wolf"))
    trial = Trial("t", "intruder", "concept", "?", (), options, correct=0)
    presence = random.random((5, 2))
    return {
        "exact_total_sobol": (importance.exact_total_sobol, lambda: {"contribution": rows}),
        "class_readings": (importance.class_readings, lambda: {name: asked[name] for name in list(asked)[:3]}),
        "contributions": (importance.contributions, lambda: asked),
        "sampled_total_sobol": (importance.sampled_total_sobol, lambda: {
            "function": jnp.sum, "concepts": 2, "designs": 4, "scrambles": 2, "key": 0,
        }),
        "band_over_images": (metrics.band_over_images, lambda: {"accuracy": shares, "images": 10, "level": 0.9}),
        "band_over_runs": (metrics.band_over_runs, lambda: {"curves": rows}),
        "c_deletion": (metrics.c_deletion, lambda: {"accuracy": shares, "definition": "paper"}),
        "c_insertion": (metrics.c_insertion, lambda: {"accuracy": shares}),
        "certificates": (metrics.certificates, lambda: {
            "original": logits, "rebuilt": logits + 0.1, "outputs": fj.MultiClass(),
        }),
        "completeness": (metrics.completeness, lambda: {"accuracy": 0.8, "original": 0.9, "random": 0.1}),
        "completeness_bounds": (metrics.completeness_bounds, lambda: asked | {"maps": random.random((3, 1, 1, 6))}),
        "deletion_ceiling": (metrics.deletion_ceiling, lambda: {"concepts": 3, "definition": "code"}),
        "insertion_ceiling": (metrics.insertion_ceiling, lambda: {"concepts": 3, "accuracy_of_nothing": 0.1}),
        "gini_ceiling": (metrics.gini_ceiling, lambda: {"concepts": 3}),
        "fidelity": (metrics.fidelity, lambda: asked | {"order": np.arange(2), "outputs": fj.MultiClass()}),
        "mean_squared_error": (metrics.mean_squared_error, lambda: {"activations": rows, "rebuilt": rows + 1}),
        "pointing_game": (metrics.pointing_game, lambda: {
            "maps": random.random((2, 4, 4)), "boxes": np.asarray([[0, 0, 2, 2]] * 2),
        }),
        "pointing_cases": (metrics.pointing_cases, lambda: {
            "strongest": [[0]], "crops": fj.Crops(np.asarray([0]), np.asarray([[0, 0, 8, 8]])), "shapes": [(16, 16)],
            "preprocess": model.preprocess, "most": 2, "visible": 0.5,
        }),
        "score_of_concepts": (metrics.score, lambda: asked | {
            "name": "a", "units": Collected(random.random((3, 2, 2, 6)), random.normal(size=(3, 2))),
            "dictionary": explanation().dictionary,
            "head": model.head, "importance": np.ones(len(explanation().dictionary)), "codes": None,
        }),
        "stability": (metrics.stability, lambda: {
            "dictionaries": [bank, bank[::-1]], "rows": rows, "either_sign": False, "key": 0,
        }),
        "surrogate_error": (metrics.surrogate_error, lambda: {
            "logits": logits, "presence": presence, "weights": random.random((2, 3)), "nothing": None,
        }),
        "surrogate_check": (metrics.surrogate_check, lambda: {
            "logits": logits, "presence": presence, "weights": random.random((2, 3)),
            "random_presence": random.random((2, 5, 2)), "draws": 2, "key": 0,
        }),
        "attribution_method": (attribution_method, lambda: {"method": "rise"}),
        "upsampled_codes": (upsampled_codes, lambda: {"codes": codes, "size": 4}),
        "concept_gradients": (concept_gradients, lambda: {
            "model": model, "dictionary": explanation().dictionary, "images": seen, "concepts": [0], "pooled": True,
        }),
        "forward_with_pullback": (forward_with_pullback, lambda: {"model": model, "images": seen}),
        "visualize": (functools.partial(fj.visualize, steps=1), lambda: {
            "model": model, "dictionary": explanation().dictionary, "concepts": [0], "photographs": None,
            "rate": None, "power": 2.0, "decay": 0.8, "views": None, "progress": None, "key": 0,
        }),
        "binary": (fj.heads.binary, lambda: {"head": Affine(np.ones((6, 1), np.float32), np.zeros(1, np.float32))}),
        "shifted": (fj.heads.shifted, lambda: {"head": head, "offset": np.ones(6, np.float32)}),
        "read_answers": (study.read_answers, lambda: {"source": answers}),
        "score": (study.score, lambda: {
            "answers": answers, "key": key, "screening": None, "confidence": 0.9, "resamples": 10, "random_key": 0,
        }),
        "write_page": (study.write_page, lambda: {
            "path": folder / "study.html", "trials": [trial], "title": "A study", "welcome": "",
        }),
        "suggest_layer": (bridges.suggest_layer, lambda: {"places": places(), "classes": 3}),
        "layers": (bridges.layers, lambda: {"model": network(), "size": 16}),
        "split": (bridges.split, lambda: {
            "model": network(), "layer": "1", "preprocess": fj.Preprocess(size=16, resize=16), "classes": None,
            "name": None, "prefix": 0, "multi_label": None,
        }),
        "non_negative_layers": (bridges.non_negative_layers, lambda: {
            "model": network(), "near": "2", "size": 16, "count": 1,
        }),
        "as_torch": (bridges.as_torch, lambda: {"function": jnp.sum}),
    }  # fmt: skip


def refusing(folder: pathlib.Path) -> Iterator[tuple[str, Callable[[Any], Any], Callable[..., Any], str]]:
    """Functions with one argument that's always something else, as what they do takes long: what is asked, and of whom.

    Each is a name, what calls it, the function, and how messages call the argument.
    """
    model, images = layered_model("last"), warm_pictures()
    rows, bank = jnp.asarray(images[:, 0, 0], jnp.float32), np.eye(3, dtype=np.float32)
    term = fj.Faithfulness(Affine(np.ones((3, 3), np.float32), np.zeros(3, np.float32)))
    for name, function, more, meant in (
        ("save", fj.save, (folder,), "explanation"),
        ("write_report", fj.write_report, (folder,), "explanation"),
        ("write_why", fj.write_why, ((), folder), "explanation"),
        ("write_edit", fj.write_edit, (None, folder), "explanation"),
        ("write_classes", fj.write_classes, (folder,), "found"),
        ("write_comparison", fj.write_comparison, (folder,), "comparison"),
        ("write_methods", fj.write_methods, (folder,), "comparison"),
        ("write_sanity_check", fj.write_sanity_check, (folder,), "check"),
        ("sanity_figure", fj.sanity_figure, (folder / "a.png",), "check"),
        ("picture", fj.picture, (images[0],), "explanation"),
        ("compare", fj.compare, (explanation(),), "first"),
        ("measure_edit", fj.measure_edit, ("photos", [0]), "explanation"),
        ("misled", fj.misled, ("photos", [0]), "explanation"),
        ("suspects", fj.suspects, (), "misread"),
        ("name_concepts", fj.name_concepts, (None, ["red"]), "explanation"),
        ("recurse", fj.recurse, (model,), "explanation"),
        ("suggest_recursion", fj.suggest_recursion, (), "explanation"),
        ("sanity_check", fj.sanity_check, ([("same", model)],), "explanation"),
        ("intruder_trials", study.intruder_trials, (), "explanation"),
        ("binary_trials", study.binary_trials, (explanation(),), "explanation"),
        ("parts_of", study.parts_of, (None,), "explanation"),
        ("utility_trials", study.utility_trials, (images,), "explanation"),
        ("explain", fj.explain, (images, "warm"), "model"),
        ("explain_classes", fj.explain_classes, (images,), "model"),
        ("superpixels", fj.methods.superpixels, (images,), "model"),
        ("pictures_and_crops", fj.evaluation.pictures_and_crops, (images, "warm"), "model"),
        ("pull", bridges.pull, ([("a.png", images[0])],), "split"),
        ("randomized", bridges.randomized, ("0",), "model"),
        ("to_flax", bridges.to_flax, (images[:1],), "module"),
        *((name, getattr(fj.heads, name), (), "module") for name in _FAMILIES),
    ):
        call = functools.partial(_called, function, more)
        yield name, call, function, meant
    for name, call, function, meant in (
        ("load", lambda given: fj.load(SAVED, given), fj.load, "model"),
        ("load from", lambda given: fj.load(given, model), fj.load, "folder"),
        ("edit", lambda given: fj.edit(model, given), fj.edit, "explanation"),
        ("erasing_directions", lambda given: fj.erasing_directions(given, "photos", [0], remove=[0]),
         fj.erasing_directions, "explanation"),
        ("compare with", lambda given: fj.compare(explanation(), given), fj.compare, "second"),
        ("compare_methods", lambda given: fj.compare_methods(given, images, {}, target=0), fj.compare_methods, "model"),  # pyright: ignore[reportArgumentType]
        ("score_bank", lambda given: fj.score_bank(given, images, bank, target=0), fj.score_bank, "model"),
        ("certify", lambda given: fj.certify(term, rows, given), fj.certify, "solution"),
        ("certify a term", lambda given: fj.certify(given, rows, None), fj.certify, "term"),  # pyright: ignore[reportArgumentType]
        ("derivative_stats", lambda given: fj.derivative_stats(rows, given), fj.derivative_stats, "solution"),
        ("implicit_vjp", lambda given: fj.implicit_vjp(rows, given, (None, None)), fj.implicit_vjp, "solution"),  # pyright: ignore[reportArgumentType]
        ("faithfulness_path", lambda given: fj.faithfulness_path(rows, 2, given, rows), fj.faithfulness_path, "term"),
        ("utility_trials of", lambda given: study.utility_trials([explanation(), given], images), study.utility_trials,
         "explanation"),
    ):  # fmt: skip
        yield name, call, function, meant


_FAMILIES = ("convnext", "densenet", "efficientnet", "mobilenet_v2", "mobilenet_v3", "resnet", "vgg", "vit")


def _called(function: Callable[..., Any], more: tuple[Any, ...], given: Any) -> Any:
    found = function(given, *more)
    return list(found) if inspect.isgenerator(found) else found
