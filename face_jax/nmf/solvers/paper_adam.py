"""The algorithm that FACE was published with: Adam on both factors at once, clamped at zero."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from ..derivative.kkt import kkt_residual
from ..history import begun
from ..objective import Objective
from ..results import RESULTS
from ..shapes import Activations, Factors, Number
from ..solution import Solution
from ..terms.lambda_weights import prepare
from .starts import Start


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PaperAdam:
    """Adam on both factors, negative entries set to zero after each step (FACE, appendix B; use `start=NNDSVD()`).

    To reproduce published numbers, and to be compared with; `ADMM()` gets to a lower objective in far less time.
    What it follows is the objective over `½ · rows · channels`, the published code's mean squared error and mean
    loss: write `SquaredError() + λ * Faithfulness(head, unit=InMeans())` for a λ in its unit. It stops when that
    changes by less than an absolute tolerance, which says nothing about being stationary (`final_residual` does).
    Derivatives belong to a stationary point: under `grad` the factors are refined to one, and their values with them,
    unless `adjoint=ImplicitAdjoint(refinements=0)`.

    **Arguments:**

    - `learning_rate`: Adam's, an absolute one, for activations of ordinary size (largest entry between 2⁻¹⁶ and 2¹⁶;
        others are brought to the order of 1 first, and `atol` is about these).
    - `atol`: stop when two consecutive losses differ by less; 0 never stops.
    - `max_steps`: at most so many.
    """

    learning_rate: float = dataclasses.field(default=5e-4, metadata={"static": True})
    atol: float = dataclasses.field(default=1e-3, metadata={"static": True})
    max_steps: int = dataclasses.field(default=22_000, metadata={"static": True})

    @property
    def rtol(self) -> float:
        """The scaled KKT residual at which the factors would count as stationary; it doesn't stop there."""
        return 1e-5

    @property
    def signed_dictionary(self) -> bool:
        """False."""
        return False

    @property
    def unrollable(self) -> bool:
        """False: it stops by comparing its last two losses."""
        return False

    def check_divergence(self, objective: Objective) -> None:
        """Raise `ValueError` for a divergence."""
        if not objective.squared_error:
            raise ValueError(
                "solver=PaperAdam() can only fit a squared error, and the objective is a β-divergence; use "
                "solver=ADMM(), HALS() or MultiplicativeUpdate()"
            )

    def check_terms(self, objective: Objective) -> None:
        """It takes them all, beside any weights."""
        del objective

    def solve(
        self,
        activations: Activations,
        rank: int,
        objective: Objective,
        start: Start,
        key: Key[Array, ""],
        *,
        unrolled: bool = False,
    ) -> Solution:
        """As other solvers' `solve`: the input has been checked except for the terms'."""
        del unrolled
        prepared = prepare(objective.terms, activations)
        return _paper_adam(activations, rank, objective, prepared, self, start, key)


@partial(jax.jit, static_argnames="rank")
def _paper_adam(
    activations: Activations,
    rank: int,
    objective: Objective,
    prepared: tuple[Any, ...],
    solver: PaperAdam,
    start: Start,
    key: Key[Array, ""],
) -> Solution:
    dtype = activations.dtype
    codes, dictionary = start(activations, rank, signed=False, key=key)
    unit = jnp.asarray(2 / activations.size, dtype)
    terms = objective.in_dtype(dtype).terms
    known = tuple(one.term.recalled(mine, activations) for one, mine in zip(terms, prepared, strict=True))

    def loss(factors: Factors) -> Number:
        value = objective.quadratic.value(activations, *factors)
        for weighted, mine in zip(terms, known, strict=True):
            value = value + weighted.weight * weighted.term.value(mine, *factors)
        return unit * value

    optimizer = optax.adam(solver.learning_rate)
    first = (codes.T, dictionary)
    values = jnp.zeros((solver.max_steps + 1,), dtype)

    def going(carry: tuple[Any, ...]) -> Array:
        _, _, values, step = carry
        change = jnp.abs(values[step - 1] - values[jnp.maximum(step - 2, 0)])
        # Written so that NaN stops it too.
        return (step < solver.max_steps) & ((step < 2) | (change >= solver.atol))

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        factors, memory, values, step = carry
        value, slope = jax.value_and_grad(loss)(factors)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, memory = optimizer.update(slope, memory, factors)
        factors = jax.tree.map(lambda x: jnp.maximum(x, 0), optax.apply_updates(factors, updates))
        return factors, memory, values.at[step].set(value), step + 1

    begin = (first, optimizer.init(first), values, jnp.zeros((), jnp.int32))
    (codes, dictionary), _, values, steps = jax.lax.while_loop(going, advance, begin)
    values = values.at[steps].set(loss((codes, dictionary)))
    final = loss((codes, dictionary)) / unit
    residual = kkt_residual(activations, codes, dictionary, objective=objective.with_terms(terms)).scaled
    ended = jnp.where(steps < solver.max_steps, RESULTS.settled.value, RESULTS.max_steps_reached.value)
    history = begun(final, residual, solver.rtol, solver.max_steps)
    history = dataclasses.replace(
        history, step=steps, code=ended, objectives=values / unit, residuals=jnp.full_like(values, -1)
    )
    return history.solution(codes.T, dictionary, final, residual)
