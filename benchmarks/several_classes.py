"""Do classes that are explained in one call take less time if they are factorized together?

    python benchmarks/several_classes.py [--classes 10]

Classes of 55 to 65 photographs of a small network of random directions (512 channels, an affine head), explained by
`explain_classes` in a process of its own for each line: each class factorized by itself, or up to 16 by one call of
`factorize_many`. The second time the same is asked for, nothing is compiled. The last answers are in README.md,
section "several classes".
"""

import argparse
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import face_jax as fj
from face_jax.heads import Affine
from face_jax.pipeline import several

CHANNELS, SIZE = 512, 32
OPTIONS = {
    "none": {"faithfulness": None},
    "λ given": {"faithfulness": 100.0},
    "λ chosen": {},
    "signed": {"faithfulness": None, "solver": fj.SemiNMF()},
}


def model_of(classes: int) -> fj.SplitModel:
    """Patches of 4 × 4 pixels times random directions, ReLU; a class is the brightest of as many channels."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(48, CHANNELS)).astype(np.float32)
    directions[:, :classes] = 0.2 * random.normal(size=(48, classes))

    def features(images: jax.Array) -> jax.Array:
        count = len(images)
        patches = images.reshape(count, SIZE // 4, 4, SIZE // 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
        return jax.nn.relu(patches.reshape(count, SIZE // 4, SIZE // 4, 48) @ directions)

    kernel = np.zeros((CHANNELS, classes), np.float32)
    kernel[:classes] = 8 * np.eye(classes)
    preprocess = fj.Preprocess(size=SIZE, resize=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return fj.SplitModel(
        features=features, head=Affine(jnp.asarray(kernel), jnp.zeros(classes)), layer="patches", preprocess=preprocess,
        classes=tuple(f"class {number}" for number in range(classes)), name="random", fingerprint="random-1",
    )  # fmt: skip


def photographs_of(model: fj.SplitModel, classes: int) -> dict[str, np.ndarray]:
    """Noise around the patches that a class's channel is brightest at, as many as the class is to have."""
    random = np.random.default_rng(1)
    directions = np.random.default_rng(0)
    directions.normal(size=(48, CHANNELS))
    columns = 0.2 * directions.normal(size=(48, classes))
    found = {}
    for number, name in enumerate(model.classes):
        count = 55 + number % 11
        patch = columns[:, number].reshape(1, 1, 4, 1, 4, 3) * np.ones((1, SIZE // 4, 1, SIZE // 4, 1, 1))
        pictures = 128 + 300 * patch.reshape(SIZE, SIZE, 3) + 40 * random.normal(size=(count, SIZE, SIZE, 3))
        found[name] = np.clip(pictures, 0, 255).astype(np.uint8)
    return found


def measured(option: str, together: int, classes: int) -> dict[str, float]:
    """Seconds of the first call and of the next in this process, programs compiled by the first, and the errors."""
    several._at_a_time = lambda: together
    model = model_of(classes)
    images = photographs_of(model, classes)
    compiled = [0]
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.__setitem__(
            0, compiled[0] + (name == "/jax/core/compile/backend_compile_duration")
        )
    )
    answers = {}
    for call in ("first", "next"):
        begun, busy = time.perf_counter(), time.process_time()
        found = fj.explain_classes(model, images, rank=10, key=0, progress=False, **OPTIONS[option])
        answers[call] = time.perf_counter() - begun
        answers[f"{call} processor"] = time.process_time() - busy
        answers[f"{call} compiled"] = compiled[0]
        answers[f"{call} fits"] = sum(one.provenance.seconds["factorization"] for one in found.explanations.values())
    answers["classes"] = len(found.explanations)
    answers["objective"] = float(np.mean([one.fit.objective for one in found.explanations.values()]))
    return answers


def main(classes: int) -> None:
    print("| option | factorized | first call, s | its fits, s | programs | next call, s | its fits, s | load |")
    print("|---|---|---|---|---|---|---|---|")
    for option in OPTIONS:
        for together in (1, 16):
            run = [sys.executable, __file__, "--classes", str(classes), "--only", option, str(together)]
            told = subprocess.run(run, check=True, capture_output=True, text=True).stdout
            found = json.loads(told.splitlines()[-1])
            print(
                f"| {option} | {'each by itself' if together == 1 else 'together'} | {found['first']:.1f} | "
                f"{found['first fits']:.1f} | {found['first compiled']:.0f} | {found['next']:.1f} | "
                f"{found['next fits']:.2f} | {os.getloadavg()[0]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measured(given.only[0], int(given.only[1]), given.classes)))
    else:
        main(given.classes)
