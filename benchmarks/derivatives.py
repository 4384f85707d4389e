"""What does a derivative cost, next to the forward computation, to jaxopt's generic one, and to unrolling?

    python benchmarks/derivatives.py [speed] [generic] [memory] [condition] [--picture FILE]

Times are the median of five runs, compilation apart. A VJP's time is that of value and gradient, less the forward's.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from face_jax.nmf import ADMM, HALS, Given, ImplicitAdjoint, SquaredError, UnrolledAdjoint, encode, factorize
from face_jax.nmf.derivative.conditions import Conditions
from face_jax.nmf.derivative.jaxopt_rootfinding import custom_root, solve_normal_cg


def activations(rows: int, channels: int, dtype: object, seed: int = 0) -> jax.Array:
    """Non-negative, sparse, of forty causes, with noise behind a ReLU."""
    rng = np.random.default_rng(seed)
    codes = rng.gamma(1.0, 1.0, (rows, 40)) * (rng.random((rows, 40)) < 0.3)
    concepts = rng.gamma(1.0, 1.0, (40, channels)) * (rng.random((40, channels)) < 0.3)
    product = codes @ concepts
    return jnp.asarray(np.maximum(product + 0.5 * product.mean() * rng.standard_normal(product.shape), 0), dtype)


def median(function, *arguments, runs: int = 5) -> tuple[float, float]:
    """Median time of a run, and the compilation's."""
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compilation = time.perf_counter() - begin
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:]), compilation


def speed() -> None:
    rng = np.random.default_rng(1)
    print("| work | forward | VJP | VJP / forward |\n|---|---|---|---|")
    data = activations(4800, 2048, jnp.float32)
    dictionary = factorize(data, 25, solver=ADMM(rtol=1e-3)).dictionary
    many = activations(14700, 2048, jnp.float32)
    weights = jnp.asarray(rng.standard_normal((14700, 25)), jnp.float32)

    def encoded(data, dictionary):
        return jnp.sum(weights * encode(data, dictionary))

    forward = median(encode, many, dictionary)[0]
    for name, which in (("activations", (0,)), ("activations and dictionary", (0, 1))):
        both = median(jax.value_and_grad(encoded, which), many, dictionary)[0]
        print(f"| encode 14,700×2,048, r=25, by {name} | {forward:.3f} s | {both - forward:.3f} s "
              f"| {(both - forward) / forward:.2f} |")  # fmt: skip

    of_codes = jnp.asarray(rng.standard_normal((4800, 25)), jnp.float32)
    of_dictionary = jnp.asarray(rng.standard_normal((25, 2048)), jnp.float32)
    solver = ADMM(rtol=1e-4)

    def factorized(data):
        found = factorize(data, 25, solver=solver)
        return jnp.sum(of_codes * found.codes) + jnp.sum(of_dictionary * found.dictionary)

    forward, both = median(factorized, data)[0], median(jax.value_and_grad(factorized), data)[0]
    steps = factorize(data, 25, solver=solver).stats.steps
    print(f"| factorize 4,800×2,048, r=25, rtol 1e-4 ({steps} steps) | {forward:.3f} s | {both - forward:.3f} s "
          f"| {(both - forward) / forward:.2f} |")  # fmt: skip


def generic() -> None:
    """The same VJP from jaxopt's `custom_root` with its own normal conjugate gradients, on the full KKT system."""
    rows, channels, rank = 300, 64, 6
    rng = np.random.default_rng(2)
    made = (rng.random((rows, rank)) * (rng.random((rows, rank)) < 0.5)) @ (
        rng.random((rank, channels)) * (rng.random((rank, channels)) < 0.5)
    )
    data = jnp.asarray(made + 0.05 * rng.random((rows, channels)))
    solver = HALS(rtol=1e-15, max_steps=20000)
    solution = factorize(data, rank, solver=solver)
    start = Given(solution.codes / solution.scale[None], solution.dictionary * solution.scale[:, None])
    of_codes, of_dictionary = (
        jnp.asarray(rng.standard_normal((rows, rank))),
        jnp.asarray(rng.standard_normal((rank, channels))),
    )

    def read(codes, dictionary):
        length = jnp.linalg.norm(dictionary, axis=1)
        return jnp.sum(of_codes * codes * length[None]) + jnp.sum(of_dictionary * dictionary / length[:, None])

    def stationary(unknowns, data):
        # CRAFT's eq. 11: stationarity, and complementarity of factors and multipliers.
        codes, dictionary, of_code, of_concept = unknowns
        slopes = Conditions(data, SquaredError()).equations((codes, dictionary))
        return slopes[0] - of_code, slopes[1] - of_concept, of_code * codes, of_concept * dictionary

    slopes = Conditions(data, SquaredError()).equations((start.codes, start.dictionary))
    root = (start.codes, start.dictionary, jnp.where(start.codes > 0, 0, slopes[0]),
            jnp.where(start.dictionary > 0, 0, slopes[1]))  # fmt: skip

    def jaxopt_loss(tol, maxiter):
        def solve(matvec, b):
            return solve_normal_cg(matvec, b, tol=tol, maxiter=maxiter)

        solver = custom_root(stationary, solve=solve)(lambda _, data: root)
        return lambda data: read(*solver(None, data)[:2])

    def ours_loss(adjoint):
        def loss(data):
            found = factorize(data, rank, solver=HALS(rtol=1.0, max_steps=1), start=start, adjoint=adjoint)
            return jnp.sum(of_codes * found.codes) + jnp.sum(of_dictionary * found.dictionary)

        return loss

    def exact(data):
        found = factorize(data, rank, solver=solver, start=start)
        return jnp.sum(of_codes * found.codes) + jnp.sum(of_dictionary * found.dictionary)

    exact = jax.jit(exact)
    ways, step = [jnp.asarray(rng.standard_normal(data.shape)) for _ in range(5)], 1e-6
    expected = jnp.stack([(exact(data + step * way) - exact(data - step * way)) / (2 * step) for way in ways])

    def error(gradient):
        found = jnp.stack([jnp.sum(gradient * way) for way in ways])
        return float(jnp.max(jnp.abs(found - expected) / jnp.abs(expected)))

    print(f"| VJP of factorize {rows}×{channels}, r={rank}, float64 | time | error against central differences |")
    print("|---|---|---|")
    losses = {
        "ours, rtol 1e-12": ours_loss(ImplicitAdjoint(rtol=1e-12)),
        "ours, rtol 1e-8": ours_loss(ImplicitAdjoint(rtol=1e-8)),
        "jaxopt custom_root, normal CG, tol 1e-5 (its own default for maxiter)": jaxopt_loss(1e-5, None),
        "jaxopt custom_root, normal CG, tol 1e-8, 20,000 steps at most": jaxopt_loss(1e-8, 20000),
        "jaxopt custom_root, normal CG, tol 1e-12, 100,000 steps at most": jaxopt_loss(1e-12, 100000),
    }
    for name, loss in losses.items():
        gradient = jax.grad(loss)
        took = median(gradient, data, runs=3)[0]
        print(f"| {name} | {took * 1e3:.1f} ms | {error(jax.jit(gradient)(data)):.1e} |", flush=True)


def memory(picture: str | None) -> None:
    """Peak memory that the compiled gradient asks for, by the number of the solver's steps."""
    data = activations(600, 256, jnp.float32)
    counts = (10, 20, 50, 100, 200, 400)
    lines = {}
    for name, adjoint in (("implicit", ImplicitAdjoint()), ("unrolled", UnrolledAdjoint())):
        lines[name] = []
        for count in counts:
            solver = HALS(rtol=1e-6, max_steps=count)

            def loss(data, solver=solver, adjoint=adjoint):
                return jnp.sum(factorize(data, 10, solver=solver, adjoint=adjoint, throw=False).codes ** 2)

            analysis = jax.jit(jax.grad(loss)).lower(data).compile().memory_analysis()
            lines[name].append((analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / 2**20)
    print("| steps | " + " | ".join(str(count) for count in counts) + " |\n|---|" + "---|" * len(counts))
    for name, sizes in lines.items():
        print(f"| {name}, MiB | " + " | ".join(f"{size:.1f}" for size in sizes) + " |")
    if picture:
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
        for name, sizes in lines.items():
            axes.loglog(counts, sizes, marker="o", label=name)
        axes.set(xlabel="steps of the solver", ylabel="memory of the gradient, MiB")
        axes.legend(frameon=False)
        figure.savefig(picture, dpi=150)


def condition() -> None:
    """Codes' derivative at r=25 and a condition number over 100, against an unrolled, tolerance-stopped FISTA."""
    from functools import partial

    rng = np.random.default_rng(3)
    common = rng.random((1, 64))
    dictionary = jnp.asarray(common + 1.0 * rng.random((25, 64)) * (rng.random((25, 64)) < 0.4))
    dictionary = dictionary / jnp.linalg.norm(dictionary, axis=1, keepdims=True)
    data = jnp.asarray((rng.random((49, 25)) * (rng.random((49, 25)) < 0.5)) @ dictionary + 0.01 * rng.random((49, 64)))
    gram = dictionary @ dictionary.T
    weights = jnp.asarray(rng.standard_normal((49, 25)))

    def fista(data, steps):
        cross, length = data @ dictionary.T, 1 / jnp.linalg.norm(gram, 2)

        def body(i, carry):
            x, y, t = carry
            new = jnp.maximum(y - length * (y @ gram - cross), 0)
            after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
            return new, new + (t - 1) / after * (new - x), after

        zero = jnp.zeros((49, 25))
        return jax.lax.fori_loop(0, steps, body, (zero, zero, jnp.ones(())))[0]

    # As many steps as bring the relative change below 1e-4, a usual tolerance.
    stop = next(k for k in range(5, 2000) if float(jnp.linalg.norm(fista(data, k) - fista(data, k - 1))
                / jnp.linalg.norm(fista(data, k))) < 1e-4)  # fmt: skip
    ours = jax.grad(lambda a: jnp.sum(weights * encode(a, dictionary)))(data)
    support = np.asarray(encode(data, dictionary)) > 0
    exact = np.stack([
        np.asarray(weights)[i][s] @ np.linalg.solve(np.asarray(gram)[np.ix_(s, s)], np.asarray(dictionary)[s])
        for i, s in enumerate(support)
    ])  # fmt: skip
    print(f"condition number {np.linalg.cond(np.asarray(gram)):.0f}; relative error of the VJP")
    print("| derivative | error |\n|---|---|")
    print(f"| ours | {np.linalg.norm(ours - exact) / np.linalg.norm(exact):.1e} |")
    for steps in (stop, 200, 1000):
        unrolled = jax.grad(lambda a, steps: jnp.sum(weights * partial(fista, steps=steps)(a)))(data, steps)
        print(f"| FISTA, {steps} steps, unrolled | {np.linalg.norm(unrolled - exact) / np.linalg.norm(exact):.1e} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["speed", "generic", "memory", "condition"])
    parser.add_argument("--picture")
    options = parser.parse_args()
    for part in options.parts:
        print(f"\n## {part}\n", flush=True)
        if part == "speed":
            speed()
        elif part == "memory":
            memory(options.picture)
        else:
            jax.config.update("jax_enable_x64", True)
            {"generic": generic, "condition": condition}[part]()
            jax.config.update("jax_enable_x64", False)
