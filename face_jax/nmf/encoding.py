"""Codes for activations and a given dictionary: non-negative least squares with its exact derivative."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ..blocks.row_blocks import in_blocks, is_halved
from ..linalg.row_blocks import RowBlocks as Division
from ..linalg.row_shards import explicit, in_auto_axes
from ..linalg.sparse_rows import SparseRows
from ..support.precision import full_precision
from ..support.progress import Progress, tell_more
from ..support.progress_line import Watched, progress_of
from ..support.watched_steps import told_of
from . import divergence_codes, stored_derivative, stored_misfit, validate
from .beta_divergence import BetaDivergence
from .code_stores import CODES, check_codes
from .magnitude import is_one, unit_of
from .memory_needs import check_room
from .nnls.least_squares import codes_of, finished_if_needed
from .objective import WEIGHTS, Objective, SquaredError, Term
from .observed import observed_alone
from .options import CodesKept, Mask, Matrix
from .out_of_core import encode_blocks
from .shapes import Activations, Codes, Dictionary
from .solvers.streamed_walk import group_of, terms_of
from .sparse import encode_sparse, sparse_rows
from .terms import codes_with_terms, lambda_weights

# Encoding is compiled for numbers of rows that are powers of two, from the first one to the second; more rows are
# encoded a part at a time.
_FEWEST_ROWS, _MOST_ROWS = 512, 2**15
# After so many rows somebody who is told is told again: seconds for many concepts.
_TOLD_ROWS = 2**15


@full_precision
def encode(
    activations: Matrix,
    dictionary: ArrayLike,
    *,
    objective: Objective = SquaredError(),  # noqa: B008 (settings: frozen)
    codes: CodesKept = None,
    observed: Mask = None,
    progress: Watched = None,
    start: ArrayLike | None = None,
) -> Any:
    """How much of each concept is in each row: `argmin_U ½‖A − U Wᵀ‖², U ≥ 0`, to rounding.

    The one inference rule for new activations. Whatever the dictionary (dependent concepts, more concepts than
    channels, any units), each row's codes u meet the conditions of a minimum: with each concept's slope
    `s_k = wₖᵀ(W u − a) / ‖wₖ‖` and code `v_k = u_k ‖wₖ‖`,

        |min(s_k, v_k)| ≤ 4 ε (√channels + concepts) (‖a‖ + Σ v),  ε = 1.2e-7 in float32, 3.6e-15 in float64,

    where `Σ v ≤ √concepts ‖a‖` for a non-negative dictionary; the term is what rounding the codes costs. Weights of
    entries, and penalties (the square one as further channels), belong to slopes and lengths. `certify_codes` measures
    it row by row.

    Beyond rounding, a row's codes don't depend on the rows that come with it. Where the minimizer isn't unique, the
    concepts with positive codes are independent, and later duplicates of a concept are left at zero: it's what
    Lawson & Hanson's method finds from zero, the first of equally steep concepts joining. That takes a few times as
    long as independent concepts do; multiples of a concept, and concepts that are zero, cost nothing.

    Differentiable with respect to activations and dictionary in both modes, in closed form on the support and without
    iterating: `dU_S = (W_SᵀW_S)⁻¹ W_Sᵀ dA` and its companion for the dictionary; a code of zero stays zero, also
    that of a duplicate. Unlike the codes, it's solved from products of concepts, to a relative error of about `ε κ²`:
    ε is the dtype's own, κ the condition number of the concepts that a row has. Two of them at an angle of θ cost
    `ε / θ²`, which at 3e-3 is 1 % in float32 and 2e-11 in float64. Works under `jit` and `vmap`. Of sparse activations
    what is differentiated is the squared error of all entries, and the values that a BCOO stores; outside of `jit`.

    **Arguments:**

    - `activations`: `row × channel`, any sign: what lies below zero just has no code. Or rows in blocks, or a sparse
        matrix, as for `factorize`.
    - `dictionary`: `concept × channel`; unit length isn't needed.
    - `objective`: weights of entries and penalties on the codes; with terms, such as `Faithfulness`, the codes
        minimize these too, by projected Newton steps: to rounding behind an affine head, whose problem is convex;
        behind any other to where no step lowers the objective, which is never above that of codes without the terms.
        A term that outweighs the squared error by more than the dtype's digits (in float32 from λ of about 10⁷ on, with
        `ReverseKL` or a head that isn't affine from 10⁵ on) may leave a larger slope: `kkt_residual(..., objective=)`
        measures in its `codes` what is left.
        `BetaDivergence` takes the squared error's place; activations and dictionary have to be at least 0 then
        (under `jit`, where that isn't known, codes of rows that aren't are NaN). For β below 1 or above 2 a row may
        have several minima; its codes are the lowest one that is reached from three starts, and from `start`.
    - `codes`: of rows in blocks, where the codes go: a path that ends in `.npy` or `.zarr`, or None for an array on
        disk that goes with the process.
    - `observed`: where there are missing values: truth values, `row channel`, or of sparse activations "stored" or
        "numbers"; see `factorize`.
    - `progress`: told how many rows are done, as by `face_jax.explain`: a line on a terminal by default. Activations in
        memory go some thousands of rows at a time then, where they are on one device and nothing is traced; elsewhere
        nothing is told.
    - `start`: `row × concept`, at least 0, such as a factorization's codes: with `BetaDivergence` of β below 1 or above
        2 no row's objective ends above the one that it has there. All other codes don't depend on a start.

    **Returns:** the codes, in the activations' dtype, or `float32` for those of 16 bits, which are taken as by
    `factorize`. Raises `ValueError` for NaN, infinity, shapes that don't fit, a
    matrix below the dtype's normal numbers, and codes beyond the dtype's range (under `jit` they are infinite or 0, and
    `certify_codes` says so).

    **Example:**

    >>> dictionary = fj.factorize(A, 3).dictionary
    >>> fj.encode(A[:5], dictionary).shape
    (5, 3)
    """
    sparse = sparse_rows("activations", stored_derivative.constant(activations))
    if sparse is not None:
        if codes is not None:
            raise ValueError("codes= says where codes of rows in blocks go, and these are sparse; leave it out")
        return _of_sparse(activations, sparse, dictionary, objective, observed, progress, start)
    blocks = in_blocks("activations", activations)
    if blocks is None:
        check_room(activations, (*getattr(dictionary, "shape", ()), 1)[0], "encoding", wholes=0.0, codes=1)
        activations = validate.matrix("activations", activations, "row × channel")
        if codes is not None:
            raise ValueError("codes= says where codes of rows in blocks go, and these are in memory; leave it out")
    elif codes is False:
        raise ValueError(f"codes=False leaves nothing of an encoding; give {CODES}".replace(", or False", ""))
    if observed is not None:
        if blocks is not None:
            raise ValueError("observed= is there for activations in memory; leave it out, or give an array")
        objective = validate.misfit(objective)
        activations, objective = observed_alone(activations, objective, observed, channels=False)
    if start is not None and blocks is not None:
        raise ValueError("start= is there for activations in memory; leave it out, or give an array")
    halved = is_halved(activations)
    dtype = activations.dtype if blocks is None else blocks.computed
    dictionary = validate.matrix("dictionary", dictionary, "concept × channel").astype(dtype)
    if blocks is not None:
        activations = blocks
    if blocks is None and (explicit(activations) or explicit(dictionary)):
        again = lambda activations, dictionary, objective, start: encode(  # noqa: E731
            activations, dictionary, objective=objective, start=start
        )
        return in_auto_axes(again, lambda rows: PartitionSpec(rows, None), activations, dictionary, objective, start)
    if activations.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"dictionary has {dictionary.shape[1]} channels and activations have {activations.shape[1]}; "
            "encode activations of the layer that the dictionary was fitted on"
        )
    if blocks is None:
        validate.factorizable("activations", activations, signed=True)
    validate.factorizable("dictionary", dictionary, signed=True)
    if blocks is not None:
        validate.squared_error(objective)
    objective = validate.misfit(objective)
    if isinstance(objective, BetaDivergence) and objective.beta == 2:
        objective = objective.quadratic
    validate.penalties(objective, both=False)
    if blocks is not None:
        if terms := lambda_weights.active(objective):
            lambda_weights.check_weights(objective)
        whole = objective.quadratic.with_terms(terms)
        found = encode_blocks(blocks, dictionary, whole, check_codes(codes), progress_of(progress))
        return jnp.asarray(found) if codes is None and halved else found
    begun = _begun(start, activations.shape[0], dictionary)
    fit = validate.weights_of(objective, activations)
    if fit.squared_error and (terms := lambda_weights.active(objective)):
        lambda_weights.check_weights(objective)
        fit = fit.with_terms(terms)
    known = not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((activations, dictionary, fit)))
    alone = known and activations.size > 0 and len(activations.devices()) == 1
    told = told_of(progress, *activations.shape) if alone else None
    if told is None:
        found, lost, some = _encoded(activations, dictionary, fit, begun)
    else:
        found, lost, some = _in_parts(activations, dictionary, fit, told, begun)
    if not isinstance(some, Tracer) and bool(some):
        count, (first,) = validate.found(lost)
        low, high = jnp.finfo(found.dtype).tiny, jnp.finfo(found.dtype).max
        raise ValueError(
            f"codes of {count} rows, the first {first}, leave the range of {found.dtype} "
            f"({low:.0e} to {high:.0e}), so different are the units of activations and dictionary; multiply one "
            "of them with a number that brings them closer, or give float64"
        )
    return found


def _begun(start: ArrayLike | None, rows: int, dictionary: Dictionary) -> Codes | None:
    """Codes to start from, checked."""
    if start is None:
        return None
    codes, shape = validate.matrix("start", start, "row × concept"), (rows, dictionary.shape[0])
    if codes.shape != shape:
        raise ValueError(f"start has shape {codes.shape}; activations and dictionary need {shape}")
    validate.finite("start", codes)
    validate.non_negative("start", codes, "codes are at least 0; clamp them")
    return codes.astype(dictionary.dtype)


def _of_sparse(
    activations: Any, rows: SparseRows, dictionary: ArrayLike, objective: Any, observed: Any, progress: Watched,
    start: ArrayLike | None,
) -> Codes:  # fmt: skip
    given = validate.matrix("dictionary", dictionary, "concept × channel").astype(rows.dtype)
    concepts = stored_derivative.constant(given)
    stored_derivative.refuse("dictionary", concepts, "give all entries of activations")
    if rows.shape[1] != concepts.shape[1]:
        raise ValueError(
            f"dictionary has {concepts.shape[1]} channels and activations have {rows.shape[1]}; "
            "encode activations of the layer that the dictionary was fitted on"
        )
    validate.factorizable("dictionary", concepts, signed=True)
    begun = _begun(start, rows.shape[0], concepts)
    if stored_misfit.wanted(objective, observed):
        stored_derivative.refuse_derivatives(activations, given, objective)
        return stored_misfit.encode_stored(rows, concepts, objective, observed, begun)
    objective = validate.misfit(objective)
    validate.penalties(objective, both=False)
    return encode_sparse("activations", activations, rows, given, objective, partial(encode, progress=progress))


def _divergence_codes(
    activations: Activations, dictionary: Dictionary, objective: BetaDivergence, begun: Codes | None
) -> Codes:
    validate.divergence_defined("activations", activations, objective)
    validate.non_negative(
        "dictionary", dictionary, "a β-divergence measures non-negative products; give SquaredError(), or clamp them"
    )
    unit = unit_of(activations, objective)
    wrong = None
    if any(isinstance(x, Tracer) for x in (activations, dictionary, objective.weights)):
        wrong = jnp.any(validate.undefined(activations, objective), axis=1) | jnp.any(dictionary < 0)
    if is_one(unit):
        codes = divergence_codes.codes_of(activations, dictionary, objective, begun)
    else:
        activations, objective = unit.into(activations, objective)
        begun = None if begun is None else begun / unit.root
        codes = divergence_codes.codes_of(activations, dictionary / unit.root, objective, begun) * unit.root
    return codes if wrong is None else jnp.where(wrong[:, None], jnp.nan, codes)


@partial(jax.jit, static_argnames="finished")
def _codes_of(
    activations: Activations, dictionary: Dictionary, quadratic: SquaredError, *, finished: bool
) -> tuple[Codes, Bool[Array, " row"], Bool[Array, ""]]:
    codes, lost = codes_of(activations, dictionary, quadratic, finished=finished)
    return codes, lost, jnp.any(lost)


def _encoded(
    activations: Activations, dictionary: Dictionary, objective: Any, begun: Codes | None = None
) -> tuple[Codes, Any, Any]:
    """The codes, what is known of rows whose codes leave the dtype's range, and whether there are any."""
    if not objective.squared_error:
        return _divergence_codes(activations, dictionary, objective, begun), None, False
    if objective.terms:
        return codes_with_terms.encode(activations, dictionary, objective), None, False
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((activations, dictionary, objective))):
        return finished_if_needed(_codes_of, activations, dictionary, objective)
    return _codes_of(activations, dictionary, objective, finished=True)


def _in_parts(
    activations: Activations, dictionary: Dictionary, objective: Any, progress: Progress, begun: Codes | None
) -> tuple[Codes, Any, Any]:
    """The same of some rows after the other, so that the compiled loops needn't tell how far they are."""
    total = activations.shape[0]
    terms = [weighted.term for weighted in objective.terms]
    # What doesn't say what it is for some rows sees all of them.
    told = all(type(term).of_groups is not Term.of_groups for term in terms)
    group = 1 if not terms else group_of(objective, total) if told else total
    blocks = Division.of(total, _TOLD_ROWS, together=group)
    codes, lost, since = [], [], time.perf_counter()
    with progress("Encoding", total) as advance:
        for number in range(blocks.count):
            # The last part begins where it has as many rows as the others.
            start = blocks.start(jnp.asarray(number))
            new = blocks.size * number - int(start)
            rows, part, first = activations, objective, begun
            if blocks.count > 1:
                rows, part = _part_of(activations, objective, blocks, start, group)
                first = blocks.take(begun, start)
            found, gone, _ = _encoded(rows, dictionary, part, first)
            codes.append(jax.block_until_ready(found[new:]))
            lost.append(None if gone is None else gone[new:])
            done = blocks.size - new
            tell_more(advance, f"{done / max(time.perf_counter() - since, 1e-9):.2g} rows/s")
            since = time.perf_counter()
            advance(done)
    all_lost = None if lost[0] is None else jnp.concatenate(lost)
    return jnp.concatenate(codes), all_lost, False if all_lost is None else jnp.any(all_lost)


def _part_of(activations: Activations, objective: Any, blocks: Division, start: Array, group: int) -> tuple[Array, Any]:
    """Some rows, with what of the objective is theirs."""
    weights = {name: getattr(objective, name) for name in WEIGHTS}
    activations, theirs = blocks.take((activations, weights), start)
    if objective.terms:
        groups = np.arange(int(start) // group, (int(start) + blocks.size) // group)
        theirs["terms"] = terms_of(objective, blocks.rows, group, groups)
    return activations, dataclasses.replace(objective, **theirs)


@full_precision
def encode_maps(
    maps: Float[np.ndarray, "image y x channel"], dictionary: Float[np.ndarray, "concept channel"]
) -> Float[np.ndarray, "image y x concept"]:
    """Codes at every place of maps, by non-negative least squares."""
    places = maps.reshape(-1, maps.shape[-1])
    codes = [_encode_rows(places[at : at + _MOST_ROWS], dictionary) for at in range(0, max(1, len(places)), _MOST_ROWS)]
    return np.concatenate(codes).reshape(*maps.shape[:-1], len(dictionary))


def _encode_rows(
    places: Float[np.ndarray, "row channel"], dictionary: Float[np.ndarray, "concept channel"]
) -> Float[np.ndarray, "row concept"]:
    # Rows of zeros cost nothing beside compiling for each number of rows.
    padded = np.zeros((max(_FEWEST_ROWS, 1 << (len(places) - 1).bit_length()), places.shape[1]), places.dtype)
    padded[: len(places)] = places
    found = encode(jnp.asarray(padded), jnp.asarray(dictionary, places.dtype), progress=False)
    return np.asarray(found)[: len(places)]
