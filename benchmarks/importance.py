"""Does Sobol's order of concepts matter to the classifier more than others do, and do its intervals cover the truth?

    python benchmarks/importance.py deletion    # eight classes of photographs, the orders of four measures
    python benchmarks/importance.py coverage    # 100 seeds, functions whose indices are known

Deletion: concepts are taken out of photographs held out, the most important first; the number is the target's
probability, averaged over 0, 1, …, 25 concepts taken out and over photographs. Lower is better: what mattered most went
first. Behind this network's affine head TCAV gives 0 or 1 to each concept, so its order has ties; they are broken at
random, and averaged over. The photographs have to lie in a folder named by a manifest (`--data`).
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from explained_classes import CLASSES, DATA, Network

import face_jax as fj
from face_jax import metrics
from face_jax.activations import pooled
from face_jax.importance import sampled_total_sobol
from face_jax.nmf.encoding import encode_maps

DRAWS = 20


def areas(explanation: fj.Explanation) -> dict[str, np.ndarray]:
    """Of each measure the mean probability along deletion, once for each way to break its ties."""
    maps = pooled(explanation.pictures.collected.maps[explanation.pictures.held_out])
    dictionary = jnp.asarray(explanation.dictionary)
    codes = jnp.asarray(encode_maps(maps, explanation.dictionary))
    random = np.random.default_rng(0)

    def area(values: np.ndarray) -> float:
        shuffled = random.permutation(len(values))
        order = shuffled[np.argsort(-values[shuffled], kind="stable")]
        found = metrics.fidelity(explanation.model.head, codes, dictionary, explanation.target.index, order)
        return float(found.deletion.probability.mean())

    measures = {
        "Sobol": explanation.importance.sobol.per_class,
        "gradient × code": explanation.importance.gradient_times_code.per_class,
        "TCAV": explanation.importance.tcav.per_class,
        "random": np.zeros(len(dictionary)),
    }
    return {name: np.asarray([area(values) for _ in range(DRAWS)]) for name, values in measures.items()}


def deletion(arguments: argparse.Namespace) -> None:
    print("| class | held out | Sobol | \\|gradient × code\\| | TCAV (± over ties) | random order (±) |")
    print("|---|---|---|---|---|---|", flush=True)
    means = []
    for explanation in Network().explanations(arguments.data, arguments.classes, arguments.photographs):
        found = areas(explanation)
        means.append([values.mean() for values in found.values()])
        sobol, gradient, tcav, random = found.values()
        print(
            f"| {explanation.target_name} | {len(explanation.pictures.held_out)} | {sobol.mean():.3f} | "
            f"{gradient.mean():.3f} | "
            f"{tcav.mean():.3f} ± {tcav.std():.3f} | {random.mean():.3f} ± {random.std():.3f} |",
            flush=True,
        )
    mean = np.mean(means, axis=0)
    below = (np.asarray(means)[:, :1] < np.asarray(means)[:, 1:]).sum(0)
    print(f"| mean | | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.3f} |")
    print(f"| Sobol is lower in | | | {below[0]} of {len(means)} | {below[1]} | {below[2]} |", flush=True)


def ishigami(mask: jax.Array) -> jax.Array:
    x = (2 * mask - 1) * jnp.pi
    return (jnp.sin(x[0]) + 7 * jnp.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * jnp.sin(x[0]))[None]


WEIGHTS = np.asarray([3.0, 2.0, 1.0, 0.5, -0.2])


def linear(mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.asarray(WEIGHTS, mask.dtype) * mask)[None]


def known() -> list[tuple[str, Callable[[jax.Array], jax.Array], np.ndarray]]:
    """Functions with their total indices in closed form."""
    # Ishigami's with a = 7, b = 0.1: what the first input does alone, the second alone, and the first with the third.
    first, second, both = (1 + np.pi**4 / 50) ** 2 / 2, 49 / 8, 8 * np.pi**8 / 22500
    return [
        ("Ishigami", ishigami, np.asarray([first + both, second, both]) / (first + second + both)),
        ("linear, weights 3, 2, 1, 0.5, −0.2", linear, WEIGHTS**2 / np.sum(WEIGHTS**2)),
    ]


def coverage(arguments: argparse.Namespace) -> None:
    del arguments
    print("| function | designs × scrambles | covered, % of 100 seeds, each input | mean width of the intervals |")
    print("|---|---|---|---|")
    for name, function, truth in known():
        for designs in (32, 64, 256):
            inside, widths = [], []
            for seed in range(100):
                found = sampled_total_sobol(function, len(truth), designs=designs, key=jax.random.key(seed))
                inside.append((found.low[0] <= truth) & (truth <= found.high[0]))
                widths.append(found.high[0] - found.low[0])
            rates = ", ".join(f"{rate:.0f}" for rate in 100 * np.mean(inside, axis=0))
            width = ", ".join(f"{value:.3f}" for value in np.mean(widths, axis=0))
            print(f"| {name} | {designs} × 4 | {rates} | {width} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="deletion, coverage; both by default")
    parser.add_argument("--classes", nargs="*", type=int, default=CLASSES, help="numbers in ImageNet")
    parser.add_argument("--photographs", type=int, default=40, help="of each class")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    arguments = parser.parse_args()
    for part in arguments.parts or ["deletion", "coverage"]:
        {"deletion": deletion, "coverage": coverage}[part](arguments)


if __name__ == "__main__":
    main()
