"""The factors as the root of an equation, in the form that jaxopt's root finding takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...linalg.conjugate_gradients import CGStats
from ...linalg.control_flow import after
from ..objective import Objective
from ..shapes import Factors, Masks
from .conditions import Conditions, on
from .hessian import Hessian, hessian_at
from .mixing import Mixtures, mixtures


class RootFunction:
    """A function of the factors, and of those leaves of (activations, objective) that have derivatives; 0 at the root.

    **Arguments:**

    - `conditions`: what the factors fulfil.
    - `masks`: the entries that move; the equation of the others is `x = 0`.
    """

    def __init__(self, conditions: Conditions, masks: Masks) -> None:
        self._conditions, self._masks = conditions, masks
        self._leaves, self._tree = jax.tree.flatten((conditions.activations, conditions.objective))
        self._real = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in self._leaves]

    def __call__(self, factors: Factors, *leaves: Array) -> Factors:
        """What the equations leave."""
        activations, objective = self.whole(leaves)
        conditions = dataclasses.replace(self._conditions, activations=activations, objective=objective)
        return _equations_on(conditions, self._masks, factors)

    def parts(self, conditions: Conditions | None = None) -> tuple:
        """Of other conditions of the same kind, such as their tangents, or of these: the leaves with derivatives."""
        leaves = self._leaves
        if conditions is not None:
            leaves = jax.tree.leaves((conditions.activations, conditions.objective))
        return tuple(leaf for leaf, real in zip(leaves, self._real, strict=True) if real)

    def whole(self, parts: tuple, rest: Callable[[Any], Any] = lambda leaf: leaf) -> tuple[Any, Objective]:
        """Activations and objective with these leaves in them."""
        given = iter(parts)
        leaves = [next(given) if real else rest(leaf) for leaf, real in zip(self._leaves, self._real, strict=True)]
        return jax.tree.unflatten(self._tree, leaves)


@jax.jit
def _equations_on(conditions: Conditions, masks: Masks, factors: Factors) -> Factors:
    return conditions.equations_on(masks, factors)


class Root:
    """Linear systems with the equations' derivative at the root, and which mixtures of concepts leave it a root."""

    def __init__(self, conditions: Conditions, factors: Factors) -> None:
        self._conditions, self._factors = conditions, factors
        self.hessian: Hessian = hessian_at(conditions, factors)
        self.mixtures: Mixtures = mixtures(conditions, factors, self.hessian.masks)

    def solve(self, rhs: Factors, max_steps: int, *, transposed: bool) -> tuple[Factors, CGStats]:
        """The solution with the equations' derivative, or its transposed.

        Where concepts can be mixed, a cotangent has an answer if it doesn't see that. A tangent never has: what will
        be made of the factors isn't known yet.
        """
        rtol = jnp.asarray(self._conditions.rtol)
        # The search for mixtures sends sums between devices in a loop, and so does the solve.
        ordered = after(rhs, self.mixtures.count)
        x, stats = self.hessian.solve(ordered, rtol=rtol, max_steps=max_steps, transposed=transposed)
        defined = self.mixtures.count == 0
        if transposed:
            share = self.mixtures.share(rhs, self._factors)
            defined = defined | (share <= jnp.maximum(rtol, float(jnp.finfo(rtol.dtype).eps) ** 0.6))
        stats = dataclasses.replace(stats, defined=defined, solved=stats.solved & defined)
        return on(self.hessian.masks, x, rhs), stats


# Compiled by themselves, so that all but the check of the solution is the same program each time.
@partial(jax.jit, static_argnums=(0, 1))
def solution_of(
    max_steps: int, transposed: bool, conditions: Conditions, factors: Factors, rhs: Factors
) -> tuple[Factors, CGStats]:
    """The solution of the system at these factors, as `Root.solve` says."""
    return Root(conditions, factors).solve(rhs, max_steps, transposed=transposed)


@jax.jit
def masks_at(conditions: Conditions, factors: Factors) -> Masks:
    """The entries that the derivative moves."""
    return hessian_at(conditions, factors).masks
