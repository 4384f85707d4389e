"""Vector–Jacobian products of a solution without autodiff, with statistics of the linear solve."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..support.arguments import flag, instance, several, shown
from ..support.precision import full_precision
from ..support.reprs import short_repr
from ..support.scaling import positive
from . import validate
from .derivative.adjoints import ImplicitAdjoint, refined
from .derivative.conditions import Conditions, at_scale
from .derivative.jaxopt_rootfinding import root_vjp
from .derivative.root import Root, RootFunction
from .magnitude import unit_of
from .objective import Objective, SquaredError
from .results import RESULTS, Result
from .settings import check_adjoint
from .shapes import Activations, Columns, Factors, Number
from .solution import Solution, normalized
from .terms import lambda_weights

Cotangents = tuple[Float[Array, "_ _"], Float[Array, "_ _"]]
Pulled = tuple[tuple[Activations, Objective], "DerivativeStats"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DerivativeStats:
    """How healthy a derivative is.

    **Arguments:**

    - `gap`: the smallest distance of an entry from its kink, where it changes between zero and positive: how far
        the entry, or the negative entry that its bound holds back, is from zero, relative to the largest of its
        concept. Finite differences have to stay below it.
    - `degenerate_codes`, `degenerate_dictionary`: entries at the kink, up to the square root of the dtype's
        resolution; their derivative is one-sided.
    - `free`: entries that move.
    - `still`: positive entries that don't, because their concept is dead or depends on others.
    - `steps`: of conjugate gradients.
    - `residual`: what they left of the right-hand side, relative to it.
    - `indefinite`: whether a direction of negative curvature was met: the factors aren't at a minimum.
    - `result`: `RESULTS.successful`, `RESULTS.derivative_inexact`, `RESULTS.derivative_undefined` (the factorization
        isn't unique, and the cotangent sees that), `RESULTS.derivative_unsettled` (the factors couldn't be refined),
        or `RESULTS.nonfinite`.
    """

    gap: Number
    degenerate_codes: Int[Array, ""]
    degenerate_dictionary: Int[Array, ""]
    free: Int[Array, ""]
    still: Int[Array, ""]
    steps: Int[Array, ""]
    residual: Number
    indefinite: Array
    result: Result

    __repr__ = short_repr


@full_precision
def implicit_vjp(
    activations: Activations,
    solution: Solution,
    cotangents: Cotangents,
    *,
    objective: Objective = SquaredError(),  # noqa: B008 (settings: frozen)
    adjoint: ImplicitAdjoint = ImplicitAdjoint(rtol=1e-6, refinements=0),  # noqa: B008
    signed_dictionary: bool = False,
) -> Pulled:
    """A cotangent of a solution's codes and dictionary pulled back to activations and objective, with how it went.

    What `jax.vjp` of `factorize` does, for those who want a result code instead of an error, or have the solution
    already. Never raises for a system that can't be solved: the best that was found comes back.

    **Arguments:**

    - `activations`, `objective`: what was factorized.
    - `solution`: what came out.
    - `cotangents`: of `solution.codes` and `solution.dictionary`.
    - `adjoint`: its tolerance and numbers of steps. By default the solution is taken as it is; with `refinements` it's
        refined first, as `jax.vjp` does.
    - `signed_dictionary`: whether the solver was one such as `SemiNMF`.

    **Returns:** ((cotangent of the activations, of the objective), how it went). Raises `ValueError` for shapes
    that don't fit, and for what is no solution, no pair of cotangents or no objective.

    **Example:**

    >>> found = fj.factorize(A, 3)
    >>> cotangents = jnp.ones_like(found.codes), jnp.zeros_like(found.dictionary)
    >>> (of_activations, of_objective), stats = fj.implicit_vjp(A, found, cotangents)
    >>> of_activations.shape
    (60, 12)
    """
    conditions, solution = _checked(activations, solution, objective, adjoint, signed_dictionary)
    pair = several("cotangents", cotangents, "cotangents, one of the codes and one of the dictionary")
    if len(pair) != 2:
        raise ValueError(f"cotangents has {len(pair)} entries; give two, one of the codes and one of the dictionary")
    of_codes = validate.matrix("cotangents[0]", pair[0], "row × concept")
    of_dictionary = validate.matrix("cotangents[1]", pair[1], "concept × channel")
    shapes, wanted = [of_codes.shape, of_dictionary.shape], [solution.codes.shape, solution.dictionary.shape]
    if shapes != wanted:
        raise ValueError(
            f"cotangents have shapes {shapes} and the solution's codes and dictionary {wanted}; give one of the codes' "
            "shape and one of the dictionary's"
        )
    dtype = conditions.activations.dtype
    return _pulled_back(adjoint, conditions, solution, (of_codes.astype(dtype), of_dictionary.astype(dtype)))


@full_precision
def derivative_stats(
    activations: Activations,
    solution: Solution,
    *,
    objective: Objective = SquaredError(),  # noqa: B008 (settings: frozen)
    adjoint: ImplicitAdjoint = ImplicitAdjoint(rtol=1e-6, refinements=0),  # noqa: B008
    signed_dictionary: bool = False,
) -> DerivativeStats:
    """Whether a solution can be differentiated: entries at a kink, dependent concepts, and how a solve goes.

    Takes one derivative, for a cotangent in which all entries have a part.

    **Arguments:** as for `implicit_vjp`.

    **Returns:** the stats. Raises `ValueError` as `implicit_vjp` does.

    **Example:**

    >>> stats = fj.derivative_stats(A, fj.factorize(A, 3))
    >>> int(stats.free) > 0, float(stats.residual) < 1e-3
    (True, True)
    """
    conditions, solution = _checked(activations, solution, objective, adjoint, signed_dictionary)
    keys, factors = jax.random.split(jax.random.key(0)), (solution.codes, solution.dictionary)
    drawn = [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, factors, strict=True)]
    of_codes, of_dictionary = (x.astype(conditions.activations.dtype) for x in drawn)
    return _pulled_back(adjoint, conditions, solution, (of_codes, of_dictionary))[1]


def _checked(
    activations: Any, solution: Any, objective: Any, adjoint: Any, signed_dictionary: Any
) -> tuple[Conditions, Solution]:
    """A solution and what it has to fulfil; raises `ValueError` where they don't fit together."""
    activations = validate.matrix("activations", activations, "row × channel")
    instance("solution", solution, Solution, "the result of factorize")
    instance("adjoint", adjoint, ImplicitAdjoint, "ImplicitAdjoint()")
    check_adjoint(adjoint)
    flag("signed_dictionary", signed_dictionary)
    codes = validate.matrix("solution.codes", solution.codes, "row × concept")
    dictionary = validate.matrix("solution.dictionary", solution.dictionary, "concept × channel")
    if codes.shape[0] != activations.shape[0] or dictionary.shape != (codes.shape[1], activations.shape[1]):
        raise ValueError(
            f"solution has codes of shape {codes.shape} and a dictionary of shape {dictionary.shape}, which don't make "
            f"activations of shape {activations.shape}; give the solution of these activations"
        )
    if jnp.shape(solution.scale) != (codes.shape[1],):
        raise ValueError(
            f"solution.scale={shown(solution.scale)} isn't one number for each of {codes.shape[1]} concepts; give the "
            "solution as factorize returned it"
        )
    objective = validate.misfit(objective)
    validate.unsigned(objective, signed=signed_dictionary)
    validate.penalties(objective, both=True, signed=signed_dictionary)
    fit = validate.weights_of(objective, activations)
    validate.divergence_defined("activations", activations, fit)
    for weighted in lambda_weights.active(objective):
        weighted.term.check(activations)
    rtol = adjoint.tolerance(1e-6, activations.dtype)
    conditions = Conditions(activations, fit.with_terms(objective.terms), rtol, signed_dictionary)
    return conditions, dataclasses.replace(solution, codes=codes, dictionary=dictionary)


def _pulled_back(adjoint: ImplicitAdjoint, conditions: Conditions, solution: Solution, cotangents: Factors) -> Pulled:
    """What `implicit_vjp` returns for arguments that are checked."""
    if conditions.objective.terms:
        return _refined_vjp(adjoint, conditions, solution, cotangents)
    # Where squares stay in range, and back by the chain rule.
    activations, objective = conditions.dense, conditions.objective
    unit = unit_of(activations, objective)
    (scaled, inside), back = jax.vjp(unit.into, activations, objective.in_dtype(activations.dtype))
    there = dataclasses.replace(solution, codes=solution.codes / unit.whole, scale=solution.scale / unit.root)
    conditions = dataclasses.replace(conditions, activations=scaled, objective=inside)
    pulled, stats = _refined_vjp(adjoint, conditions, there, (cotangents[0] * unit.whole, cotangents[1]))
    return back(pulled), stats


def _refined_vjp(adjoint: ImplicitAdjoint, conditions: Conditions, solution: Solution, cotangents: Factors) -> Pulled:
    """The pullback at the solution, which is refined first if the adjoint wants that."""
    near = settled = jnp.ones((), bool)
    if adjoint.refinements:
        solution, near, settled = _refined(adjoint, conditions, solution)
    gradients, stats = _implicit_vjp(adjoint.max_steps, conditions, solution, cotangents)
    code = stats.result.code
    last = (code == RESULTS.nonfinite.value) | (near & (settled | (code == RESULTS.derivative_undefined.value)))
    code = jnp.where(last, code, RESULTS.derivative_unsettled.value).astype(jnp.int32)
    return gradients, dataclasses.replace(stats, result=Result(code))


@partial(jax.jit, static_argnums=0)
def _refined(
    adjoint: ImplicitAdjoint, conditions: Conditions, solution: Solution
) -> tuple[Solution, Bool[Array, ""], Bool[Array, ""]]:
    factors = at_scale(solution.codes, solution.dictionary, solution.scale)
    factors, near, settled = refined(adjoint, conditions.in_dtype, factors)
    return solution.with_factors(*factors), near, settled


@partial(jax.jit, static_argnums=0)
def _implicit_vjp(max_steps: int, conditions: Conditions, solution: Solution, cotangents: Factors) -> Pulled:
    conditions, factors = conditions.in_dtype, at_scale(solution.codes, solution.dictionary, solution.scale)

    def lengths(codes: Array, dictionary: Array) -> tuple[Array, Array]:
        codes, dictionary, _ = normalized(codes.T, dictionary)
        return codes.T, dictionary

    pulled = jax.vjp(lengths, *factors)[1](cotangents)
    root = Root(conditions, factors)
    equations, told = RootFunction(conditions, root.hessian.masks), []

    def solve(_: object, rhs: Factors) -> Factors:
        x, stats = root.solve(rhs, max_steps, transposed=True)
        told.append(stats)
        return x

    gradients = equations.whole(root_vjp(equations, factors, equations.parts(), pulled, solve=solve), jnp.zeros_like)
    stats = told[0]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradients)]))
    code = jnp.where(stats.solved, RESULTS.successful.value, RESULTS.derivative_inexact.value)
    code = jnp.where(stats.defined, code, RESULTS.derivative_undefined.value)
    code = jnp.where(finite, code, RESULTS.nonfinite.value).astype(jnp.int32)
    wanted = conditions.targets(factors)
    of_codes, of_dictionary = _distances(wanted[0].T, factors[0].T), _distances(wanted[1], factors[1])
    close = jnp.sqrt(jnp.finfo(conditions.activations.dtype).eps)
    free = [jnp.sum(mask, dtype=jnp.int32) for mask in root.hessian.masks]
    nonzero = [jnp.sum(x != 0, dtype=jnp.int32) for x in factors]
    return gradients, DerivativeStats(
        gap=jnp.minimum(jnp.min(of_codes), jnp.min(of_dictionary)),
        degenerate_codes=jnp.sum(of_codes <= close, dtype=jnp.int32),
        degenerate_dictionary=jnp.sum(of_dictionary <= close, dtype=jnp.int32),
        free=free[0] + free[1],
        still=nonzero[0] + nonzero[1] - free[0] - free[1],
        steps=stats.steps,
        residual=stats.residual,
        indefinite=stats.indefinite,
        result=Result(code),
    )


def _distances(wanted: Columns, x: Columns) -> Columns:
    """From the kink, relative to the largest of each concept; infinite where a whole concept is zero."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    return jnp.where(largest > 0, jnp.abs(wanted) / positive(largest), jnp.inf)
