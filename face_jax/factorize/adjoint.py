"""How a factorization is differentiated: through its conditions, through its steps, or not at all."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .cg import Account
from .conditions import at_scale, equations, in_dtype
from .hessian import Factors, Hessian, hessian_at
from .jaxopt_rootfinding import root_jvp
from .objective import Objective, Scalar, SquaredError
from .results import RESULTS, FactorizationError
from .solution import Solution, normalized

Activations = Float[Array, "row channel"]
AnyObjective = SquaredError | Objective


class Adjoint(abc.ABC):
    """A way of differentiating a factorization."""

    @property
    def unrolled(self) -> bool:
        """Whether the solver's loop itself has to be differentiable, which costs memory for each step."""
        return False

    @abc.abstractmethod
    def through(
        self,
        solve: Callable[[Activations, AnyObjective], Solution],
        activations: Activations,
        objective: AnyObjective,
        *,
        rtol: Scalar,
        signed_dictionary: bool,
    ) -> Solution:
        """The solution, with derivatives attached to its codes, dictionary and scale."""


@dataclasses.dataclass(frozen=True)
class StopGradient(Adjoint):
    """No derivative: the solution counts as constant."""

    def through(
        self,
        solve: Callable[[Activations, AnyObjective], Solution],
        activations: Activations,
        objective: AnyObjective,
        *,
        rtol: Scalar,
        signed_dictionary: bool,
    ) -> Solution:
        """The solution of constants."""
        return solve(*jax.lax.stop_gradient((activations, objective)))


@dataclasses.dataclass(frozen=True)
class UnrolledAdjoint(Adjoint):
    """Through all of the solver's steps, as if the loop were written out: to check the implicit derivative with.

    Needs memory for `max_steps` steps and always runs so many. The derivative is as exact as the steps have
    converged. The start counts as constant.
    """

    @property
    def unrolled(self) -> bool:
        """True."""
        return True

    def through(
        self,
        solve: Callable[[Activations, AnyObjective], Solution],
        activations: Activations,
        objective: AnyObjective,
        *,
        rtol: Scalar,
        signed_dictionary: bool,
    ) -> Solution:
        """The solution; what's told about it counts as constant."""
        solution = solve(activations, objective)
        return dataclasses.replace(solution, stats=jax.lax.stop_gradient(solution.stats))


@dataclasses.dataclass(frozen=True)
class ImplicitAdjoint(Adjoint):
    """Through the Karush–Kuhn–Tucker conditions of the whole problem, in which codes and dictionary both move.

    The default. On the free set F of positive entries `H_FF d(U, W)_F = −∂_θ ∇f dθ` is solved by preconditioned
    conjugate gradients, H being the full Hessian of the objective, θ the activations and every array of the
    objective: penalties, weights, and what its terms hold. Both modes, in memory that doesn't grow with the
    solver's steps. The derivative is as exact as the factors are, so ask the solver for a small `rtol`.

    Where there is no derivative a one-sided one is taken: an entry of zero whose multiplier is zero stays zero;
    concepts that no row uses stand still; of concepts that depend on earlier ones, such as duplicates, the later
    ones stand still. `derivative_stats` counts these. (Without penalties `scale` means nothing; its derivative is
    zero.)

    **Arguments:**

    - `rtol`: of the linear system, relative to its right-hand side; None takes the solver's, as far as the dtype
        allows (its resolution to the power 0.6: 7e-5 in float32).
    - `max_steps`: of conjugate gradients; a step costs as much as one of the solver.
    - `throw`: raise when the system wasn't solved to `rtol`: the runtime's error, with `FactorizationError` in it.
        Otherwise the best that was found is used, and `derivative_stats` or `implicit_vjp` tell.

    Fel et al. 2023 (CRAFT), section 3.3; the root finding is jaxopt's (Blondel et al. 2022).
    """

    rtol: float | None = None
    max_steps: int = 1000
    throw: bool = True

    def through(
        self,
        solve: Callable[[Activations, AnyObjective], Solution],
        activations: Activations,
        objective: AnyObjective,
        *,
        rtol: Scalar,
        signed_dictionary: bool,
    ) -> Solution:
        """The solution of constants, then the conditions' derivative attached to it."""
        solution = solve(*jax.lax.stop_gradient((activations, objective)))
        tolerance = self.tolerance(rtol, activations.dtype)
        return _attach(self, signed_dictionary, tolerance, solution, activations, objective)

    def tolerance(self, rtol: Scalar, dtype: jnp.dtype) -> Float[Array, ""]:
        """Its own or the solver's, as far as the dtype allows."""
        if self.rtol is not None:
            return jnp.asarray(self.rtol).astype(dtype)
        return jnp.maximum(jnp.asarray(rtol).astype(dtype), float(jnp.finfo(dtype).eps) ** 0.6)


@partial(jax.jit, static_argnums=(0, 1))
def _attach(
    adjoint: ImplicitAdjoint,
    signed_dictionary: bool,
    rtol: Float[Array, ""],
    solution: Solution,
    activations: Activations,
    objective: AnyObjective,
) -> Solution:
    solution = jax.lax.stop_gradient(solution)
    objective = in_dtype(objective, activations.dtype)
    factors = at_scale(solution.codes, solution.dictionary, solution.scale)
    codes, dictionary = _rooted(
        adjoint, signed_dictionary, jax.lax.stop_gradient(rtol), factors, activations, objective
    )
    codes, dictionary, scale = normalized(codes.T, dictionary)
    return dataclasses.replace(solution, codes=codes.T, dictionary=dictionary, scale=scale)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _rooted(
    adjoint: ImplicitAdjoint,
    signed_dictionary: bool,
    rtol: Float[Array, ""],
    factors: Factors,
    activations: Activations,
    objective: AnyObjective,
) -> Factors:
    """The factors, as the root of the equations that they fulfil."""
    del adjoint, signed_dictionary, rtol, activations, objective
    return factors


@_rooted.defjvp
def _rooted_jvp(
    adjoint: ImplicitAdjoint, signed_dictionary: bool, primals: tuple, tangents: tuple
) -> tuple[Factors, Factors]:
    # The tangents of the tolerance and of the factors themselves are zero: they come from constants.
    rtol, _, activations, objective = primals
    factors = _rooted(adjoint, signed_dictionary, *primals)
    root = Root(factors, activations, objective, signed_dictionary)

    def solve(matvec: Callable[[Factors], Factors], right: Factors) -> Factors:
        def either(transposed: bool) -> Callable[[object, Factors], Factors]:
            def run(_: object, right: Factors) -> Factors:
                x, account = root.solve(right, rtol, adjoint.max_steps, transposed=transposed)
                return checked(x, account) if adjoint.throw else x

            return run

        return jax.lax.custom_linear_solve(matvec, right, either(False), either(True))

    _, moved = root.parts(tangents[2:])
    return factors, root_jvp(root.optimality, factors, root.parameters, moved, solve=solve)


class Root:
    """The factors as the root of an equation, in the form that jaxopt's root finding takes.

    Entries that aren't free have the equation `x = 0`, and don't enter those of the others.
    """

    def __init__(
        self, factors: Factors, activations: Activations, objective: AnyObjective, signed_dictionary: bool
    ) -> None:
        self._leaves, self._tree = jax.tree.flatten((activations, objective))
        self._real = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in self._leaves]
        self.parameters = tuple(leaf for leaf, real in zip(self._leaves, self._real, strict=True) if real)
        self.hessian: Hessian = hessian_at(objective, activations, *factors, signed_dictionary=signed_dictionary)

    def parts(self, tree: Any) -> tuple[Any, tuple]:
        """Of something shaped like (activations, objective): nothing, and what belongs to `parameters`."""
        leaves = jax.tree.leaves(tree)
        return None, tuple(leaf for leaf, real in zip(leaves, self._real, strict=True) if real)

    def whole(self, parts: tuple, rest: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
        """(activations, objective) from their parameters."""
        given = iter(parts)
        leaves = [next(given) if real else rest(leaf) for leaf, real in zip(self._leaves, self._real, strict=True)]
        return jax.tree.unflatten(self._tree, leaves)

    def optimality(self, factors: Factors, *parameters: Array) -> Factors:
        """Zero at the root, for these parameters."""
        activations, objective = self.whole(parameters)
        masks = self.hessian.masks
        inside = jax.tree.map(lambda mask, x: jnp.where(mask, x, 0), masks, factors)
        slopes = equations(objective, activations, *inside)
        return jax.tree.map(lambda mask, slope, x: jnp.where(mask, slope, x), masks, slopes, factors)

    def solve(
        self, right: Factors, rtol: Float[Array, ""], max_steps: int, *, transposed: bool
    ) -> tuple[Factors, Account]:
        """The solution with the equations' derivative, or its transposed."""
        x, account = self.hessian.solve(right, rtol=rtol, max_steps=max_steps, transposed=transposed)
        masks = self.hessian.masks
        return jax.tree.map(lambda mask, inside, b: jnp.where(mask, inside, b), masks, x, right), account


def checked(x: Factors, account: Account) -> Factors:
    """The same; raises if the system wasn't solved."""

    def check(residual: Any, solved: Any) -> Any:
        if not np.all(solved):
            raise FactorizationError(f"{RESULTS.derivative_inexact.message} (residual {float(np.max(residual)):.1e})")
        # float64 that was switched on for one thread only isn't on in the thread of callbacks.
        return np.asarray(residual, account.residual.dtype)

    # A value that the result depends on, so that the check can't be dropped.
    shape = jax.ShapeDtypeStruct((), account.residual.dtype)
    residual = jax.pure_callback(check, shape, account.residual, account.solved, vmap_method="expand_dims")
    return jax.tree.map(lambda leaf: jnp.where(residual >= 0, leaf, jnp.nan), x)
