"""Options of the command, turned into arguments of the library."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any, Literal

from ..support.arguments import check_count
from ..support.classes import class_names
from ..support.regular_files import text_of

# The folder of the pictures of --visualize, beside the report.
PICTURES = "visualization"
# Activations of an imported network differ from torch's by less than this, relative to the largest of them.
_SAME = 1e-3
# Weights are drawn again in so many steps from the top; each explains all crops anew.
_STEPS = 4


def rank_of(word: str | None) -> int | Literal["auto"] | None:
    """What the option --rank means to `explain`."""
    if word is None or word == "auto":
        return word
    if not word.strip().isdigit():
        raise ValueError(f"--rank {word!r} isn't a number of concepts; give one, such as 25, or auto")
    return int(word)


def check_counts(rank: int | str | None, batch: int, visualize: int) -> None:
    """Refuses options that are no numbers of anything, before models and photographs are loaded."""
    if rank is not None and rank != "auto":
        check_count("--rank", rank, "concepts")
    check_count("--batch", batch, "pictures")
    if visualize < 0:
        raise ValueError(f"--visualize {visualize} isn't a number of concepts; give 0 or more")


def check_room(memory: float | None, store: pathlib.Path | None) -> None:
    """Refuses what is no amount of memory, and a file as the folder of activations, before anything is loaded."""
    if memory is not None and not (math.isfinite(memory) and memory >= 0):
        raise ValueError(f"--memory {memory} isn't a number of GiB; give 0 or more, such as 4")
    if store is not None and store.exists() and not store.is_dir():
        raise ValueError(f"--store {str(store)!r} is a file; give a folder")


def strength_of(word: str | None) -> Any:
    """What the option --faithfulness means to `explain`."""
    if word is None:
        return "usual"
    if word in ("none", "auto"):
        return None if word == "none" else "auto"
    try:
        return float(word)
    except ValueError:
        raise ValueError(
            f"--faithfulness {word!r} is neither none nor auto nor a number; give one of these, such as 1e3"
        ) from None


def labels_of(multi_label: bool | None, threshold: float | None) -> Any:
    """What the options --multi-label and --threshold mean to `bridges.load`."""
    from ..outputs import MultiLabel

    if threshold is None:
        return multi_label
    if not multi_label:
        raise ValueError(f"--threshold {threshold} is on the probability of labels; give --multi-label with it")
    return MultiLabel(threshold)


def vocabulary_of(namer: str | None, file: pathlib.Path | None) -> list[str] | None:
    """What the option --vocabulary means to `name_concepts`: the words in a file, one a line."""
    if file is None:
        return None
    shown = f"--vocabulary {str(file)!r}"
    if namer is None:
        raise ValueError(f"{shown} is for names by a model of texts and pictures; give --namer MODEL with it")
    words = [
        line.strip() for line in text_of(shown, file, "give a file with a word a line").splitlines() if line.strip()
    ]
    if not words:
        raise ValueError(f"{shown} has no words; give a file with a word a line")
    return list(dict.fromkeys(words))


def names_in(file: pathlib.Path | None) -> Any:
    """What the option --class-names means to `bridges.load`: the names in a file, one a line or as JSON."""
    if file is None:
        return None
    shown = f"--class-names {str(file)!r}"
    text = text_of(shown, file, "give a file with a class's name a line")
    given: Any = [line.strip() for line in text.strip().splitlines()]
    if file.suffix.lower() == ".json":
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{shown} isn't valid JSON ({error}); give a list of names in the logits' order"
            ) from error
        if isinstance(given, dict):
            # As Keras writes ImageNet's: {"0": ["n01440764", "tench"], …}.
            given = {key: name[-1] if isinstance(name, list) and name else name for key, name in given.items()}
        elif not isinstance(given, list):
            raise ValueError(f"{shown} holds a {type(given).__name__}; give a list of names in the logits' order")
    if not given:
        raise ValueError(f"{shown} has no names; give a file with a class's name a line, in the logits' order")
    try:
        return class_names(given)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from error


def cropping_of(word: str | None, split: Any) -> Any:
    """What the option --crops means to `explain`."""
    from ..pictures.crop_rules import GridCrops, NativeCrops, RandomCrops

    if word is None:
        return None
    if word in ("grid", "native"):
        return GridCrops() if word == "grid" else NativeCrops(split.preprocess)
    if not word.isdigit() or int(word) < 1:
        raise ValueError(f"--crops {word!r} is neither a number nor grid nor native; give one of these, such as 10")
    return RandomCrops(per_image=int(word))


def names_of(layers: str | None) -> tuple[str, ...] | None:
    """The names in the option --layers."""
    return None if layers is None else tuple(name.strip() for name in layers.split(","))


def check_depth(depth: int, layers: tuple[str, ...] | None) -> None:
    """Refuses options --depth and --layers that don't fit together."""
    if depth < 0 or (layers is not None and len(layers) < depth):
        raise ValueError(
            f"--depth {depth} with {len(layers or ())} --layers; name a layer for each level, or give --depth alone"
        )


def split_of(
    model: str,
    layer: str | None,
    depth: int,
    layers: tuple[str, ...] | None,
    *,
    weights: str,
    transform_input: bool | None,
    multi_label: Any,
    classes: Any,
) -> tuple[Any, Any, list[Any]]:
    """The model that options describe: loaded, cut at a layer, and at the earlier ones of --depth."""
    from face_jax import bridges

    bridges.share_processor()
    bridges.keep_freed_memory()
    loaded = bridges.load(
        model, weights=weights, transform_input=transform_input, multi_label=multi_label, classes=classes
    )
    split = loaded.split(layer or last_map(loaded))
    return loaded, split, earlier_of(loaded, split.layer, depth, layers)


def text_image_of(namer: str) -> Any:
    """The text–image model that names concepts."""
    from face_jax import bridges

    return bridges.load_text_image(namer)


def earlier_of(loaded: Any, layer: str, depth: int, layers: tuple[str, ...] | None) -> list[Any]:
    """The model cut at the layers of --depth."""
    from ..recursion.earlier_layers import earlier_layers

    if depth == 0:
        return []
    if layers is None:
        layers = earlier_layers(loaded.layers(), layer, depth)
    return [loaded.split(name) for name in layers[:depth]]


def check_preset(word: str | None) -> None:
    """Refuses another word as --preset."""
    from ..methods import PUBLISHED

    if word is not None and word not in PUBLISHED:
        raise ValueError(f"--preset {word!r} is no paper's settings; give one of {', '.join(PUBLISHED)}")


def check_signs(word: str) -> None:
    """Refuses another word as --signs."""
    if word not in ("mixed", "apart"):
        raise ValueError(f"--signs {word!r} is neither mixed nor apart; give one of these")


def last_map(loaded: Any) -> str:
    """The layer that's taken where none is named."""
    from face_jax import bridges

    place = bridges.suggest_layer(loaded.layers(), classes=loaded.seen.logits.shape[1])
    if place is None:
        raise ValueError(
            f"--model {loaded.name} has no layer whose activations are maps on the picture, on which concepts could be "
            "found; name one with --layer (face-jax layers lists them), or choose another network"
        )
    return place.name


def visualized(explanation: Any, count: int, progress: Any, key: Any) -> Any:
    """What the option --visualize asks for: pictures of the most important concepts."""
    from ..attribution.visualization import visualize

    return visualize(
        _in_jax(explanation.model),
        explanation.dictionary,
        concepts=range(min(count, len(explanation.concepts))),
        photographs=explanation.photographs,
        progress=progress,
        key=key,
    )


def checked(explanation: Any, loaded: Any, **options: Any) -> Any:
    """What the option --sanity asks for: the explanation of a model that forgets."""
    from face_jax import bridges

    from ..sanity import sanity_check

    stages = bridges.randomized(
        loaded.model,
        explanation.model.layer,
        steps=_STEPS,
        preprocess=loaded.preprocess,
        classes=loaded.classes,
        name=loaded.name,
        multi_label=loaded.multi_label,
    )
    return sanity_check(explanation, stages, **options)


def forget_extras(folder: pathlib.Path) -> None:
    """Removes what --visualize and --sanity left of an explanation that was in this folder before."""
    for file in (*(folder / PICTURES).glob("concept-*.png"), folder / "sanity.json", folder / "sanity.png"):
        file.unlink(missing_ok=True)
    if (folder / PICTURES).is_dir() and not any((folder / PICTURES).iterdir()):
        (folder / PICTURES).rmdir()


def _in_jax(split: Any) -> Any:
    """The split model with features that JAX compiles, several times as fast; as it is if they can't be imported."""
    import jax.numpy as jnp
    import numpy as np
    import torch

    from face_jax.bridges import to_flax
    from face_jax.bridges.flax_import import ExportError, UnsupportedOperatorError

    noise = np.random.default_rng(0).normal(size=(2, *split.preprocess.shape)).astype(np.float32)
    try:
        network = to_flax(split.features.module, torch.from_numpy(np.moveaxis(noise, -1, 1)), check=False)
    except (ExportError, UnsupportedOperatorError):
        return split
    own, imported = np.asarray(split.features(jnp.asarray(noise))), np.asarray(network(jnp.asarray(noise)))
    # Maps with channels last in torch already come out turned, and are no case for this.
    if own.shape != imported.shape or np.abs(own - imported).max() > _SAME * np.abs(own).max():
        return split
    return dataclasses.replace(split, features=lambda images: network(images))
