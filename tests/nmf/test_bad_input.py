"""Bad input is refused before any work, by an error that names the argument, the value and the remedy."""

import re

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from face_jax import nmf as ff
from face_jax.nmf import memory_needs, validate
from face_jax.support import memory

A = np.random.default_rng(0).random((60, 12))
BAD = A.copy()
BAD[2, 3], BAD[7, 1] = np.nan, np.inf
SIGNED = A - 0.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((BAD, 4), ["activations", "2 entries", r"\(2, 3\)", "weights"]),
        ((SIGNED, 4), ["activations", f"{(SIGNED < 0).sum()} of 720", "lowest -0.2", "SemiNMF", "ReLU"]),
        ((A[:0], 4), ["activations", "empty", r"\(0, 12\)"]),
        ((A[0], 4), ["activations", r"\(12,\)", "matrix"]),
        ((A[None], 4), ["activations", "reshape"]),
        ((A.astype(object), 4), ["activations", "object", "np.float32"]),
        ((A.astype(jnp.float8_e4m3fn), 4), ["activations", "float8_e4m3fn", "too coarse", "float32"]),
        ((A.astype(complex), 4), ["activations", "complex"]),
        ((A, 0), ["rank=0"]),
        ((A, -3), ["rank=-3"]),
        ((A, True), ["rank=True"]),
    ],
)
def test_factorize_refuses(arguments, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        ff.factorize(*arguments)
    for word in words:
        assert re.search(word, str(caught.value)), f"{word} is not in: {caught.value}"


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (ff.SquaredError(l1_codes=0.1), "l2_dictionary"),
        (ff.SquaredError(l2_dictionary=0.1), "l2_codes"),
        (ff.SquaredError(l1_codes=-1.0, l1_dictionary=1.0), "l1_codes=-1"),
        (ff.SquaredError(l2_codes=float("nan"), l2_dictionary=1.0), "l2_codes=nan"),
        (ff.SquaredError(weights=jnp.ones((3, 3))), r"weights has shape \(3, 3\)"),
        (ff.SquaredError(weights=-jnp.ones((60, 12))), "weights has 720 of 720 entries below zero"),
        (ff.SquaredError(row_weights=jnp.ones(7)), "60 rows"),
    ],
)
def test_factorize_refuses_objectives(objective, words):
    with pytest.raises(ValueError, match=words):
        ff.factorize(A, 4, objective=objective)


def test_a_rank_that_is_no_integer_is_refused():
    with pytest.raises(ValueError, match=r"rank=2\.5 isn't an integer"):
        validate.rank_of(2.5)


def test_factorize_refuses_starts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"start.codes has shape \(60, 3\)"):
        ff.factorize(A, 4, start=ff.Given(jnp.ones((60, 3)), jnp.ones((3, 12))))
    with pytest.raises(ValueError, match=r"start.dictionary has shape \(4, 11\)"):
        ff.factorize(A, 4, start=ff.Given(jnp.ones((60, 4)), jnp.ones((4, 11))))
    with pytest.raises(ValueError, match=r"start\.codes has 240 of 240 entries below zero"):
        ff.factorize(A, 4, start=ff.Given(-jnp.ones((60, 4)), jnp.ones((4, 12))))


@pytest.mark.parametrize(
    ("activations", "dictionary", "words"),
    [
        (A, np.ones((4, 11)), "11 channels and activations have 12"),
        (BAD, np.ones((4, 12)), "activations has 2 entries"),
        (A, np.full((4, 12), np.nan), "dictionary has 48 entries"),
        (A, np.ones(12), "dictionary has shape"),
        (A, np.ones((0, 12)), "dictionary is empty"),
    ],
)
def test_encode_refuses(activations, dictionary, words):
    with pytest.raises(ValueError, match=words):
        ff.encode(activations, dictionary)


def test_rank_scan_refuses():
    with pytest.raises(ValueError, match="ranks is empty"):
        ff.rank_scan(A, (), key=jax.random.key(0))
    with pytest.raises(ValueError, match="folds=1"):
        ff.rank_scan(A, (2,), key=jax.random.key(0), folds=1)
    with pytest.raises(ValueError, match=r"left_out=1\.5"):
        ff.rank_scan(A, (2,), key=jax.random.key(0), left_out=1.5)


@pytest.mark.parametrize("rank", [2**31, 10**30])
@pytest.mark.parametrize("function", [ff.factorize, lambda A, rank: ff.factorize_many([A, A], rank)])
def test_a_rank_that_nothing_can_hold_is_refused(function, rank):
    with pytest.raises(ValueError, match=rf"^rank={rank} is more concepts than an array can have"):
        function(A, rank)


def test_overflow_is_told_not_hidden():
    # Its codes are as long as its rows, longer than the largest number.
    huge = np.full((60, 12), 3e38, np.float32)
    with pytest.raises(ff.FactorizationError, match="NaN or infinity"):
        ff.factorize(huge, 4)
    solution = ff.factorize(huge, 4, throw=False)
    assert solution.result == ff.RESULTS.nonfinite


# Both dtypes, one concept and more of them than rows or channels: each combination is programs of its own.
SIZES = ((np.float32, (6, 4), 3), (np.float64, (6, 4), 1), (np.float64, (1, 4), 3), (np.float32, (6, 1), 3))


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    st.sampled_from(SIZES).flatmap(
        lambda size: st.tuples(
            hnp.arrays(size[0], size[1], elements=st.floats(0, 100, width=32, allow_subnormal=False)), st.just(size[2])
        )
    )
)
def test_any_non_negative_matrix_gives_feasible_finite_factors(given):
    A, rank = given
    solution = ff.factorize(A, rank, solver=ff.ADMM(max_steps=20))
    codes, dictionary = np.asarray(solution.codes), np.asarray(solution.dictionary)
    assert codes.dtype == A.dtype
    assert np.isfinite(codes).all()
    assert np.isfinite(dictionary).all()
    assert codes.min() >= 0
    assert dictionary.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1, rtol=1e-5)
    size = (A.astype(np.float64) ** 2).sum()
    assert float(solution.stats.final_objective) <= size / 2 * (1 + 1e-4)
    residual = A - codes @ dictionary
    again = np.asarray(ff.encode(A, dictionary))
    assert ((A - again @ dictionary) ** 2).sum() <= (residual**2).sum() + 1e-5 * size


class _WithArray:
    def __array__(self, dtype=None, copy=None):
        return A if dtype is None else A.astype(dtype)


@pytest.mark.parametrize(
    "given",
    [
        A.astype(">f8"),
        np.asfortranarray(A),
        np.repeat(A, 2, axis=1)[:, ::2],
        A[::-1][::-1],
        A.astype(np.longdouble),
        A.tolist(),
        np.ma.masked_array(A),
        np.ma.masked_array(A, np.zeros(A.shape, bool)),
        _WithArray(),
    ],
    ids=["big-endian", "fortran", "strided", "reversed", "long", "list", "masked", "none masked", "__array__"],
)
def test_arrays_in_any_layout_are_the_same_numbers(given):
    if not isinstance(given, np.ndarray):
        # Where types are checked, as here, they don't get further.
        given = validate.matrix("activations", given, "row × channel")
    solver, dictionary = ff.HALS(max_steps=3), A[:4]
    expected = ff.factorize(A, 4, solver=solver)
    np.testing.assert_array_equal(ff.factorize(given, 4, solver=solver).codes, expected.codes)
    np.testing.assert_array_equal(ff.encode(given, dictionary), ff.encode(A, dictionary))


def test_the_room_for_numbers_of_torch_is_counted(monkeypatch):
    asked = []
    monkeypatch.setattr(memory_needs, "_LARGE", 1)
    monkeypatch.setattr(memory_needs, "check_memory", lambda needed, *words: asked.append(needed))
    for given in (A.astype(np.float32), torch.from_numpy(A.astype(np.float32)), jnp.asarray(A, np.float32)):
        memory_needs.check_room(given, 4, "factorizing", wholes=0.5, codes=10)
    # JAX's own aren't copied.
    assert asked == [60 * (18 + 40) * 4] * 2 + [60 * (6 + 40) * 4]


class Device:
    """An accelerator of which so much is taken."""

    platform = "gpu"

    def __init__(self, taken):
        self.id = self.taken = taken

    def memory_stats(self):
        return {"bytes_limit": 60 * 60 * 4, "bytes_in_use": self.taken} if self.taken is not None else None


def test_what_lies_on_an_accelerator_has_to_fit_there(monkeypatch):
    monkeypatch.setattr(memory_needs, "_LARGE", 1)
    monkeypatch.setattr(memory, "free_memory", lambda: 0)
    given = {"rank": 4, "doing": "encoding", "wholes": 0.5, "codes": 10}
    for devices, room in (([Device(0)], True), ([Device(None)], True), ([Device(0), Device(4000)], False)):
        monkeypatch.setattr(memory_needs, "_share", lambda _, devices=devices: ((60, 12), devices))
        if room:
            memory_needs.check_room(A.astype(np.float32), **given)
            continue
        with pytest.raises(
            memory.NotEnoughMemoryError, match=r"encoding 60 × 12 .* spread their rows over more devices"
        ):
            memory_needs.check_room(A.astype(np.float32), **given)


def test_every_way_of_activations_into_memory_looks_for_room(monkeypatch):
    monkeypatch.setattr(memory_needs, "_LARGE", 1)
    monkeypatch.setattr(memory, "free_memory", lambda: 10)
    for call, what in (
        (lambda: ff.factorize(A, 4), "factorizing 60 × 12"),
        (lambda: ff.encode(A, np.ones((2, 12))), "encoding 60 × 12"),
        (lambda: ff.rank_scan(A, (2, 3)), "comparing ranks of 60 × 12"),
        (lambda: ff.factorize_many([A, A, A[:30]], 2), "factorizing 2 matrices"),
    ):
        with pytest.raises(memory.NotEnoughMemoryError, match=rf"{what} .*in memory.* RowBlocks|{what} .*RowBlocks"):
            call()


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">u4", "<i8", np.int8, bool])
def test_other_byte_orders_are_converted(dtype):
    whole = (10 * A).astype(dtype)
    plain = whole.astype(np.float32 if np.dtype(dtype) == ">f4" else np.float64)
    found, expected = (ff.factorize(x, 4, solver=ff.HALS(max_steps=3)) for x in (whole, plain))
    assert found.codes.dtype == plain.dtype
    np.testing.assert_array_equal(found.codes, expected.codes)
    weights, codes, dictionary = ((10 * x).astype(">f8") for x in (A, A[:, :4], A[:4]))

    def solved(form):
        # Where types are checked, as here, JAX's arrays alone get so far.
        objective, start = ff.SquaredError(), ff.Given(jnp.asarray(A[:, :4]), jnp.asarray(A[:4]))
        object.__setattr__(objective, "weights", form(weights))
        object.__setattr__(start, "codes", form(codes))
        object.__setattr__(start, "dictionary", form(dictionary))
        return ff.factorize(A, 4, objective=objective, start=start, solver=ff.HALS(max_steps=3)).codes

    np.testing.assert_array_equal(solved(lambda x: x), solved(lambda x: jnp.asarray(x.astype(float))))


def test_masked_entries_are_refused():
    masked = np.ma.masked_array(A, np.eye(60, 12, dtype=bool))
    for call in (lambda: ff.factorize(masked, 4), lambda: ff.encode(masked, A[:4]), lambda: ff.encode(A, masked[:4])):
        with pytest.raises(ValueError, match=r"masked array with \d+ masked entries.*filled"):
            call()
