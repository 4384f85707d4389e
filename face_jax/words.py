"""What the words of the command line mean to the functions behind it."""

from __future__ import annotations

from typing import Any, Literal


def rank_of(word: str) -> int | Literal["auto"]:
    """What the option --rank means to `explain`."""
    if word == "auto":
        return "auto"
    if not word.strip().isdigit():
        raise ValueError(f"--rank {word!r} is no number of concepts; give one, such as 25, or auto")
    return int(word)


def strength_of(word: str) -> Any:
    """What the option --faithfulness means to `explain`."""
    if word in ("none", "auto"):
        return None if word == "none" else "auto"
    try:
        return float(word)
    except ValueError:
        raise ValueError(
            f"--faithfulness {word!r} is neither none nor auto nor a number; give one of these, such as 1e3"
        ) from None


def cropping_of(word: str | None, split: Any) -> Any:
    """What the option --crops means to `explain`."""
    from . import GridCrops, NativeCrops, RandomCrops

    if word is None:
        return None
    if word in ("grid", "native"):
        return GridCrops() if word == "grid" else NativeCrops(split.preprocess)
    if not word.isdigit() or int(word) < 1:
        raise ValueError(f"--crops {word!r} is neither a number nor grid nor native; give one of these, such as 10")
    return RandomCrops(per_image=int(word))


def check_depth(depth: int, layers: tuple[str, ...] | None) -> None:
    """Refuses options --depth and --layers that don't fit together."""
    if depth < 0 or (layers is not None and len(layers) < depth):
        raise ValueError(
            f"--depth {depth} with {len(layers or ())} --layers; name a layer for each level, or give --depth alone"
        )


def earlier_of(loaded: Any, layer: str, depth: int, layers: tuple[str, ...] | None) -> list[Any]:
    """The model cut at the layers of --depth."""
    from face_jax import bridges

    from .earlier import earlier_layers

    if depth == 0:
        return []
    if layers is None:
        layers = earlier_layers(bridges.layers(loaded.model, size=loaded.preprocess.size), layer, depth)
    return [loaded.split(name) for name in layers[:depth]]


def last_map(loaded: Any) -> str:
    """The layer that's taken where none is named."""
    from face_jax import bridges

    places = bridges.layers(loaded.model, size=loaded.preprocess.size)
    place = bridges.suggest_layer(places, classes=len(loaded.classes))
    if place is None:
        raise ValueError(
            f"--model {loaded.name} has activations below zero at every layer, which non-negative concepts can't "
            "represent; choose a network with ReLU, such as resnet34, mobilenet_v2 or densenet121"
        )
    return place.name
