"""Checks of solvers, starts and adjoints before any work: what would fail, or never end, is refused."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from jax.core import Tracer

from ..support.arguments import check_count, flag, instance, real, shown, whole
from .derivative.adjoints import Adjoint, ImplicitAdjoint
from .objective import SquaredError
from .options import AnySolver, AnyStart
from .solvers.minibatch import MiniBatch
from .solvers.paper_adam import PaperAdam
from .solvers.shifted_systems import ConjugateGradient, LinearSolver
from .solvers.starts import NNDSVD, Start
from .solvers.update_rules import ADMM, SemiNMF, Solver
from .solvers.warmup import Warmup

_SOLVERS = "ADMM(), HALS(), MultiplicativeUpdate(), SemiNMF() or PaperAdam()"
Default = TypeVar("Default")
# The price of codes of concepts of either sign, as a share of a row's size. By 1 % held-out error is 4 % less and
# stability over halves 0.04 less, by 4 % concepts begin to die (DeiT-tiny and MobileNetV3, rank 15).
_SPARSITY = 0.02

_STARTS = "Warmup(), MiniBatch(), NNDSVD(), NNDSVDa(), NNDSVDar(), Random() or Given(codes, dictionary)"
_LEAST_OF = {"sweeps": 0, "inner": 0, "passes": 0, "oversample": 0, "steps": 1}


def check_solver(solver: Any, name: str = "solver") -> Any:
    """A solver whose settings make sense; raises `ValueError` for words, classes and numbers out of range."""
    instance(name, solver, (Solver, PaperAdam), _SOLVERS)
    check_count(f"{name}.max_steps", solver.max_steps, "steps")
    if isinstance(solver, PaperAdam):
        real(f"{name}.learning_rate", solver.learning_rate, "learning rate", above=0)
        real(f"{name}.atol", solver.atol, "tolerance", least=0)
        return solver
    _tolerance(f"{name}.rtol", solver.rtol)
    flag(f"{name}.extrapolate", solver.extrapolate)
    _counts(name, solver)
    if isinstance(solver, ADMM):
        instance(f"{name}.linear", solver.linear, LinearSolver, "Cholesky() or ConjugateGradient()")
        if solver.inner + solver.sweeps < 1:
            raise ValueError(f"{name}={solver!r} does nothing; give inner or sweeps of 1 or more")
        if isinstance(solver.linear, ConjugateGradient):
            _counts(f"{name}.linear", solver.linear)
            _tolerance(f"{name}.linear.rtol", solver.linear.rtol)
    elif isinstance(solver, SemiNMF):
        check_solver(instance(f"{name}.codes", solver.codes, Solver, "HALS()"), f"{name}.codes")
    elif getattr(solver, "sweeps", 1) < 1 or getattr(solver, "inner", 1) < 1:
        raise ValueError(f"{name}={solver!r} does nothing; give 1 or more")
    return solver


def check_start(start: Any, name: str = "start") -> Any:
    """A start whose settings make sense; raises `ValueError` for words, classes and numbers out of range."""
    instance(name, start, Start, _STARTS)
    if isinstance(start, NNDSVD):
        _counts(name, start)
    if isinstance(start, MiniBatch):
        check_start(start.start, f"{name}.start")
        check_solver(instance(f"{name}.solver", start.solver, Solver, "ADMM()"), f"{name}.solver")
        check_count(f"{name}.rows", start.rows, "rows")
        check_count(f"{name}.steps", start.steps, "steps")
    if isinstance(start, Warmup):
        check_start(start.start, f"{name}.start")
        check_solver(instance(f"{name}.solver", start.solver, Solver, "ADMM()"), f"{name}.solver")
        stages = start.stages
        if not isinstance(stages, tuple) or not all(isinstance(stage, tuple) and len(stage) == 2 for stage in stages):
            raise ValueError(
                f"{name}.stages={shown(stages)} aren't pairs of a share and a number of steps, such as ((0.25, 5),)"
            )
        for number, (share, steps) in enumerate(stages):
            real(f"{name}.stages[{number}]", share, "share of the rows", above=0, most=1)
            check_count(f"{name}.stages[{number}]", steps, "steps")
    return start


def check_adjoint(adjoint: Any) -> Any:
    """A way of differentiating whose settings make sense."""
    instance("adjoint", adjoint, Adjoint, "ImplicitAdjoint(), StopGradient() or UnrolledAdjoint()")
    if isinstance(adjoint, ImplicitAdjoint):
        if adjoint.rtol is not None:
            real("adjoint.rtol", adjoint.rtol, "tolerance", above=0)
        check_count("adjoint.max_steps", adjoint.max_steps, "steps")
        flag("adjoint.throw", adjoint.throw)
        whole("adjoint.refinements", adjoint.refinements, "steps")
    return adjoint


def solver_or(default: Default, solver: AnySolver | None) -> AnySolver | Default:
    """The solver given, checked; the default if None."""
    return default if solver is None else check_solver(solver)


def start_or(default: Default, start: AnyStart | None) -> AnyStart | Default:
    """The start given, checked; the default if None."""
    return default if start is None else check_start(start)


def usual_solver(*, signed: bool, **settings: Any) -> ADMM | SemiNMF:
    """The solver where none is given: `SemiNMF` for activations below zero, else `ADMM`.

    **Arguments:**

    - `signed`: whether there are such.
    - `settings`: those that both have.
    """
    return SemiNMF(**settings) if signed else ADMM(**settings)


def usual_objective(rows: Any, rank: int, *, signed: bool) -> SquaredError:
    """What explanations minimize where nothing else is asked for: for concepts of either sign with sparse codes.

    A dictionary of either sign reaches the error of the singular vectors, with all codes above zero, and then any
    mixture of its concepts fits as well: other photographs give others. With a price on codes, and one on the concepts'
    lengths so that it can't be dodged, few concepts are in each row, and they are found again (non-negative sparse
    coding; Hoyer 2002).

    **Arguments:**

    - `rows`: what is factorized, `row × channel`; looked at only where concepts are `signed`.
    - `rank`: how many concepts.
    - `signed`: whether these may have entries below zero.

    **Returns:** the squared error; signed, with `l1_codes` of 2 % of a row's size, and the `l2_dictionary` at which
    concepts of unit length are about in balance with it. Both have three digits, which tell the same everywhere.
    """
    if not signed:
        return SquaredError()
    used = np.asarray(rows, np.float64)
    squares = np.einsum("rc,rc->r", used, used)
    squares = squares[squares > 0]
    if not len(squares):
        return SquaredError()
    size = float(np.sqrt(squares.mean()))
    price = _SPARSITY * size
    return SquaredError(l1_codes=_in_three(price), l2_dictionary=_in_three(price * len(squares) * size / rank))


def _in_three(value: float) -> float:
    return float(f"{value:.3g}")


def _counts(name: str, settings: Any) -> None:
    for field, least in _LEAST_OF.items():
        if hasattr(settings, field):
            whole(f"{name}.{field}", getattr(settings, field), "passes", least=least)


def _tolerance(name: str, value: Any) -> None:
    if not isinstance(value, Tracer):
        real(name, value, "tolerance", least=0)
