"""The history of a solver's loop: objective values, extrapolation, and the reason why it ended."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..linalg.control_flow import after
from ..linalg.line_search import select
from ..support.scaling import positive
from ..support.watched_steps import tell_step
from .results import RESULTS, Result, measured
from .shapes import CodesT, Dictionary, Number, Scalar
from .solution import Solution, Stats, count_dead, count_duplicated, normalized

# Ang & Gillis 2019, section 3.3: growth of the extrapolation, growth of its bound, cut at a restart.
_FIRST, _GROWTH, _BOUND_GROWTH, _CUT = 0.5, 1.05, 1.01, 1.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """Where a loop is, and how it came there.

    **Arguments:**

    - `objective`, `residual`: of the factors accepted last.
    - `beta`, `bound`: how far steps are extrapolated, and at most will be.
    - `rejected`: steps taken back in a row; `restarts`: all that were.
    - `step`: steps done; `code`: the result's, -1 as long as the loop goes on.
    - `objectives`, `residuals`: of the start and of each step; 0 behind the last.
    """

    objective: Number
    residual: Number
    beta: Number
    bound: Number
    rejected: Int[Array, ""]
    restarts: Int[Array, ""]
    step: Int[Array, ""]
    code: Int[Array, ""]
    objectives: Float[Array, " step"]
    residuals: Float[Array, " step"]

    def going(self, max_steps: int | Int[Array, ""]) -> Bool[Array, ""]:
        """Whether there is more to do."""
        return (self.code < 0) & (self.step < max_steps)

    def of_length(self, max_steps: int) -> History:
        """The same with room for so many steps."""
        more = max_steps + 1 - len(self.objectives)

        def resized(values: Float[Array, " before"]) -> Float[Array, " behind"]:
            return jnp.pad(values, (0, more)) if more > 0 else values[: max_steps + 1]

        return dataclasses.replace(self, objectives=resized(self.objectives), residuals=resized(self.residuals))

    @property
    def extrapolation(self) -> Number:
        """How far the next step is extrapolated: not at all behind one that was taken back."""
        return jnp.where(self.rejected > 0, 0, self.beta)

    def after(
        self,
        accepted: Bool[Array, ""],
        objective: Number,
        residual: Number,
        *,
        rtol: Scalar,
        patience: int,
        finite: Bool[Array, ""],
        still: Bool[Array, ""] | bool = False,
    ) -> History:
        """One step later.

        **Arguments:**

        - `accepted`: whether the step is kept; `objective`, `residual`: what it came to.
        - `rtol`: the residual to end at.
        - `patience`: steps that may be taken back in a row; at one more the loop has stalled.
        - `finite`: whether the step came to numbers at all.
        - `still`: whether the step changed nothing, so that no further one can help.

        **Returns:** the history with this step in it.
        """
        keep = partial(select, accepted)
        rejected = jnp.where(accepted, 0, self.rejected + 1).astype(jnp.int32)
        code = jnp.where(accepted & (residual <= rtol), RESULTS.successful.value, -1)
        code = jnp.where((rejected > patience) | still, RESULTS.stalled.value, code)
        code = jnp.where(finite, code, RESULTS.nonfinite.value)
        objective, residual = keep(objective, self.objective), keep(residual, self.residual)
        grown = jnp.minimum(self.bound, _GROWTH * self.beta)
        tell_step(self.step + 1, residual, objective / positive(self.objectives[0]))
        return History(
            objective=objective,
            residual=residual,
            beta=keep(jnp.where(self.rejected > 0, self.beta, grown), self.beta / _CUT),
            bound=keep(jnp.minimum(1, _BOUND_GROWTH * self.bound), self.beta),
            rejected=rejected,
            restarts=self.restarts + jnp.where(accepted, 0, 1).astype(jnp.int32),
            step=self.step + 1,
            code=code.astype(jnp.int32),
            objectives=self.objectives.at[self.step + 1].set(objective),
            residuals=self.residuals.at[self.step + 1].set(residual),
        )

    def solution(
        self, codes: CodesT, dictionary: Dictionary, value: Number, residual: Number, unit: Scalar = 1.0
    ) -> Solution:
        """The factors at unit length with what is told about them.

        **Arguments:**

        - `codes`, `dictionary`: the factors, concepts first.
        - `value`, `residual`: objective and scaled KKT residual, measured at these.
        - `unit`: what objectives are multiplied by.

        **Returns:** the solution.
        """
        ended = jnp.where(self.code < 0, RESULTS.max_steps_reached.value, self.code)
        ended = jnp.where(jnp.isfinite(value), ended, RESULTS.nonfinite.value).astype(jnp.int32)
        # The objective may come from a branch in which devices add something up. Whatever else they are asked for comes
        # afterwards, never meanwhile: see `after`.
        codes, dictionary, scale = normalized(after(codes, value), dictionary)
        stats = Stats(
            objective=filled(self.objectives, self.step) * unit,
            residual=filled(self.residuals, self.step),
            steps=self.step,
            restarts=self.restarts,
            final_objective=value * unit,
            final_residual=residual,
            dead=count_dead(codes),
            duplicated=count_duplicated(dictionary),
        )
        return Solution(codes.T, dictionary, scale, Result(measured(ended, stats.final_objective)), stats)


def filled(values: Float[Array, " step"], last: Int[Array, ""]) -> Float[Array, " step"]:
    """The values up to the last step, and that one's behind it."""
    return jnp.where(jnp.arange(len(values), dtype=last.dtype) > last, values[last], values)


def begun(objective: Number, residual: Number, rtol: Scalar, max_steps: int, extrapolate: bool = False) -> History:
    """The history of a start that came to this objective and residual."""
    dtype = objective.dtype
    empty = jnp.zeros((max_steps + 1,), dtype)
    arrived = jnp.where(residual <= rtol, RESULTS.successful.value, -1)
    return History(
        objective=objective,
        residual=residual,
        beta=jnp.asarray(_FIRST if extrapolate else 0.0, dtype),
        bound=jnp.ones((), dtype),
        rejected=jnp.zeros((), jnp.int32),
        restarts=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
        code=jnp.where(jnp.isfinite(objective), arrived, RESULTS.nonfinite.value).astype(jnp.int32),
        objectives=empty.at[0].set(objective),
        residuals=empty.at[0].set(residual),
    )
