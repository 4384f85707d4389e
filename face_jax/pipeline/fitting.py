"""Crops become concepts: the factorization of an explanation, with the faithfulness that was asked for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..blocks.row_blocks import RowBlocks
from ..faithfulness import Path
from ..faithfulness.chosen_lambda import FOLDS, leading_to, path_judged_on, solution_along, way_along
from ..faithfulness.lambda_path import SETTINGS as FAITHFUL
from ..faithfulness.lambda_path import going_on
from ..faithfulness.rows import Rows, in_jax, rows_where_they_lie, streamed
from ..nmf import NNDSVD, RankScan, Solution, SquaredError, encode, factorize_many, rank_scan
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..nmf.rank_choice import SETTINGS as OF_RANKS
from ..nmf.settings import usual_objective, usual_solver
from ..nmf.solvers.padded import layout_of
from ..outputs import MultiClass, Outputs
from ..support.memory import exhaustion_in_words
from ..support.progress import Progress, Stopwatch
from . import checks
from .material import Keys, Material

# Pictures that are needed at least for λ to be chosen by default.
ENOUGH = 12


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A factorization and what it was made of.

    **Arguments:**

    - `rows`: what was factorized: crops, behind them or in their place what the term needs.
    - `objective`, `solver`, `start`: what was minimized, how, and from where.
    - `solution`: the factors.
    - `crop_codes`: of the crops.
    - `path`: how λ was chosen, if it was.
    - `plain`: why there is no faithfulness term where there is one by default; nothing if there is, or if it wasn't
        wanted.
    - `method`: what fitted, if not `solver`.
    - `said`: how that ended, in words, where it isn't known to have a rule such as a solver's.
    - `of_places`: whether rows are places of photographs, and not averages of crops.
    """

    rows: Rows
    objective: AnyObjective
    solver: AnySolver
    start: AnyStart
    solution: Solution
    crop_codes: Float[np.ndarray, "crop concept"]
    path: Path | None
    plain: str = ""
    method: str = ""
    said: str = ""
    of_places: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """A factorization of which everything is known but the solution.

    **Arguments:**

    - `fitted`: what will be known of it, less solution and codes.
    - `filled`: the rows, with rows of zeros behind them where problems are to be alike.
    - `way`: what is minimized, one after another, each from where the last one ended; the last is the problem.
    - `rank`, `key`: for `factorize`.
    - `crops`: whose codes are asked for.
    - `apart`: whether these are no part of the rows' codes.
    - `alone`: whether it's solved by itself: rows in blocks, or a head that sees whole maps, take far more room and
        time than others do.
    """

    fitted: Callable[..., Fitted]
    filled: Rows
    way: tuple[AnyObjective, ...]
    rank: int
    solver: AnySolver
    start: AnyStart
    key: Key[Array, ""]
    crops: Float[np.ndarray, "crop channel"]
    apart: bool
    alone: bool
    path: Path | None

    def ended(self, solution: Solution) -> Fitted:
        """The factorization with its solution."""
        crops = self.crops
        if self.apart:
            codes = np.asarray(encode(in_jax(streamed(crops)), solution.dictionary))
        else:
            codes = np.asarray(solution.codes)[: len(crops)]
        return self.fitted(solution=solution, crop_codes=codes)


def problem_of(
    head: Any,
    material: Material,
    rank: int,
    *,
    faithfulness: float | Literal["auto", "usual"] | None,
    objective: AnyObjective | None,
    signed: bool,
    solver: AnySolver | None,
    start: AnyStart | None,
    keys: Keys,
    progress: Progress,
    stopwatch: Stopwatch,
    outputs: Outputs = MultiClass(),  # noqa: B008 (settings: frozen)
    rows: Rows | None = None,
    along: Sequence[float] | None = None,
    alike: bool = False,
) -> Problem:
    """Concepts of crops that also keep what the head says of the pictures, if that was asked for: what is solved.

    Concepts of either sign are found in all places of the photographs, with a price on codes (`usual_objective`),
    where nothing else is asked for: in averages any mixture of them fits as well.

    **Arguments:**

    - `head`: from activations to logits.
    - `material`: the crops, and the pictures whose predictions are kept.
    - `rank`: how many concepts.
    - `faithfulness`: λ, or `"auto"`, or None for none; `"usual"`: as for `"auto"` where that can be had soon.
    - `signed`: whether concepts may have entries below zero.
    - `objective`, `solver`, `start`: for `factorize`; the usual ones if None.
    - `keys`: from `keys_of`.
    - `progress`, `stopwatch`: told how far it is, and what the time went into.
    - `outputs`: what the logits mean.
    - `rows`: what is factorized; the crops if None.
    - `along`: λ on the way to the one that was chosen elsewhere, in place of a choice.
    - `alike`: fill rows in memory up with zeros, so that problems of about as many rows are one compiled program; not
        for an objective of one's own, which may count them.

    **Returns:** the problem, for which λ has been chosen.
    """
    plain, alike = "", alike and objective is None
    if along is not None:
        faithfulness = "auto"
    elif faithfulness == "usual":
        plain = why_plain(head, material, rank, solver)
        faithfulness = None if plain else "auto"
    if solver is None:
        solver = usual_solver(signed=signed, **({} if faithfulness is None else FAITHFUL))
    start = NNDSVD() if start is None else start
    settings: dict[str, Any] = {"solver": solver, "start": start, "key": keys["start"]}
    crops = material.pictures.crop_activations
    path: Path | None = None
    term: Any = None
    sparse = signed and objective is None and rows is None and faithfulness is None
    if sparse:
        rows = material.places
    others = rows is not None
    rows = streamed(crops) if rows is None else rows
    minimized = usual_objective(rows, rank, signed=sparse and others) if objective is None else objective
    if faithfulness is not None:
        rows, term = rows_where_they_lie(material.fitted.head(head), crops, material.fitted.maps, outputs)
        if faithfulness == "auto" and along is None:
            with stopwatch("choice of the faithfulness"):
                path = path_of(head, material, rank, solver, start, keys, progress, outputs)
            along = leading_to(path)
    filled, room = filled_up(rows, term, rank, settings) if alike else (rows, term)
    way: tuple[AnyObjective, ...] = (minimized,)
    if faithfulness is not None:
        weight = float(faithfulness) if along is None else along[-1] if along else 0.0
        minimized = SquaredError() + weight * term
        way = way_along(along, room) if along is not None else (SquaredError() + weight * room,)
    affine = getattr(head, "affine", False)
    known = functools.partial(Fitted, rows, minimized, solver, start, path=path, plain=plain, of_places=others)
    # Where rows are places of pictures they are in the crops' place.
    return Problem(
        known, filled, way, rank, solver, start, keys["start"], crops,
        apart=others or not (affine or faithfulness is None),
        alone=isinstance(filled, RowBlocks) or not (affine or faithfulness is None), path=path,
    )  # fmt: skip


def solved(problem: Problem | Fitted, *, progress: Progress, stopwatch: Stopwatch) -> Fitted:
    """The factorization, by itself; as it is where a method of its own has found it already."""
    if isinstance(problem, Fitted):
        return problem
    with stopwatch("factorization"), progress("Factorizing", 1) as advance:
        settings: dict[str, Any] = {"solver": problem.solver, "start": problem.start, "key": problem.key}
        fitting = problem.ended(solution_along(problem.way, problem.filled, problem.rank, **settings))
        advance(1)
    return fitting


def solved_together(problems: Sequence[Problem], progress: Progress) -> list[Fitted | None]:
    """Factorizations by one call of `factorize_many` for each step of their ways, which have the same solver.

    **Returns:** what each is by itself, to rounding; None for one that can't be had so: by itself it says why.
    """
    solutions: list[Solution | None] = [None] * len(problems)
    starts: list[AnyStart] = [problem.start for problem in problems]
    going = list(range(len(problems)))
    with progress("Factorizing", len(problems)) as advance:
        for step in range(max(len(problem.way) for problem in problems)):
            going = [number for number in going if step < len(problems[number].way)]
            if not going:
                break
            some = [problems[number] for number in going]
            try:
                with exhaustion_in_words(f"{len(some)} classes together", "factorize each by itself"):
                    found = factorize_many(
                        [problem.filled for problem in some], [problem.rank for problem in some],
                        objective=[problem.way[step] for problem in some], solver=some[0].solver,
                        start=[starts[number] for number in going], key=[problem.key for problem in some], throw=False,
                        progress=False,
                    )  # fmt: skip
            except (ValueError, ArithmeticError):
                # One of them is refused, or memory has no room for all.
                return [None] * len(problems)
            usable = [bool(each.result.usable) for each in found]
            for number, solution, good in zip(going, found, usable, strict=True):
                solutions[number] = solution if good else None
                starts[number] = going_on(solution)
            going = [number for number, good in zip(going, usable, strict=True) if good]
        fittings = [
            None if solution is None else problem.ended(solution)
            for problem, solution in zip(problems, solutions, strict=True)
        ]
        advance(len(problems))
    return fittings


def filled_up(
    rows: Rows, term: Any, rank: int, settings: dict[str, Any]
) -> tuple[Float[np.ndarray, "filled channel"] | RowBlocks, Any]:
    """Rows with rows of zeros behind them that teach nothing, unless a start sees them, and the term for all.

    Programs for rows in blocks are those of a block, however many there are: these stay as they are.
    """
    if isinstance(rows, RowBlocks) or (term is not None and term.weights is None):
        return rows, term
    solver, start, key = (settings[name] for name in ("solver", "start", "key"))
    layout = layout_of(len(rows), rows.shape[1], rank, SquaredError(), solver, start, key)
    more = max(0, layout.rows - len(rows))
    filled = np.concatenate([rows, np.zeros((more, rows.shape[1]), rows.dtype)])
    if term is None:
        return filled, None
    weights = jnp.concatenate([jnp.asarray(term.weights), jnp.zeros(more, term.weights.dtype)])
    return filled, dataclasses.replace(term, weights=weights)


def why_plain(head: Any, material: Material, rank: int, solver: AnySolver | None, *, chosen: bool = False) -> str:
    """Why there's no faithfulness by default, in words; nothing if there is. λ may have been chosen elsewhere."""
    pictures, crops = len(material.fitted), len(material.pictures.crop_activations)
    what = "crops of the class" if len(material.pictures.photographs) == 1 else "photographs fitted"
    return why_not_faithful(head, pictures, crops, rank, what=what, solver=solver, chosen=chosen)


def why_not_faithful(
    head: Any,
    pictures: int,
    crops: int,
    rank: int,
    *,
    what: str = "photographs fitted",
    solver: AnySolver | None = None,
    chosen: bool = False,
) -> str:
    """Why there's no faithfulness by default to so many pictures and crops, in words; nothing if there is.

    **Arguments:**

    - `head`: from activations to logits.
    - `pictures`, `crops`, `rank`: how many pictures' predictions would be kept, crops are fitted and concepts wanted.
    - `what`: what the pictures are called.
    - `solver`: of the factorization; None for one that can fit the term.
    - `chosen`: whether λ is chosen already.
    """
    if not getattr(head, "affine", False):
        return (
            "behind a head that doesn't average first it takes minutes to hours (faithfulness='auto', or "
            "--faithfulness auto, takes them)"
        )
    if solver is not None and getattr(solver, "beside_terms", solver) is None:
        return f"{type(solver).__name__} can't fit it (leave solver out, or give ADMM())"
    if chosen:
        return ""
    if pictures < ENOUGH:
        return (
            f"λ is chosen on some of the {what}, of which there should be {ENOUGH} at least, and there are {pictures}"
        )
    if rank > crops * (FOLDS - 1) // FOLDS:
        return f"λ is chosen by fits of three in four of the {crops} crops, which don't allow {rank} concepts"
    return ""


def choose_rank(
    rank: int | Literal["auto"],
    rows: Rows,
    *,
    signed: bool,
    key: Key[Array, ""],
    progress: Progress,
    stopwatch: Stopwatch,
) -> tuple[int, RankScan | None]:
    """How many concepts, and the scan that says so where that is left to it."""
    if rank != "auto":
        return rank, None
    with stopwatch("choice of the rank"), progress("Comparing ranks", 1) as advance:
        ranks = [candidate for candidate in checks.RANKS if candidate <= min(rows.shape)]
        # By the signs of all that is explained, of which the rows are averages.
        scan = rank_scan(in_jax(rows), ranks, key=key, solver=usual_solver(signed=signed, **OF_RANKS))
        advance(1)
    return scan.suggested, scan


def path_of(
    head: Any,
    material: Material,
    rank: int,
    solver: AnySolver,
    start: AnyStart,
    keys: Keys,
    progress: Progress,
    outputs: Outputs,
) -> Path:
    """Solutions along λ, judged on parts of the pictures fitted; those held out are for the scores alone."""
    pictures = material.fitted
    if len(pictures) < 2:
        raise ValueError(
            'faithfulness="auto" chooses λ on some of the pictures, and there is only one; give λ as a number, such as '
            "faithfulness=1e3, or more photographs"
        )
    shuffled = jax.random.permutation(jax.random.fold_in(keys["controls"], 1), len(pictures))
    index, crop_of = material.index, material.crop_of
    # Crops of a single photograph that aren't of the class judge nothing.
    of_pictures = np.where(np.isin(crop_of, index), np.searchsorted(index, crop_of), -1)
    return path_judged_on(
        pictures, head, material.pictures.crop_activations, of_pictures, rank,
        shuffled=np.asarray(shuffled).astype(np.int64), outputs=outputs, single=len(material.pictures.photographs) == 1,
        solver=solver, start=start, key=keys["start"], progress=progress,
    )  # fmt: skip
