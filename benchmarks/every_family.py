"""Can every classification family of torchvision be explained, and where is each split by default?

    python benchmarks/every_family.py [--families resnet18 vit_b_16 …] [--explain]

The smallest member of each family with random weights, at the size of pictures that it was made for. It is cut at the
layer that's taken by default and at the last other one on a grid with activations below zero; *error* is the largest
difference between the logits behind the halves and the network's own, over the largest logit. With `--explain`, small
members of the same families (those of the tests) are explained as a whole at both layers: six photographs of noise,
two concepts, all scores, controls and maps.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import Any

import numpy as np
import torch
import torchvision
from face_jax.bridges.splitting.surveying import survey
from torch import nn

import face_jax as fj
from face_jax import bridges

SMALLEST = (
    "alexnet", "vgg11", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "squeezenet1_1", "densenet121",
    "inception_v3", "googlenet", "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5",
    "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "convnext_tiny", "vit_b_32", "swin_t", "swin_v2_t",
    "maxvit_t",
)  # fmt: skip
# Those that need more pixels than 224.
SIZES = {"inception_v3": 299, "swin_v2_t": 256}
COLUMNS = "family | layer | grid × channels | tokens beside | signed | affine | error | seconds"


def built(name: str) -> nn.Module:
    """A network with random weights, without the auxiliary heads that only training uses."""
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False, "aux_logits": False}
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    for parameter in model.parameters():
        # Vision transformers start with a last layer of zeros, behind which nothing could be compared.
        if parameter.ndim == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def rows_of(name: str, model: nn.Module, size: int, *, whole: bool) -> None:
    """A family's rows of the table."""
    begun = time.perf_counter()
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    given = torch.from_numpy(images).movedim(-1, 1)
    seen = survey(model, given)
    with torch.no_grad():
        logits = model(given).numpy()
    places = bridges.layers(model, seen=seen)
    default = bridges.suggest_layer(places, classes=logits.shape[1])
    if default is None:
        print(f"| {name} | none |", flush=True)
        return
    maps = [p for p in places if p.shape[:2] != (1, 1) and p.reaches and p.told and p.shape[2] != logits.shape[1]]
    signed = [place for place in maps if not place.non_negative and place.name != default.name]
    for place in (default, *signed[-1:]):
        preprocess = fj.Preprocess(size=size, resize=size)
        split = bridges.split(model, place.name, preprocess=preprocess, seen=seen)
        activations, head = split.halves(images)
        error = np.abs(np.asarray(head(activations)) - logits).max() / np.abs(logits).max()
        if whole:
            explain(split, size)
        grid = " × ".join(map(str, place.shape))
        sign, affine = "no" if place.non_negative else f"{place.negative:.0%}", "yes" if place.affine else "no"
        seconds = time.perf_counter() - begun
        print(f"| {name} | {place.name} | {grid} | {place.prefix} | {sign} | {affine} | {error:.0e} | {seconds:.1f} |",
              flush=True)  # fmt: skip
        begun = time.perf_counter()


def explain(split: fj.SplitModel, size: int) -> None:
    """The whole of an explanation, and a map of each kind."""
    photographs = np.random.default_rng(1).integers(0, 256, (6, size, size, 3)).astype(np.uint8)
    found = fj.explain(split, photographs, rank=2, crops=fj.RandomCrops(per_image=2), batch=8, key=0, progress=False)
    assert np.isfinite(found.importance.sobol.total).all()
    for method in ("codes", "saliency"):
        assert np.isfinite(found.maps(photographs[:1], method=method)).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=None)
    parser.add_argument("--explain", action="store_true")
    arguments = parser.parse_args()
    fj.keep_compilations()
    print(f"| {COLUMNS} |\n|{'---|' * 8}")
    if arguments.explain:
        sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "bridges"))
        from classifier_families import FAMILIES, family  # pyright: ignore[reportMissingImports]

        for name in arguments.families or FAMILIES:
            model, example = family(name)
            rows_of(name, model.eval(), example.shape[-1], whole=True)
    else:
        for name in arguments.families or SMALLEST:
            rows_of(name, built(name), SIZES.get(name, 224), whole=False)


if __name__ == "__main__":
    main()
