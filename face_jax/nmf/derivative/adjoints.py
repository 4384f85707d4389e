"""Adjoints: how a factorization is differentiated: through its conditions, through its steps, or not at all."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...support.precision import full_precision
from ..objective import Objective
from ..shapes import Factors, Number, Scalar
from ..solution import Solution
from .conditions import Conditions, at_scale
from .device_errors import checked
from .jaxopt_rootfinding import root_jvp
from .refinement import refine
from .root import RootFunction, masks_at, solution_of

# Of dense or of sparse activations.
Solve = Callable[[Any, Objective], Solution]

_SETTLED = 1e-6  # the scaled KKT residual that factors are refined to, relative to the linear system's tolerance


class Adjoint(abc.ABC):
    """A way of differentiating a factorization."""

    @property
    def unrolled(self) -> bool:
        """Whether the solver's loop itself has to be differentiable, which costs memory for each step."""
        return False

    @abc.abstractmethod
    def through(self, solve: Solve, conditions: Conditions) -> Solution:
        """The solution, with derivatives attached to its codes, dictionary and scale."""


@dataclasses.dataclass(frozen=True)
class StopGradient(Adjoint):
    """No derivative: the solution counts as constant."""

    def through(self, solve: Solve, conditions: Conditions) -> Solution:
        """The solution of constants."""
        return solve(*jax.lax.stop_gradient((conditions.activations, conditions.objective)))


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

    def through(self, solve: Solve, conditions: Conditions) -> Solution:
        """The solution; what's told about it counts as constant."""
        solution = solve(conditions.activations, conditions.objective)
        return dataclasses.replace(solution, stats=jax.lax.stop_gradient(solution.stats))


@dataclasses.dataclass(frozen=True)
class ImplicitAdjoint(Adjoint):
    """Through the Karush–Kuhn–Tucker conditions of the whole problem, in which codes and dictionary both move.

    The default. On the free set F of positive entries `H_FF d(U, W)_F = −∂_θ ∇f dθ` is solved by preconditioned
    conjugate gradients, H being the full Hessian of the objective, θ the activations and every array of the
    objective: penalties, weights, and what its terms hold. Both modes, in memory that doesn't grow with the
    solver's steps.

    A derivative asks more of the factors than a fit does, above all that it's settled which entries are zero. So
    under differentiation, and only then, they are refined by Newton steps first, as far as the dtype allows, and the
    refined ones are the value: `jax.value_and_grad` returns codes and dictionary that belong to their derivative, and
    differ from those without it by what the solver has left open. That is little where it stopped by its tolerance,
    and much where `max_steps` or `PaperAdam`'s rule ended it far from a solution: the value under `grad` is then
    another one, of an objective no higher. `refinements=0` keeps the solver's own. (`result` and `stats` remain the
    solver's.)

    Where the factorization isn't unique (concepts can be mixed with each other without changing the fit, and no zero
    stands in the way) codes and dictionary have no derivative. In backward mode what the product alone decides still
    has one and gets it; anything else is refused, and so is forward mode, where it isn't known yet what will be made
    of the factors.

    Where there is no derivative for another reason a one-sided one is taken: an entry of zero whose multiplier is
    zero stays zero; concepts that no row uses stand still; of concepts that depend on earlier ones, such as
    duplicates, the later ones stand still. `derivative_stats` counts these. (Without penalties `scale` means nothing;
    its derivative is zero.)

    **Arguments:**

    - `rtol`: of the linear system, relative to its right-hand side; None takes the solver's, as far as the dtype
        allows (its resolution to the power 0.6: 7e-5 in float32), and is content with the square root of the
        resolution (3e-4) where the dtype comes no farther.
    - `max_steps`: of conjugate gradients; a step costs as much as one of the solver.
    - `throw`: raise `FactorizationError` when there is no derivative, or the system wasn't solved to `rtol`; under
        `jit` it's the runtime's error with that one's text. Otherwise the best that was found is used, and
        `derivative_stats` or `implicit_vjp` tell.
    - `refinements`: Newton steps at most; 0 differentiates the factors as the solver left them, which took 0.6 instead
        of 1.4 times the forward's time at 1,200 × 512 with 10 concepts, and is as exact as they are.

    Fel et al. 2023 (CRAFT), section 3.3; the root finding is jaxopt's (Blondel et al. 2022).
    """

    rtol: float | None = None
    max_steps: int = 1000
    throw: bool = True
    refinements: int = 150

    def through(self, solve: Solve, conditions: Conditions) -> Solution:
        """The solution of constants, then the conditions' derivative attached to it."""
        solution = StopGradient().through(solve, conditions)
        tolerance = self.tolerance(conditions.rtol, conditions.activations.dtype)
        return _attach(self, dataclasses.replace(conditions, rtol=jax.lax.stop_gradient(tolerance)), solution)

    def tolerance(self, rtol: Scalar, dtype: jnp.dtype) -> Number:
        """Its own or the solver's, as far as the dtype allows."""
        if self.rtol is not None:
            return jnp.asarray(self.rtol).astype(dtype)
        return jnp.maximum(jnp.asarray(rtol).astype(dtype), float(jnp.finfo(dtype).eps) ** 0.6)


def _attach(adjoint: ImplicitAdjoint, conditions: Conditions, solution: Solution) -> Solution:
    solution = jax.lax.stop_gradient(solution)
    factors = at_scale(solution.codes, solution.dictionary, solution.scale)
    return solution.with_factors(*_rooted(adjoint, conditions.in_dtype, factors))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rooted(adjoint: ImplicitAdjoint, conditions: Conditions, factors: Factors) -> Factors:
    """The factors, as the root of the equations that they fulfil."""
    del adjoint, conditions
    return factors


@_rooted.defjvp
@full_precision
def _rooted_jvp(adjoint: ImplicitAdjoint, primals: tuple, tangents: tuple) -> tuple[Factors, Factors]:
    # The tangents of the tolerance and of the factors themselves are zero: they come from constants.
    conditions, factors = primals
    near = settled = jnp.ones((), bool)
    if adjoint.refinements:
        factors, near, settled = refined(adjoint, *jax.lax.stop_gradient(primals))
    factors = _rooted(adjoint, conditions, factors)
    equations = RootFunction(conditions, masks_at(conditions, factors))

    def solve(matvec: Callable[[Factors], Factors], rhs: Factors) -> Factors:
        def either(transposed: bool) -> Callable[[object, Factors], Factors]:
            def run(_: object, rhs: Factors) -> Factors:
                x, stats = solution_of(adjoint.max_steps, transposed, conditions, factors, rhs)
                if adjoint.rtol is None:
                    enough = stats.residual <= float(jnp.finfo(stats.residual.dtype).eps) ** 0.5
                    stats = dataclasses.replace(stats, solved=stats.solved | (stats.defined & enough))
                return checked(x, stats, near, settled) if adjoint.throw else x

            return run

        return jax.lax.custom_linear_solve(matvec, rhs, either(False), either(True))

    return factors, root_jvp(equations, factors, equations.parts(), equations.parts(tangents[0]), solve=solve)


@partial(jax.jit, static_argnums=0)
def refined(
    adjoint: ImplicitAdjoint, conditions: Conditions, factors: Factors
) -> tuple[Factors, Bool[Array, ""], Bool[Array, ""]]:
    """The factors as the derivative needs them, for this tolerance of the linear system; how far they came."""
    rtol = jnp.asarray(conditions.rtol)
    goal = jnp.maximum(_SETTLED * rtol, 8 * float(jnp.finfo(rtol.dtype).eps))
    return refine(conditions, factors, goal=goal, max_rounds=adjoint.refinements)
