"""How much faster are many factorizations in one call than in a loop, and what bounds it?

    python benchmarks/many_problems.py [--classes 1000]

Classes of 500 to 1,300 rows × 512, rank 10, of eight numbers of rows, so that the loop compiles for eight only.
Compilations aren't counted in either. Beside both, the time that the two products with the activations take by
themselves, of as many steps as were taken: no call can take less. The last answers are in README.md, section "many
problems".
"""

import argparse
import concurrent.futures
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import face_jax as fj

CHANNELS, RANK = 512, 10
ROWS = (500, 610, 730, 840, 950, 1070, 1180, 1300)


def classes(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        rows = ROWS[number % len(ROWS)]
        factors = random.gamma(0.3, 1, (rows, RANK)), random.gamma(0.3, 1, (RANK, CHANNELS))
        found.append(np.float32(factors[0] @ factors[1] + 0.1 * random.random((rows, CHANNELS))))
    return found


def products(every: list[np.ndarray], steps: list[int]) -> float:
    """Seconds of `A Wᵀ` and `U A` alone, of so many steps each; compiled as one loop a class."""

    @jax.jit
    def passes(a: jax.Array, w: jax.Array, u: jax.Array, count: jax.Array) -> jax.Array:
        # Each pass needs the last one's numbers, so that none can be left out.
        def one(_: jax.Array, w: jax.Array) -> jax.Array:
            return 1e-3 * ((u + 1e-9 * (w @ a.T)) @ a)

        return jax.lax.fori_loop(0, count, one, w)

    random = np.random.default_rng(0)
    w = jnp.asarray(random.random((RANK, CHANNELS), np.float32))

    def all_of(some: list[np.ndarray]) -> None:
        for a, count in zip(some, steps, strict=False):
            u = jnp.ones((RANK, len(a)), jnp.float32)
            jax.block_until_ready(passes(jnp.asarray(a), w, u, jnp.asarray(count)))

    all_of(every[: len(ROWS)])  # compiles
    begun = time.perf_counter()
    all_of(every)
    return time.perf_counter() - begun


def main(count: int) -> None:
    every = classes(count)

    def solved(each: np.ndarray) -> fj.Solution:
        return jax.block_until_ready(fj.factorize(each, RANK, progress=False))

    # What compiles is left out. Each number of rows is a program of its own, and on a GPU half a minute of it.
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        waiting = threads.submit(fj.factorize_many, every, RANK)
        list(threads.map(solved, every[: len(ROWS)]))
        waiting.result()
    print(f"compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    begun = time.perf_counter()
    jax.block_until_ready(fj.factorize_many(every, RANK))
    together = time.perf_counter() - begun
    print(f"one call: {together:.2f} s", flush=True)
    begun = time.perf_counter()
    found = [solved(each) for each in every]
    loop = time.perf_counter() - begun
    print(f"loop: {loop:.2f} s", flush=True)
    alone = products(every, [int(each.stats.steps) for each in found])
    steps = np.mean([each.stats.steps for each in found])
    print(
        "| classes | loop, s | one call, s | their products alone, s | steps, mean | load |\n|---|---|---|---|---|---|"
    )
    print(f"| {count:,} | {loop:.2f} | {together:.2f} | {alone:.2f} | {steps:.1f} | {os.getloadavg()[0]:.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    main(parser.parse_args().classes)
