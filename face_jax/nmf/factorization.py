"""`factorize`: a matrix in, codes and concepts out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from ..blocks.row_blocks import RowBlocks, in_blocks, is_halved
from ..blocks.scratch import Scratch
from ..linalg.row_shards import explicit, in_auto_axes, untyped
from ..support.arguments import Seed, Whole, flag, key_of
from ..support.precision import full_precision
from ..support.progress import Progress, silent
from ..support.progress_line import Watched, progress_of
from ..support.watched_steps import watched_steps
from . import magnitude, stored_derivative, stored_misfit, validate
from .beta_divergence import entry_by_entry
from .checkpoint import Checkpoint, check_checkpoint
from .code_stores import CodeStore, check_codes
from .derivative.adjoints import ImplicitAdjoint
from .derivative.conditions import Conditions
from .memory_needs import check_room
from .objective import Objective, SquaredError
from .observed import observed_alone
from .options import AnyAdjoint, AnyObjective, AnySolver, AnyStart, CodesKept, Kept, Mask, Matrix
from .out_of_core import Told, factorize_blocks
from .results import raise_if_unusable, refused
from .settings import check_adjoint, check_solver, check_start
from .shapes import Activations
from .solution import Solution
from .solvers import kept_loop
from .solvers.solver import Solver
from .solvers.update_rules import ADMM
from .solvers.warmup import Warmup
from .sparse import factorize_sparse, sparse_rows
from .terms import lambda_weights
from .terms.alternation import JOINT_ROWS


@full_precision
def factorize(
    activations: Matrix,
    rank: Whole,
    *,
    objective: AnyObjective = SquaredError(),  # noqa: B008 (settings: frozen)
    solver: AnySolver = ADMM(),  # noqa: B008
    start: AnyStart = Warmup(),  # noqa: B008
    adjoint: AnyAdjoint = ImplicitAdjoint(),  # noqa: B008
    key: Seed = None,
    throw: bool = True,
    codes: CodesKept = None,
    checkpoint: Kept = None,
    progress: Watched = None,
    observed: Mask = None,
) -> Solution:
    """Non-negative factorization `A ≈ U Wᵀ` into `rank` concepts of unit length.

        min ½ ‖A − U Wᵀ‖²  with  U ≥ 0, W ≥ 0

    with the weights, penalties and terms that `objective` adds; U are the codes, the rows of Wᵀ the dictionary.
    `BetaDivergence` takes the squared error's place, such as Kullback and Leibler's for counts.

    A pure function: `jit` (with `rank` static), `vmap` and `grad` apply. Activations in any unit will do: those that
    aren't of ordinary size (largest entry between 2⁻¹⁶ and 2¹⁶) are brought to the order of 1 by a power of two while
    they are factorized, except beside further terms of the objective, whose head wants them as they are.

    Activations that are larger than memory are read block by block, the next while this one is worked on: `RowBlocks`,
    paths, lists of paths, and memory maps and Zarr arrays of more than 64 MiB. The steps are those in memory, and so is
    the solution, to rounding; it can't be traced or differentiated.

    Activations of 16 bits (`bfloat16`, `float16`) are computed with in `float32`, and so is the solution, which is
    exactly that of the numbers as they are: beside the one of `float32` activations, dictionary and objective are off
    by no more than a single entry by its rounding, 2⁻⁹ and 2⁻¹², where concepts are well determined. In memory and of
    more than 64 MiB they stay as they are, and go block by block as larger ones do; smaller ones, and those that are
    traced, on an accelerator or on several devices, are copied to `float32` as a whole.

    Sparse activations (SciPy's matrices, JAX's BCOO) are never made dense: room and time go with their entries. They
    have neither weights of entries nor further terms. `BetaDivergence(1)` is there for them, any β where `observed`
    leaves the entries that aren't stored out, and no other: each unstored zero would be measured by itself. For the
    squared error of all entries `grad` and `jvp` apply to the values that a BCOO stores, to weights of rows and to
    penalties; `jit` and `vmap` don't, nor does any of them to the others.

    **Arguments:**

    - `activations`: `row × channel`, at least 0 except with `SemiNMF`; a NumPy array will do, sparse matrices, and rows
        in blocks.
    - `rank`: how many concepts.
    - `objective`: what's minimized.
    - `solver`: how.
    - `start`: from where.
    - `adjoint`: how the solution is differentiated; costs nothing unless it is. Under `grad` and `jvp` the factors are
        refined first, so that after few steps, or `PaperAdam`, their values differ too: see `ImplicitAdjoint`.
    - `key`: for the start's random numbers, or a seed; `jax.random.key(0)` if None.
    - `throw`: raise `FactorizationError` when the factors came out NaN or infinite, or when values that were only known
        inside `jit` are negative, instead of only saying so in `result`. Running out of steps is told by `result` and
        never raises.
    - `codes`: of rows in blocks, where the codes go: a path that ends in `.npy` or `.zarr`, an array on disk that goes
        with the process if None, or nowhere if False: then they are least squares for the dictionary, made again in
        each pass, which takes no room for them (nor the very steps that are taken in memory), and wherever rows of
        `solution.codes` are read.
    - `checkpoint`: a folder that the state is kept in now and then, or `Checkpoint(folder, steps=…)`, so that a run
        that was killed goes on from there. Activations in memory go block by block then, too; those that are spread
        over devices, by a `jax.NamedSharding` of their rows, stay where they are, and each process keeps its part: all
        of them have to see the folder. There it's for a squared error alone.
    - `progress`: told how far it is, as by `face_jax.explain`: a line on a terminal by default. Of activations in
        memory, on one device and not traced, the compiled loop tells its steps and doesn't wait for that. Of those
        that are spread over devices it's told with `checkpoint=` alone, by the first process.
    - `observed`: where there are missing values: truth values, `row channel`, such as `~np.isnan(activations)`. Entries
        that weren't observed may be anything, NaN too; they have no part in what's minimized, nor in derivatives. Rows
        without any observed entry have codes of zero; each channel needs one. "numbers" means `~np.isnan(activations)`,
        for sparse ones as well, whose unstored entries are zeros. Sparse activations also take "stored", where entries
        that aren't stored weren't observed, and a sparse matrix of truth values, which stores those that were.

    **Returns:** the solution, in the activations' dtype, or `float32` for those of 16 bits.
    Raises `ValueError` before any work for NaN, infinity, negative entries, shapes that don't fit, and settings that
    make no sense.

    **Example:**

    >>> found = fj.factorize(A, 3)
    >>> found.codes.shape, found.dictionary.shape, found.result.message
    ((60, 3), (3, 12), 'The scaled KKT residual fell below the tolerance.')
    >>> def rebuilt(A):
    ...     found = fj.factorize(A, 3)
    ...     return jnp.sum((found.codes @ found.dictionary) ** 2)
    >>> jax.grad(rebuilt)(A).shape
    (60, 12)
    """
    sparse = sparse_rows("activations", stored_derivative.constant(activations))
    if sparse is not None:
        if codes is not None or checkpoint is not None:
            raise ValueError("codes= and checkpoint= aren't there for sparse activations; leave them out")
        check_settings(solver, start, adjoint)
        if adjoint.unrolled:
            raise ValueError("UnrolledAdjoint differentiates steps, and those for sparse rows can't be; leave it out")
        settings: dict[str, Any] = {"objective": objective, "solver": solver, "start": start, "key": key_of(key)}
        if stored_misfit.wanted(objective, observed):
            stored_derivative.refuse_derivatives(activations, objective)
            solution = stored_misfit.factorize_stored(sparse, validate.rank_of(rank), observed=observed, **settings)
        else:
            solution = factorize_sparse(activations, sparse, validate.rank_of(rank), adjoint=adjoint, **settings)
        if flag("throw", throw):
            raise_if_unusable(solution.result)
        return solution
    blocks, checkpoint = in_blocks("activations", activations), check_checkpoint(checkpoint)
    if observed is not None and (blocks is not None or checkpoint is not None):
        raise ValueError("observed= is there for activations in memory, without checkpoint=; leave one of them out")
    if blocks is None and checkpoint is not None and not _on_devices(activations):
        blocks = RowBlocks(known(validate.matrix("activations", activations, "row × channel")))
    if blocks is None:
        # The usual start takes samples of a sixteenth and a quarter; codes are there ten times.
        check_room(activations, rank, "factorizing", wholes=5 / 16, codes=10)
        activations = validate.matrix("activations", activations, "row × channel")
        if codes is not None:
            raise ValueError("codes= says where codes of rows in blocks go, and these are in memory; leave it out")
        if observed is not None:
            objective = validate.misfit(objective)
            activations, objective = observed_alone(activations, objective, observed, channels=True)
            if objective.squared_error and getattr(solver, "fits_entries", False) and not adjoint.unrolled:
                objective = entry_by_entry(objective)
    rank = validate.rank_of(rank)
    check_settings(solver, start, adjoint)
    flag("throw", throw)
    key = key_of(key)

    def at_once(activations: Activations, objective: AnyObjective, start: AnyStart) -> Solution:
        whole = checked(activations, rank, objective, solver, start, adjoint)
        return solved(activations, rank, whole, solver, start, adjoint, key)

    if blocks is not None:
        kept, told = check_codes(codes), progress_of(progress)
        solution = _of_blocks(blocks, rank, objective, solver, start, adjoint, key, kept, checkpoint, told)
        if codes is None and is_halved(activations):
            solution = dataclasses.replace(solution, codes=jnp.asarray(solution.codes))
    elif checkpoint is not None:
        solution = _kept(activations, rank, objective, solver, start, adjoint, key, checkpoint, progress_of(progress))
    elif explicit(activations):
        solution = in_auto_axes(at_once, _placed, activations, objective, start)
    else:
        with _watched(progress, activations, solver):
            solution = at_once(activations, objective, start)
    if throw:
        raise_if_unusable(solution.result)
    return solution


def _watched(progress: Watched, activations: Any, solver: AnySolver) -> Any:
    """Tells of the steps inside, where there are numbers on one device to tell of."""
    if isinstance(activations, Tracer) or len(activations.devices()) > 1:
        return contextlib.nullcontext()
    steps = int(getattr(solver, "max_steps", 1))
    return watched_steps(progress, "Factorizing", steps, *activations.shape)


def _on_devices(activations: Any) -> bool:
    """Whether there are numbers on several devices."""
    there = isinstance(activations, jax.Array) and not isinstance(activations, Tracer)
    return there and len(activations.sharding.device_set) > 1


def _kept(
    activations: Any,
    rank: int,
    objective: Any,
    solver: AnySolver,
    start: AnyStart,
    adjoint: AnyAdjoint,
    key: Key[Array, ""],
    checkpoint: Checkpoint,
    progress: Progress,
) -> Solution:
    """The factorization of activations on several devices whose state is kept."""
    validate.squared_error(objective)
    if not isinstance(solver, Solver) or lambda_weights.active(objective):
        what = "beside further terms" if isinstance(solver, Solver) else f"with solver={type(solver).__name__}()"
        raise ValueError(
            f"checkpoint= isn't there for activations on several devices {what}; leave it out, or give activations on "
            "one device"
        )
    if adjoint.unrolled:
        raise ValueError("UnrolledAdjoint keeps all steps, and checkpoint= the last ones; take ImplicitAdjoint()")
    if not isinstance(activations.sharding, NamedSharding) or any(tuple(activations.sharding.spec)[1:]):
        raise ValueError(
            f"checkpoint= needs activations that are spread by rows, and these lie as {activations.sharding}; put them "
            'as jax.NamedSharding(mesh, jax.P("row")) has it'
        )
    given, activations = activations, untyped(activations)
    whole = checked(activations, rank, objective, solver, start, adjoint)
    with (progress if jax.process_index() == 0 else silent)("Factorizing", solver.max_steps) as advance:
        told = Told(advance, activations.shape[0], per_step=True)

        def solve(activations: Activations, objective: Objective, start: AnyStart) -> Solution:
            return kept_loop.solve(
                activations, rank, objective.quadratic, solver, start, key, checkpoint=checkpoint, told=told
            )

        solution = solved(activations, rank, whole, solver, start, adjoint, key, solve)
    if not explicit(given):
        return solution
    mesh, rows = given.sharding.mesh, given.sharding.spec[0]
    where = jax.tree.map(partial(NamedSharding, mesh), _placed(rows), is_leaf=lambda x: isinstance(x, PartitionSpec))
    return jax.device_put(solution, where)


def _placed(rows: Any) -> Solution:
    """Where a solution's arrays lie: codes as the activations' rows, the rest on all devices."""
    everywhere: Any = PartitionSpec()
    codes: Any = PartitionSpec(rows, None)
    return Solution(codes, everywhere, everywhere, everywhere, everywhere)


def check_settings(solver: AnySolver, start: AnyStart, adjoint: AnyAdjoint) -> None:
    """Raise `ValueError` for settings that make no sense."""
    check_solver(solver)
    check_start(start)
    check_adjoint(adjoint)


def checked(
    activations: Activations,
    rank: int,
    objective: AnyObjective,
    solver: AnySolver,
    start: AnyStart,
    adjoint: AnyAdjoint,
    name: str = "activations",
) -> Objective:
    """The objective without terms of weight 0; raises `ValueError` for what can't be factorized."""
    signed = solver.signed_dictionary
    objective = validate.misfit(objective)
    solver.check_divergence(objective)
    validate.factorizable(name, activations, signed=signed)
    validate.penalties(objective, both=True, signed=signed)
    fit = validate.weights_of(objective, activations)
    validate.divergence_defined(name, activations, fit)
    terms = _checked_terms(activations, rank, objective, solver, start)
    if adjoint.unrolled and (terms or not solver.unrollable or not fit.squared_error):
        raise ValueError("UnrolledAdjoint goes through the plain solvers' steps only; take ImplicitAdjoint()")
    return fit.with_terms(terms)


def _checked_terms(activations: Any, rank: int, objective: Any, solver: AnySolver, start: AnyStart) -> Any:
    """The terms that weigh anything; raises `ValueError` for a start or a solver that doesn't fit."""
    if start.given is not None:
        validate.given(start.given, activations, rank, signed=solver.signed_dictionary)
    terms = lambda_weights.active(objective)
    if terms:
        solver.check_terms(objective)
    return terms


def solved(
    activations: Activations,
    rank: int,
    objective: Objective,
    solver: AnySolver,
    start: AnyStart,
    adjoint: AnyAdjoint,
    key: Key[Array, ""],
    solve: Callable[[Activations, Objective, AnyStart], Solution] | None = None,
) -> Solution:
    """The solution of a problem that has been checked; by `solve`, not differentiable, if that's given."""
    fit, terms, signed = objective.fit, objective.terms, solver.signed_dictionary
    negative = validate.negative_inside(activations, fit, start.given, signed=signed)
    unit = None if terms else magnitude.unit_of(activations, fit)
    if unit is not None:
        start = start.rescaled(partial(unit.factors, penalized=fit.penalized))
        if not magnitude.is_one(unit):
            activations, scaled = unit.into(activations, fit)
            magnitude.check_penalties(fit, scaled)
            fit = scaled

    def by_solver(activations: Activations, objective: Objective) -> Solution:
        return solver.solve(activations, rank, objective, start, key, unrolled=adjoint.unrolled)

    whole = fit.with_terms(terms)
    if solve is None:
        solution = adjoint.through(by_solver, Conditions(activations, whole, solver.rtol, signed))
    else:
        solution = solve(activations, whole, start)
    if unit is not None and not magnitude.is_one(unit):
        solution = unit.back(solution, 2.0 if fit.squared_error else fit.beta)
    if negative is not None:
        solution = dataclasses.replace(solution, result=refused(solution.result, negative))
    return solution


def _of_blocks(
    rows: RowBlocks,
    rank: int,
    objective: Any,
    solver: AnySolver,
    start: AnyStart,
    adjoint: AnyAdjoint,
    key: Key[Array, ""],
    codes: Any,
    checkpoint: Checkpoint | None,
    progress: Progress,
) -> Solution:
    """The factorization of rows in blocks, what is given with them checked."""
    validate.squared_error(objective)
    validate.penalties(objective, both=True, signed=solver.signed_dictionary)
    if adjoint.unrolled:
        raise ValueError("UnrolledAdjoint keeps all steps in memory, and rows in blocks aren't; take ImplicitAdjoint()")
    terms = _checked_terms(rows, rank, objective, solver, start)
    if terms and codes is False:
        raise ValueError(
            "codes=False makes codes again by least squares, and the objective has further terms; give None, or a path"
        )
    whole = objective.quadratic.with_terms(terms)
    if terms and rows.shape[0] <= JOINT_ROWS:
        # So few that both factors move together, too, for which all rows have to be there.
        if checkpoint is not None:
            raise ValueError(
                f"checkpoint= isn't there for {rows.shape[0]} rows beside further terms, which take seconds; leave it "
                "out"
            )
        found = factorize(
            np.asarray(rows).astype(rows.computed),
            rank,
            objective=whole,
            solver=solver,
            start=start,
            key=key,
            throw=False,
        )
        store = CodeStore(codes, found.codes.shape, rows.computed, Scratch(rows.scratch), rows.rows)
        store.put(0, rows.shape[0], np.asarray(found.codes))
        return dataclasses.replace(found, codes=store.finish())
    return factorize_blocks(
        rows, rank, objective=whole, solver=solver, start=start, key=key, codes=codes, checkpoint=checkpoint,
        progress=progress,
    )  # fmt: skip


def known(activations: Any) -> np.ndarray:
    """Activations in memory, for a run that is kept; raises `ValueError` for those that are traced."""
    if isinstance(activations, Tracer):
        raise ValueError(
            "checkpoint= keeps numbers, and activations are traced; call factorize outside of jit and grad"
        )
    return np.asarray(activations)
