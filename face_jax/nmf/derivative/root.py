"""The factors as the root of an equation, in the form of jaxopt's root finding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..linalg.conjugate_gradients import CGStats
from ..objective import Objective
from .conditions import equations, targets
from .hessian import Factors, Hessian, Masks, hessian_at
from .mixing import Mixtures, mixtures

Activations = Float[Array, "row channel"]


class Parameters:
    """The leaves of (activations, objective) that have derivatives, apart from the others."""

    def __init__(self, tree: Any) -> None:
        self._leaves, self._tree = jax.tree.flatten(tree)
        self._real = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in self._leaves]

    def parts(self, tree: Any = None) -> tuple:
        """Of something of the same shape, or of the tree itself: what belongs to such leaves."""
        leaves = self._leaves if tree is None else jax.tree.leaves(tree)
        return tuple(leaf for leaf, real in zip(leaves, self._real, strict=True) if real)

    def whole(self, parts: tuple, rest: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
        """The tree with these parts in it."""
        given = iter(parts)
        leaves = [next(given) if real else rest(leaf) for leaf, real in zip(self._leaves, self._real, strict=True)]
        return jax.tree.unflatten(self._tree, leaves)


class Root:
    """The factors as the root of an equation, in the form that jaxopt's root finding takes."""

    def __init__(
        self, factors: Factors, activations: Activations, objective: Objective, signed_dictionary: bool
    ) -> None:
        self.parameters = Parameters((activations, objective))
        self._factors = factors
        self.hessian: Hessian = hessian_at(objective, activations, *factors, signed_dictionary=signed_dictionary)
        wanted = targets(objective, activations, *factors, signed_dictionary=signed_dictionary)
        self.mixtures: Mixtures = mixtures(
            objective, factors, wanted, self.hessian.masks, signed_dictionary=signed_dictionary
        )

    def optimality(self, factors: Factors, *leaves: Array) -> Factors:
        """Zero at the root, for these parameters."""
        return equations_on(self.hessian.masks, factors, *self.parameters.whole(leaves))

    def solve(
        self, rhs: Factors, rtol: Float[Array, ""], max_steps: int, *, transposed: bool
    ) -> tuple[Factors, CGStats]:
        """The solution with the equations' derivative, or its transposed.

        Where concepts can be mixed, a cotangent has an answer if it doesn't see that. A tangent never has: what will
        be made of the factors isn't known yet.
        """
        x, stats = self.hessian.solve(rhs, rtol=rtol, max_steps=max_steps, transposed=transposed)
        defined = self.mixtures.count == 0
        if transposed:
            share = self.mixtures.share(rhs, self._factors)
            defined = defined | (share <= jnp.maximum(rtol, float(jnp.finfo(rtol.dtype).eps) ** 0.6))
        stats = dataclasses.replace(stats, defined=defined, solved=stats.solved & defined)
        masks = self.hessian.masks
        return jax.tree.map(lambda mask, inside, b: jnp.where(mask, inside, b), masks, x, rhs), stats


# Compiled by themselves, so that all but the check of the solution is the same program each time.
@partial(jax.jit, static_argnums=(0, 1, 2))
def solution_of(
    max_steps: int,
    signed_dictionary: bool,
    transposed: bool,
    rtol: Float[Array, ""],
    factors: Factors,
    activations: Activations,
    objective: Objective,
    rhs: Factors,
) -> tuple[Factors, CGStats]:
    """The solution of the system at these factors, as `Root.solve` says."""
    return Root(factors, activations, objective, signed_dictionary).solve(rhs, rtol, max_steps, transposed=transposed)


@partial(jax.jit, static_argnums=0)
def masks_at(signed_dictionary: bool, factors: Factors, activations: Activations, objective: Objective) -> Masks:
    """The entries that the derivative moves."""
    return hessian_at(objective, activations, *factors, signed_dictionary=signed_dictionary).masks


@jax.jit
def equations_on(masks: Masks, factors: Factors, activations: Activations, objective: Objective) -> Factors:
    """Zero at the root, for these parameters; entries that aren't free have the equation `x = 0`."""
    inside = jax.tree.map(lambda mask, x: jnp.where(mask, x, 0), masks, factors)
    slopes = equations(objective, activations, *inside)
    return jax.tree.map(lambda mask, slope, x: jnp.where(mask, slope, x), masks, slopes, factors)
