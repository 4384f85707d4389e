"""Explanations of classes of photographs kept beside the checkout, for the benchmarks that measure explanations."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Iterator, Sequence

# Read when torch is first imported: its idle threads would spin on the cores that JAX computes on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import face_jax as fj
from face_jax import bridges
from face_jax.recursion.earlier_layers import earlier_layers
from face_jax.support.cache import ArrayCache

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
CACHE = ArrayCache(ROOT / ".cache" / "benchmarks" / "explanations")
# Tench, springer, cassette player, chain saw, church, French horn, gas pump, golf ball.
CLASSES = (0, 217, 482, 491, 497, 566, 571, 574)


def files_of(data: pathlib.Path, target: int, count: int) -> list[pathlib.Path]:
    """The first photographs of a class that the network is known to put in it."""
    if not (data / "manifest.csv").is_file():
        raise SystemExit(f"there is no {data / 'manifest.csv'}: the photographs are no part of the project (--data)")
    with (data / "manifest.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["file"].startswith("images/imagenet/")]
    right = [row for row in rows if row["imagenet_index"] == str(target) and row["lite0_correct"] == "1"]
    return [data / row["file"] for row in right[:count]]


class Network:
    """EfficientNet-Lite0, cut at its last layer, and at an earlier one for recursion."""

    def __init__(self) -> None:
        bridges.share_processor()
        self._loaded = bridges.load("efficientnet_lite0")
        self._places = bridges.layers(self._loaded.model, size=224)
        self.layer = bridges.suggest_layer(self._places, classes=1000).name

    def split(self) -> fj.SplitModel:
        return self._loaded.split(self.layer)

    def earlier(self) -> list[fj.SplitModel]:
        return [self._loaded.split(name) for name in earlier_layers(self._places, self.layer, 1)]

    def explanations(self, data: pathlib.Path, targets: Sequence[int], photographs: int) -> Iterator[fj.Explanation]:
        """Of each class in turn; activations are kept between runs."""
        model = self.split()
        for target in targets:
            yield fj.explain(
                model, files_of(data, target, photographs), target, rank=25, faithfulness=None, cache=CACHE
            )
