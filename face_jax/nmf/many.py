"""`factorize_many`: many factorizations at once, each as if it were alone."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, Key

from ..blocks.row_blocks import in_blocks, is_halved
from ..support.arguments import flag, key_of
from ..support.precision import full_precision
from ..support.progress import silent
from ..support.progress_line import Watched, progress_of
from . import validate
from .beta_divergence import BetaDivergence
from .derivative.adjoints import ImplicitAdjoint
from .factorization import check_settings, checked, factorize, solved
from .memory_needs import check_room_of_many
from .objective import Objective, SquaredError
from .options import AnyAdjoint, AnySolver
from .results import UNUSABLE, FactorizationError, raise_if_unusable
from .shapes import Activations
from .solution import Solution
from .solvers.padded import Layout, layout_of, start_in
from .solvers.starts import Start
from .solvers.update_rules import ADMM
from .solvers.warmup import Warmup
from .stacked_problems import Plan, is_zero, stacked

# Of activations that are stacked at a time, the next beside those at work; an accelerator takes as long for few
# problems as for many.
_BYTES_CPU, _BYTES = 2**28, 2**30
_MOST_CPU = 64  # problems of one program on a processor, which solves them one after another


@full_precision
def factorize_many(
    activations: Any,
    rank: Any,
    *,
    objective: Any = SquaredError(),  # noqa: B008 (settings: frozen)
    solver: AnySolver = ADMM(),  # noqa: B008
    start: Any = Warmup(),  # noqa: B008
    adjoint: AnyAdjoint = ImplicitAdjoint(),  # noqa: B008
    key: Any = None,
    throw: bool = True,
    observed: Any = None,
    progress: Watched = None,
) -> list[Solution]:
    """Many factorizations in one call: of many classes, for many ranks, from many starts, with many λ.

    Each is what `factorize` gives for it, to rounding. What is alike is compiled once and solved together: problems
    with the same channels, dtype, rank and kind of objective and about as many rows, filled up with rows of zeros,
    which change nothing. Where a start or solver would see these (any but `NNDSVD`, also in `Warmup`, with `ADMM`,
    `HALS` or `SemiNMF`), and with weights of entries or further terms, only problems of equally many rows are alike.
    On a processor they are solved one after another by one program, on accelerators side by side.

    **Arguments:**

    - `activations`: `row × channel`, or a list of such, whose rows and channels may differ. Each may also be rows in
        blocks as `factorize` takes them: `RowBlocks`, a path, a large memory map. Problems of such are solved one after
        another.
    - `rank`: how many concepts, or a list of such numbers.
    - `objective`: what's minimized, or a list of it.
    - `solver`: how.
    - `start`: from where, or a list of it.
    - `adjoint`: how solutions are differentiated.
    - `key`: for the starts' random numbers, or a seed, or a list of either.
    - `throw`: raise `FactorizationError` for factors that can't be used, as `factorize` does.
    - `observed`: where there are missing values, as for `factorize`, or a list of it, with None for a problem without
        any. Problems with missing values are solved one after another.
    - `progress`: told how many problems are done, as by `face_jax.explain`: a line on a terminal by default.

    Lists are of one length; what isn't a list is the same in all problems.

    **Returns:** the solutions, in the lists' order. Raises `ValueError` as `factorize` does, and for lists of different
    lengths, or none.

    **Example:**

    >>> classes = [A[:25], A[20:], A]
    >>> [found.codes.shape for found in fj.factorize_many(classes, 3)]
    [(25, 3), (40, 3), (60, 3)]
    >>> [len(found.dictionary) for found in fj.factorize_many(A, [2, 3])]
    [2, 3]
    """
    flag("throw", throw)
    every = {"activations": activations, "rank": rank, "objective": objective, "start": start, "key": key,
             "observed": observed}  # fmt: skip
    lists = {name: _list_or_none(name, value) for name, value in every.items()}
    count = _common_length(lists)
    each = {name: [every[name]] * count if found is None else found for name, found in lists.items()}
    names = ["activations" if lists["activations"] is None else f"activations[{i}]" for i in range(count)]

    check_room_of_many(each["activations"])
    # What is the same object in many problems is read once, and stays one.
    matrices: dict[int, Any] = {}
    keys: dict[int, Any] = {}
    problems: list[Any] = []
    alone: dict[int, Callable[[], Solution]] = {}
    for number, (name, *parts) in enumerate(zip(names, *each.values(), strict=True)):
        values, rank, objective, start, key, seen = parts
        blocks = in_blocks(name, values)
        if seen is not None or blocks is not None:
            validate.squared_error(objective)
            given = values if blocks is None or is_halved(values) else blocks
            alone[number] = partial(
                factorize, given, rank, objective=objective, solver=solver, start=start, adjoint=adjoint, key=key,
                throw=False, observed=seen, progress=False,
            )  # fmt: skip
            problems.append(None)
            continue
        with _on_processor():
            if id(values) not in matrices:
                matrices[id(values)] = validate.matrix(name, values, "row × channel")
            if id(key) not in keys:
                keys[id(key)] = key_of(key)
            check_settings(solver, start, adjoint)
            matrix, rank = matrices[id(values)], validate.rank_of(rank)
            validate.squared_error(objective)
            if isinstance(objective, BetaDivergence):
                objective = objective.quadratic
            whole = checked(matrix, rank, objective, solver, start, adjoint, name)
        problems.append(_Problem(name, matrix, rank, whole, start, keys[id(key)], solver))

    alike: dict[Any, list[int]] = collections.defaultdict(list)
    for number, problem in enumerate(problems):
        if problem is not None:
            alike[problem.kind].append(number)
    found: dict[int, Solution] = {}
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(each))
    told = silent if traced else progress_of(progress)
    with told("Factorizing, problems", count) as advance:
        for number, solve in alone.items():
            found[number] = solve()
            advance(1)
        # The next part is stacked while the device is at work on this one.
        running: tuple[list[int], Callable[[], list[Solution]]] | None = None

        def end() -> None:
            if running is not None:
                found.update(zip(running[0], running[1](), strict=True))
                advance(len(running[0]))

        for numbers in alike.values():
            first = problems[numbers[0]]
            exact = all(problems[number].rows == first.rows for number in numbers)
            layout = Layout(first.rows, None) if exact else first.layout
            for part in _parts(numbers, first):
                begun = part, _begun([problems[number] for number in part], layout, adjoint)
                end()
                running = begun
        end()
    if throw:
        _raise_if_unusable([found[number] for number in range(count)])
    return [found[number] for number in range(count)]


def _on_processor() -> contextlib.AbstractContextManager[Any]:
    """What isn't an array of JAX's yet becomes one of the processor's: it's stacked there, and goes on as a whole."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # where JAX_PLATFORMS names accelerators alone
        return contextlib.nullcontext()


@dataclasses.dataclass(frozen=True)
class _Problem:
    """A problem that has been checked, but for its activations' values."""

    name: str
    activations: Activations
    rank: int
    objective: Objective
    start: Start
    key: Key[Array, ""]
    solver: Any
    layout: Layout = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        rows, channels = self.activations.shape
        layout = layout_of(rows, channels, self.rank, self.objective, self.solver, self.start, self.key)
        object.__setattr__(self, "layout", layout)

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.activations.shape[0]

    @property
    def kind(self) -> tuple[Any, ...]:
        """The same for problems that one program solves."""
        leaves, tree = jax.tree.flatten((self.objective, self.start))
        # A penalty of 0 stays a number that's known: it makes a difference to where a given start is measured.
        known = tuple(is_zero(leaf) or np.shape(leaf)[1:] for leaf in leaves)
        channels, dtype = self.activations.shape[1], self.activations.dtype
        return self.layout, channels, dtype, self.rank, tree, known, self.key.dtype

    def parts(self, layout: Layout) -> tuple[Any, ...]:
        """What a program gets of it, first of all what has rows."""
        start = start_in(layout, self.start, self.rows, self.rank)
        weights = self.objective.row_weights
        with_rows = [self.activations, *(() if weights is None else (weights,))]
        return with_rows, dataclasses.replace(self.objective, row_weights=None), start, self.key, self.solver


def _list_or_none(name: str, value: Any) -> list[Any] | None:
    """The problems' own values, if there are several."""
    if isinstance(value, list | tuple | range):
        return list(value)
    # Keys of the older kind are vectors themselves.
    axes = None if str(getattr(value, "dtype", "")) == "uint32" else {"activations": 3, "rank": 1, "key": 1}.get(name)
    return list(value) if axes is not None and getattr(value, "ndim", 0) == axes else None


def _common_length(lists: dict[str, list[Any] | None]) -> int:
    lengths = {name: len(found) for name, found in lists.items() if found is not None}
    if not lengths:
        return 1
    (first, count), *others = lengths.items()
    for name, other in others:
        if other != count:
            raise ValueError(
                f"{first} is a list of {count} and {name} one of {other}; give lists of one length, or one value for "
                "all problems"
            )
    if not count:
        raise ValueError(f"{first} is an empty list; give at least one")
    return count


def _parts(numbers: list[int], like: _Problem) -> Iterator[list[int]]:
    """So many at a time as memory has room for: a power of two, as few programs do for any number then."""
    size = like.layout.rows * like.activations.shape[1] * like.activations.dtype.itemsize
    cpu = jax.default_backend() == "cpu"
    most = max(1, (_BYTES_CPU if cpu else _BYTES) // size)
    most = 1 << (most.bit_length() - 1)
    if cpu:
        most = min(most, _MOST_CPU)
    for at in range(0, len(numbers), most):
        yield numbers[at : at + most]


def _begun(problems: list[_Problem], layout: Layout, adjoint: AnyAdjoint) -> Callable[[], list[Solution]]:
    """Starts problems of one kind, and gives what waits for their solutions."""
    first = problems[0]
    if len(problems) == 1:
        alone = solved(first.activations, first.rank, first.objective, first.solver, first.start, adjoint, first.key)
        return lambda: [alone]
    flat = [jax.tree.flatten(problem.parts(layout)) for problem in problems]
    with_rows = 1 if first.objective.row_weights is None else 2
    count = len(problems)
    traced = any(isinstance(leaf, Tracer) for leaves, _ in flat for leaf in leaves)
    if not traced:
        # Room for a power of two of problems, of which the last are copies.
        flat += flat[-1:] * ((1 << (count - 1).bit_length()) - count)
    plan, shared, own = stacked(flat, first.activations.dtype, layout.rows, with_rows)
    number = jnp.arange(len(flat), dtype=jnp.int32)
    if jax.default_backend() == "cpu" and not traced:
        found = _solve_in_turn(plan, first.rank, adjoint, shared, own, number, count)
    else:
        found = _solve(plan, first.rank, adjoint, shared, own, number)
    return partial(_each_of, found, [problem.rows for problem in problems])


def _each_of(found: Solution, rows: list[int]) -> list[Solution]:
    """The solutions of a stack, with as many rows as each has."""
    leaves, tree = jax.tree.flatten(found)
    traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    # Cut by NumPy: each number of rows would be a program of its own.
    leaves = leaves if traced else [np.asarray(leaf) for leaf in leaves]
    codes = next(number for number, leaf in enumerate(jax.tree.leaves(found)) if leaf is found.codes)
    # Scalars as arrays: JAX looks at NumPy's numbers one by one.
    each = [[leaf[at, ...] for leaf in leaves] for at in range(len(rows))]
    for mine, theirs in zip(each, rows, strict=True):
        mine[codes] = mine[codes][:theirs]
    return [jax.tree.unflatten(tree, mine) for mine in (each if traced else jax.device_put(each))]


def _one(plan: Plan, rank: int, adjoint: AnyAdjoint, shared: list[Any], own: list[Any]) -> Solution:
    (activations, *weights), objective, start, key, solver = plan.whole(shared, own)
    if weights:
        objective = dataclasses.replace(objective, row_weights=weights[0])
    return solved(activations, rank, objective, solver, start, adjoint, key)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _solve(plan: Plan, rank: int, adjoint: AnyAdjoint, shared: list[Any], own: list[Any], number: Array) -> Solution:
    """All side by side; on a processor, where they are differentiated, one after another."""
    size = None if jax.default_backend() == "cpu" else len(number)
    one = lambda problem: _one(plan, rank, adjoint, shared, problem[0])  # noqa: E731
    return jax.lax.map(one, (own, number), batch_size=size)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _solve_in_turn(
    plan: Plan, rank: int, adjoint: AnyAdjoint, shared: list[Any], own: list[Any], number: Array, count: Int[Array, ""]
) -> Solution:
    """The first `count`, one after another."""

    trees = []

    def at(i: Array | int) -> list[Array]:
        leaves, tree = jax.tree.flatten(_one(plan, rank, adjoint, shared, [leaf[i] for leaf in own]))
        trees.append(tree)
        return leaves

    def put(i: Array, out: list[Array]) -> list[Array]:
        return [leaf.at[i].set(new) for leaf, new in zip(out, at(i), strict=True)]

    out = [jnp.zeros((len(number), *x.shape), x.dtype) for x in jax.eval_shape(lambda: at(0))]
    return jax.tree.unflatten(trees[0], jax.lax.fori_loop(0, count, put, out))


def _raise_if_unusable(solutions: list[Solution]) -> None:
    """Raise `FactorizationError` if the factors of any problem can't be used, with its number where it's known."""
    codes = [solution.result.code for solution in solutions]
    numbers: Any = range(len(solutions))
    if not any(isinstance(code, Tracer) for code in codes):  # all come at once, and few of them are bad
        numbers = np.flatnonzero(np.isin(jax.device_get(codes), UNUSABLE))
    for number in numbers:
        try:
            raise_if_unusable(solutions[number].result)
        except FactorizationError as error:
            raise FactorizationError(f"problem {number} of {len(solutions)}: {error}") from None
