"""Do concepts' maps point to where the concepts were found?

    python benchmarks/pointing.py --images FOLDER --target tench

EfficientNet-Lite0, 25 concepts of the photographs that it puts in the class. Each concept has a case for each of its 8
strongest crops: its map of the whole photograph hits if its maximum lies in the crop's box. Beside the rate stand the
box's share of the picture (a random pixel), the picture's middle (which photographers aim at), and the same boxes with
another concept's map. The second half of the table has only the cases whose box doesn't hold the middle.
"""

# Last answer: 100 photographs of tench (224 × 224), of which the network puts 92 in the class; 196 cases. The
# error is that of the rate over the random pixel's.
#
# | map | rate | random pixel | middle | another's | off the middle | rate | random pixel | another's |
# |---|---|---|---|---|---|---|---|---|
# | codes | 0.58 ± 0.03 | 0.19 | 0.43 | 0.20 | 111 | 0.42 ± 0.05 | 0.13 | 0.15 |
# | Grad-CAM | 0.54 ± 0.03 | 0.19 | 0.43 | 0.24 | 111 | 0.38 ± 0.04 | 0.13 | 0.11 |
# | gradient | 0.30 ± 0.03 | 0.19 | 0.43 | 0.14 | 111 | 0.24 ± 0.04 | 0.13 | 0.10 |
# | gradient, smoothed | 0.37 ± 0.03 | 0.19 | 0.43 | 0.13 | 111 | 0.31 ± 0.04 | 0.13 | 0.06 |
# | integrated gradients, 8 steps | 0.33 ± 0.03 | 0.19 | 0.43 | 0.15 | 111 | 0.26 ± 0.04 | 0.13 | 0.09 |
# | integrated gradients, 8 steps, smoothed | 0.33 ± 0.03 | 0.19 | 0.43 | 0.16 | 111 | 0.25 ± 0.04 | 0.13 | 0.13 |
# | occlusion, 48 pixels by 24 | 0.43 ± 0.03 | 0.19 | 0.43 | 0.13 | 111 | 0.31 ± 0.04 | 0.13 | 0.10 |
#
# Every map points to its own concept more often than another concept's map does, and than chance. Only codes and
# Grad-CAM beat the picture's middle on all cases: most things that concepts stand for are where photographers aim.

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np
import scipy.ndimage

import face_jax as fj
from face_jax import bridges, metrics
from face_jax.attribution import Codes, GradCAM, IntegratedGradients, Method, Occlusion, Saliency
from face_jax.pictures.photographs import network_input
from face_jax.support.cache import ArrayCache

KEPT = pathlib.Path(__file__).resolve().parent.parent / ".cache" / "benchmarks" / "pointing"
METHODS: dict[str, Method] = {
    "codes": Codes(),
    "Grad-CAM": GradCAM(),
    "gradient": Saliency(),
    "integrated gradients, 8 steps": IntegratedGradients(steps=8),
    "occlusion, 48 pixels by 24": Occlusion(patch=48, stride=24),
}
# Maps that flicker from pixel to pixel are also judged smoothed, by a fiftieth of the picture.
FLICKERING = ("gradient", "integrated gradients, 8 steps")


def maps_of(explanation: fj.Explanation, method: Method, cases: metrics.PointingCases) -> np.ndarray:
    """Of each case its concept's map, and that of another concept of the same photograph."""
    random = np.random.default_rng(0)
    concepts = len(explanation.concepts)
    other = (cases.concept + random.integers(1, concepts, len(cases))) % concepts
    found = np.zeros((2, len(cases), 224, 224), np.float32)
    for image in np.unique(cases.image):
        mine = np.nonzero(cases.image == image)[0]
        wanted = np.unique([cases.concept[mine], other[mine]])
        pixels = network_input(explanation.photographs[image].pixels(), explanation.model.preprocess)
        maps = method(explanation.model, explanation.dictionary, pixels[None], concepts=wanted.tolist(), pooled=False)[
            :, 0
        ]
        for row, numbers in enumerate((cases.concept, other)):
            found[row, mine] = maps[np.searchsorted(wanted, numbers[mine])]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--target", default=None)
    arguments = parser.parse_args()
    bridges.share_processor()
    loaded = bridges.load("efficientnet_lite0")
    place = bridges.suggest_layer(bridges.layers(loaded.model, size=224), classes=1000)
    explanation = fj.explain(
        loaded.split(place.name), arguments.images, arguments.target, faithfulness=None, cache=ArrayCache(KEPT)
    )
    shapes = [photograph.pixels().shape[:2] for photograph in explanation.photographs]
    strongest = [concept.strongest for concept in explanation.concepts]
    cases = metrics.pointing_cases(strongest, explanation.crops, shapes, explanation.model.preprocess)
    print(f"{explanation.target_name}: {len(explanation.photographs)} photographs, {len(cases)} cases", flush=True)
    print("| map | rate | random pixel | middle | another's | cases | rate | random pixel | another's | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, method in METHODS.items():
        begun = time.perf_counter()
        maps = maps_of(explanation, method, cases)
        spent = time.perf_counter() - begun
        for smooth in (False, True) if name in FLICKERING else (False,):
            drawn = scipy.ndimage.gaussian_filter(np.maximum(maps, 0), (0, 0, 4.5, 4.5)) if smooth else maps
            own, other = (metrics.pointing_game(one, cases.box) for one in drawn)
            far, far_other = own.off_middle(), other.off_middle()
            label = f"{name}, smoothed" if smooth else name
            rates = [f"{one.rate:.2f} ± {one.standard_error:.2f}" for one in (own, far)]
            print(
                f"| {label} | {rates[0]} | {own.chance:.2f} | {own.middle:.2f} | {other.rate:.2f} | {len(far.hits)} "
                f"| {rates[1]} | {far.chance:.2f} | {far_other.rate:.2f} | {spent:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
