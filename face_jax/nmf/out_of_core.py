"""Factorization and encoding of rows in blocks: nothing of their number is held in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from ..blocks.reading import ahead
from ..blocks.row_blocks import RowBlocks
from ..blocks.scratch import Scratch
from ..support.progress import Advance, Progress, silent, tell_more
from ..support.scaling import positive
from . import magnitude
from .checkpoint import Checkpoint, Keeper, digest_of_tree
from .code_stores import CodeStore, Divided, RemadeCodes
from .encode_in_blocks import encode_blocks as encode_blocks
from .encode_in_blocks import weights_in_blocks
from .objective import PENALTIES, Objective, SquaredError
from .shapes import Dictionary
from .solution import Solution
from .solvers import streamed_loop, streamed_terms
from .solvers.loop import scaled
from .solvers.minibatch import MiniBatch
from .solvers.solver import WARM_STEPS
from .solvers.starts import Given, Start
from .solvers.stream import Pieces, Stream
from .solvers.streamed_facts import Facts, Sample, look
from .solvers.streamed_starts import Begin, begin, samples_for
from .solvers.update_rules import Solver
from .solvers.warmup import Warmup
from .terms.problem import BLOCK_ROWS

_TINY = 1e-300


def factorize_blocks(
    rows: RowBlocks,
    rank: int,
    *,
    objective: Objective,
    solver: Any,
    start: Any,
    key: Key[Array, ""],
    codes: Any,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
) -> Solution:
    """The factorization of rows in blocks, its settings already checked.

    **Arguments:** as for `factorize`; `codes` from `check_codes`, `checkpoint` from `check_checkpoint`.

    **Returns:** the solution. Its codes are an array on disk, or made again where they are read.
    """
    if not isinstance(solver, Solver):
        raise ValueError(
            f"solver={type(solver).__name__}() moves the codes of all rows at once, and rows in blocks aren't there at "
            "once; use solver=ADMM(), or activations in memory"
        )
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((objective, solver, start, key))):
        raise ValueError(
            "rows in blocks are read from outside of JAX, which can't be traced; call factorize outside of jit, grad "
            "and vmap, or give activations in memory"
        )
    weights, row_weights = weights_in_blocks(objective, rows)
    stream, scratch = Stream.of(rows, weights, row_weights), Scratch(rows.scratch)
    scratch.expect(_needed(stream, rank, start, solver, codes, bool(objective.terms)))
    # A look, two passes for the start, one behind the last step; few runs take all their steps.
    total = (solver.max_steps + 4) * len(stream.pieces.ends)
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress("Factorizing, blocks of rows", total))
        stream = dataclasses.replace(stream, advance=lambda: advance(1))
        keeper = None
        if checkpoint is not None:
            keeper = Keeper(checkpoint)
            stack.callback(keeper.close)
        # A run that goes on has begun already.
        goes_on = keeper is not None and keeper.last is not None
        samples = [] if goes_on else samples_for(start, stream, rank, scratch)
        facts = look(stream, samples, signed=solver.signed_dictionary, digest=checkpoint is not None)
        if keeper is not None:
            keeper.check(_problem_of(stream, rank, objective, solver, start, key, codes, facts), solver.max_steps)
        told = Told(advance, stream.shape[0])
        run = Run(stream, rank, objective, solver, start, key, codes, scratch, facts, samples, keeper, told)
        return run.beside_terms() if objective.terms else run.alone()


def begun_dictionary(rows: RowBlocks, rank: int, start: Start, *, signed: bool, key: Key[Array, ""]) -> Dictionary:
    """Where a factorization of rows in blocks starts; its concepts' lengths mean nothing."""
    stream, scratch = Stream.of(rows), Scratch(rows.scratch)
    samples = samples_for(start, stream, rank, scratch)
    facts = look(stream, samples, signed=signed)
    return begin(start, stream, samples, Begin(rank, signed, key, facts, scratch))[0]


def mean_of(rows: RowBlocks) -> np.ndarray:
    """The mean of rows in blocks."""
    total = sum(np.sum(block, axis=0, dtype=np.float64) for block in ahead(rows.blocks()))
    return np.asarray(total / rows.shape[0], rows.computed)


def _needed(stream: Stream, rank: int, start: Any, solver: Any, codes: Any, terms: bool) -> int:
    """Bytes that a run keeps of all rows: samples, codes before and behind a step, and in the end."""
    rows, channels = stream.shape
    counts = start.counts(rows, rank) if isinstance(start, (Warmup, MiniBatch)) else []
    samples = sum(count for count, _ in counts) * channels * stream.source.dtype.itemsize
    remembered = 2 + len(solver.remember(jnp.zeros((rank, 1), stream.dtype)))
    copies = 0 if codes is False else 2 * remembered + 3 * terms + (codes is None)
    return samples + copies * rows * rank * jnp.dtype(stream.dtype).itemsize


class Told:
    """Tells what is known behind each step, or some.

    **Arguments:**

    - `advance`: of the work.
    - `rows`: that a step goes through.
    - `per_step`: whether the work is counted in steps, and objectives have units of their own.
    """

    def __init__(self, advance: Advance, rows: int, *, per_step: bool = False) -> None:
        self.advance, self.rows, self.since = advance, rows, time.perf_counter()
        self.per_step, self.step = per_step, 0
        self.unit = 1.0  # what objectives are multiplied by, where the run has units of its own

    def __call__(self, state: Any) -> None:
        """A state of any of the loops."""
        history, now = state.history, time.perf_counter()
        done = int(history.step) - self.step
        speed = max(1, done) * self.rows / max(now - self.since, 1e-9)
        self.since, self.step = now, self.step + done
        objective = f"{float(history.objective) * self.unit:.5g}"
        if self.per_step:
            objective = f"{float(history.objective) / max(float(history.objectives[0]), _TINY):.3g} of the start's"
        tell_more(
            self.advance,
            f"step {int(history.step)}, residual {float(history.residual):.1e}, objective {objective}, "
            f"{speed:.2g} rows/s",
        )
        if self.per_step:
            self.advance(done)


def _problem_of(
    stream: Stream, rank: int, objective: Objective, solver: Any, start: Any, key: Any, codes: Any, facts: Facts
) -> dict[str, Any]:
    """What a checkpoint has to be of to be gone on from."""
    bare = dataclasses.replace(objective.quadratic.with_terms(objective.terms), weights=None)
    return {
        "shape": stream.shape,
        "dtype": f"{stream.source.dtype}, computed in {jnp.dtype(stream.dtype)}",
        "numbers": facts.digest,
        "rank": rank,
        "objective": digest_of_tree(bare),
        # With more steps a run goes on; of a few depends where one beside terms begins.
        "solver": repr(dataclasses.replace(solver, max_steps=_warm_steps(solver) if objective.terms else 0)),
        "start": digest_of_tree(start),
        "key": digest_of_tree(key),
        "codes": "made again" if codes is False else "kept",
        "block": stream.source.rows,
    }


@dataclasses.dataclass(frozen=True)
class Run:
    """A factorization of rows that were looked at.

    **Arguments:**

    - `stream`, `rank`, `objective`, `solver`, `start`, `key`, `codes`: the problem, and where codes go.
    - `scratch`: makes room.
    - `facts`, `samples`: from the first pass.
    - `keeper`: keeps checkpoints.
    - `told`: called with the state behind each step.
    """

    stream: Stream
    rank: int
    objective: Objective
    solver: Any
    start: Any
    key: Key[Array, ""]
    codes: Any
    scratch: Scratch
    facts: Facts
    samples: list[Sample]
    keeper: Keeper | None
    told: Any

    def alone(self) -> Solution:
        """By the squared error alone."""
        stream, facts, dtype, rows = self.stream, self.facts, self.stream.dtype, self.stream.source
        unit = magnitude.unit_at(facts.counted, dtype)
        quadratic, scale = self._penalties, stream.scale
        start, given = self.start, self.start.given
        if given is None or not given.elsewhere:
            start = start.rescaled(partial(unit.factors, penalized=quadratic.penalized))
        elif not magnitude.is_one(unit):
            # Codes on disk aren't looked at for their size.
            codes: Any = Divided(given.codes, float(unit.root))
            start = Given(codes, jnp.asarray(given.dictionary, dtype) / unit.root)
        if not magnitude.is_one(unit):
            inside = unit.into(jnp.zeros((1, 1), dtype), quadratic)[1]
            magnitude.check_penalties(quadratic, inside)
            quadratic, scale = inside, dataclasses.replace(scale, unit=unit.whole)
        weight_unit: Any = 1.0
        if stream.weights is None:
            quadratic = scaled(quadratic, dtype)[0]
        else:
            marked = dataclasses.replace(quadratic, weights=jnp.zeros((0, rows.shape[1]), dtype))
            quadratic, weight_unit = scaled(marked, dtype, jnp.asarray(facts.most_weight, dtype))
            mean = jnp.asarray(facts.mean, dtype)
            mean = mean if scale.unit is None else mean / scale.unit
            scale = dataclasses.replace(scale, weight_unit=weight_unit, mean=mean)
        stream = dataclasses.replace(stream, scale=scale)
        self.told.unit = float(unit.whole) ** 2 * float(weight_unit)
        make, dictionary = self._begun(stream, start)
        store = None if self.codes is False else self._store()
        solution = streamed_loop.solve(
            stream, quadratic, self.solver, make, dictionary, rank=self.rank, unit=weight_unit, scratch=self.scratch,
            out=None if store is None else store.put, remade=store is None, keeper=self.keeper, told=self.told,
        )  # fmt: skip
        if not magnitude.is_one(unit):
            solution = unit.back(solution)
        if store is not None:
            return dataclasses.replace(solution, codes=store.finish())
        objective = dataclasses.replace(self._penalties, weights=stream.weights)
        codes = RemadeCodes(rows, solution.dictionary, objective, solution.scale)
        return dataclasses.replace(solution, codes=codes)

    def beside_terms(self) -> Solution:
        """Beside further terms: a few steps without them, then all with them."""
        stream, rank, largest = self.stream, self.rank, max(abs(self.facts.low), abs(self.facts.high))
        magnitude.check_largest_beside_terms(largest, stream.dtype)
        rows, settings = stream.shape[0], self.solver.beside_terms
        pieces = Pieces.of(rows, BLOCK_ROWS, stream.source.rows, together=streamed_terms.together(self.objective, rows))
        in_dtype = self.objective.in_dtype(stream.dtype)
        walk = streamed_terms.Walk(dataclasses.replace(stream, pieces=pieces), in_dtype, settings, rank, self.scratch)
        dictionary = None if self._goes_on else self._first(walk)
        store = self._store()
        solution = streamed_terms.solve(walk, dictionary, out=store.put, told=self.told, keeper=self.keeper)
        return dataclasses.replace(solution, codes=store.finish())

    def _first(self, walk: Any) -> Dictionary:
        """The dictionary to begin with beside terms; the codes are put into the walk."""
        stream = self.stream
        make, dictionary = self._begun(stream, self.start)
        assert make is not None
        assert dictionary is not None
        if self.start.given is not None:
            for piece in stream:
                walk.put(1, piece.start, piece.stop, make(piece, stream.scale).T)
            return dictionary
        warm = dataclasses.replace(self.solver, max_steps=_warm_steps(self.solver))
        begun = streamed_loop.solve(
            stream, scaled(self._penalties, stream.dtype)[0], warm, make, dictionary, rank=self.rank,
            out=partial(walk.put, 1), scratch=self.scratch,
        )  # fmt: skip
        # Where penalties were measured, which is where they'll be measured again; as in memory, also without any.
        scale = positive(begun.scale)
        for start, stop in itertools.pairwise((0, *walk.stream.pieces.ends)):
            walk.put(1, start, stop, walk.some(1, start, stop) / scale[None])
        return begun.dictionary * scale[:, None]

    def _begun(self, stream: Stream, start: Any) -> tuple[Any, Dictionary | None]:
        """What makes first codes, and the first dictionary; nothing for a run that goes on."""
        if self._goes_on:
            return None, None
        given = Begin(self.rank, self.solver.signed_dictionary, self.key, self.facts, self.scratch)
        dictionary, make = begin(start, stream, self.samples, given)
        self.samples.clear()
        return make, dictionary

    @property
    def _goes_on(self) -> bool:
        return self.keeper is not None and self.keeper.last is not None

    @property
    def _penalties(self) -> SquaredError:
        return SquaredError(**{name: getattr(self.objective, name) for name in PENALTIES})

    def _store(self) -> CodeStore:
        rows = self.stream.source
        return CodeStore(self.codes, (rows.shape[0], self.rank), self.stream.dtype, self.scratch, rows.rows)


def _warm_steps(solver: Any) -> int:
    return min(WARM_STEPS, solver.max_steps)
