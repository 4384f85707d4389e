"""Codes are at the minimum whatever the dictionary, its units and the rows beside them; and certificates can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from face_jax import nmf as ff
from face_jax.nmf.nnls.least_squares import concept_exponents, repeated

ROWS, CONCEPTS, CHANNELS = 40, 10, 6
SIX = np.array([[7, 3, 2], [9, 1, 3], [6, 7, 6], [8, 0, 3], [5, 4, 3], [3, 0, 1]], np.float32)
DTYPES = (np.float32, np.float64)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def _duplicated(W, rng):
    W[5:] = W[:5]


def _mixtures(W, rng):
    W[3:] = rng.dirichlet(np.ones(3), 7) @ W[:3]


def _near(W, rng):
    W[5:] = W[:5] * (1 + 10.0 ** rng.uniform(-8, -3, (5, 1)) * rng.standard_normal((5, CHANNELS)))


def _zeros(W, rng):
    W[::3] = 0


def _low_rank(W, rng):
    W[:] = rng.random((CONCEPTS, 2)) @ rng.random((2, CHANNELS))


def _own_scales(W, rng):
    W *= 10.0 ** rng.uniform(-30, 30, (CONCEPTS, 1))


def _integers(W, rng):
    W[:] = rng.integers(0, 4, W.shape)


def _signed(W, rng):
    W[:] = rng.standard_normal(W.shape)


def _more_than_channels(W, rng):
    pass


KINDS = (
    _more_than_channels, _duplicated, _mixtures, _near, _zeros, _low_rank, _own_scales, _integers, _signed,
)  # fmt: skip
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__[1:])


def problem(kind, dtype, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.random((CONCEPTS, CHANNELS)) * (rng.random((CONCEPTS, CHANNELS)) < 0.8)
    A = rng.standard_normal((ROWS, CHANNELS))
    A[10:] = rng.random((30, CHANNELS))
    A[30:] = rng.random((10, CONCEPTS)) @ W
    kind(W, rng)
    return A.astype(dtype), W[rng.permutation(CONCEPTS)].astype(dtype)


def lengths_of(W):
    """In extended precision, whose range has room for squares of anything here."""
    length = np.sqrt((W.astype(np.longdouble) ** 2).sum(axis=1))
    return np.where(length > 0, length, 1)


def lowest(A, W):
    """SciPy's residual norms, relative to the row's length, for concepts of unit length."""
    rows = (A / lengths_of(A)[:, None]).astype(np.float64)
    units = (W / lengths_of(W)[:, None]).astype(np.float64)
    return np.array([scipy.optimize.nnls(units.T, row)[1] for row in rows])


def missed(A, W, codes):
    wide = codes.astype(np.longdouble) @ W.astype(np.longdouble) - A
    return (np.sqrt((wide**2).sum(axis=1)) / lengths_of(A)).astype(np.float64)


def violation(A, W, codes):
    A, W, codes = (np.asarray(x, np.longdouble) for x in (A, W, codes))
    lengths, v = lengths_of(W), codes * lengths_of(W)
    slope = (codes @ W - A) @ (W / lengths[:, None]).T
    whole = np.sqrt((A**2).sum(axis=1)) + v.sum(axis=1)
    return (np.abs(np.minimum(slope, v)).max(axis=1) / np.where(whole > 0, whole, 1)).astype(np.float64)


def tolerance(dtype, channels=CHANNELS, concepts=CONCEPTS):
    return 4 * {np.float32: 2.0**-23, np.float64: 2.0**-48}[dtype] * (channels**0.5 + concepts)


@each_dtype
@each_kind
def test_every_row_is_at_the_minimum_that_scipy_finds(kind, dtype):
    A, W = problem(kind, dtype)
    codes = np.asarray(ff.encode(A, W))
    assert codes.dtype == dtype
    assert codes.min() >= 0
    assert violation(A, W, codes).max() <= tolerance(dtype)
    # A minimum that's found to slopes of τ is higher by no more than τ times the codes' sum.
    excess = missed(A, W, codes) ** 2 - lowest(A, W) ** 2
    assert excess.max() <= 4 * CONCEPTS * tolerance(dtype)
    certificate = ff.certify_codes(A, codes, W)
    assert bool(certificate.met.all())
    np.testing.assert_allclose(certificate.violation, violation(A, W, codes), atol=tolerance(dtype))
    np.testing.assert_allclose(certificate.tolerance, tolerance(dtype), rtol=1e-6)


@each_dtype
@each_kind
def test_a_row_alone_has_the_codes_that_it_has_in_company(kind, dtype):
    A, W = problem(kind, dtype, seed=1)
    together = np.asarray(ff.encode(A, W))
    size = lengths_of(W)[None] / lengths_of(A)[:, None]
    for row in range(0, ROWS, 9):
        alone = np.asarray(ff.encode(A[row : row + 1], W))[0]
        difference = (np.abs(alone - together[row]) * size[row]).max()
        assert difference <= 2e4 * np.finfo(dtype).eps


@each_dtype
@pytest.mark.parametrize("seed", range(3))
def test_the_tolerance_holds_for_two_concepts_that_are_nearly_one(dtype, seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((ROWS, 2)).astype(dtype)
    W = (1 + 10.0 ** rng.uniform(-4, 0) * rng.random((2, 2))).astype(dtype)
    assert violation(A, W, np.asarray(ff.encode(A, W))).max() <= tolerance(dtype, 2, 2)


def test_more_concepts_than_channels_of_integers():
    a = np.array([[7, 8, 2]], np.float32)
    codes = np.asarray(ff.encode(a, SIX))
    np.testing.assert_allclose(((a - codes @ SIX) ** 2).sum(), 10.42, rtol=1e-5)
    np.testing.assert_allclose(codes, [[0, 0, 0, 0, 1.46, 0]], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_twenty_five_concepts_of_rank_eight(seed):
    rng = np.random.default_rng(seed)
    W = (rng.random((25, 8)) @ rng.random((8, 512))).astype(np.float32)
    A = rng.random((60, 512)).astype(np.float32)
    codes = np.asarray(ff.encode(A, W))
    assert violation(A, W, codes).max() <= tolerance(np.float32, 512, 25)
    np.testing.assert_allclose(missed(A, W, codes), lowest(A, W), rtol=1e-6)


def test_later_duplicates_are_left_at_zero():
    A, W = problem(_duplicated, np.float64)
    W = np.random.default_rng(0).random((4, CHANNELS))
    W = np.concatenate([W[:1], W[:1], W[1:2], W[:1], W[1:2] * 2, W[2:3]] + [W[3:4]] * 4)
    codes = np.asarray(ff.encode(A, W))
    assert codes[:, [0, 2, 5, 6]].max(axis=0).min() > 0
    assert not codes[:, [1, 3, 4, 7, 8, 9]].any()


@each_dtype
def test_multiples_of_a_concept_are_known_and_nothing_else_is_taken_for_one(dtype):
    W = np.random.default_rng(0).random((CONCEPTS, CHANNELS)).astype(dtype)
    W[2], W[3], W[4] = dtype(0.3) * W[1], -W[1], W[1] * (1 + 1e3 * np.finfo(dtype).eps * W[0])
    W[5], W[6], W[7] = W[1], 0, dtype(1e20) * W[0]

    def found(l1=0.0, l2=0.0):
        dictionary, l1, l2 = (jnp.asarray(x, dtype) for x in (W, l1, l2))
        exponents = concept_exponents(dictionary, l2)
        units = dictionary * 2.0 ** -exponents[:, None].astype(dtype)
        return list(np.flatnonzero(repeated(units, exponents, l1, l2)))

    assert found() == [2, 5, 7]
    assert found(l1=0.1) == [5]  # a longer one costs less
    assert found(l2=0.1) == []  # cheapest when shared


@each_dtype
def test_codes_beside_a_multiple_are_those_without_it(dtype):
    A, W = problem(_signed, dtype)
    W[7] = dtype(0.3) * W[1]
    rest = np.delete(np.arange(CONCEPTS), 7)
    codes = np.asarray(ff.encode(A, W))
    assert not codes[:, 7].any()
    assert violation(A, W, codes).max() <= tolerance(dtype)
    excess = missed(A, W, codes) ** 2 - lowest(A, W[rest]) ** 2
    assert np.abs(excess).max() <= 4 * CONCEPTS * tolerance(dtype)


def test_the_longer_of_two_multiples_is_cheaper_where_codes_are_penalized():
    w = np.random.default_rng(0).random(CHANNELS)
    W = np.stack([w, 2 * w])
    codes = np.asarray(ff.encode(w[None], W, objective=ff.SquaredError(l1_codes=0.1)))
    np.testing.assert_allclose(codes, [[0, (2 * w @ w - 0.1) / (4 * w @ w)]], atol=1e-12)


@each_dtype
@pytest.mark.parametrize(
    ("of_dictionary", "of_rows"), [(1e-21, 1), (1e-30, 1e-10), (1e30, 1e30), (1e-30, 1e-30), (1, 1e-30)]
)
def test_units_make_no_difference(dtype, of_dictionary, of_rows):
    A, W = problem(_more_than_channels, dtype)
    usual = np.asarray(ff.encode(A, W))
    rows, concepts = A * dtype(of_rows), W * dtype(of_dictionary)
    codes = np.asarray(ff.encode(rows, concepts))
    scale = np.longdouble(of_rows) / np.longdouble(of_dictionary)
    np.testing.assert_allclose(
        (codes / scale).astype(np.float64),
        usual,
        rtol=1e3 * np.finfo(dtype).eps,
        atol=1e-5 if dtype == np.float32 else 1e-13,
    )
    assert bool(ff.certify_codes(rows, codes, concepts).met.all())


def test_rows_of_different_units_beside_each_other():
    A, W = problem(_integers, np.float32)
    scale = 2.0 ** np.random.default_rng(0).integers(-120, 110, (ROWS, 1))
    usual = np.asarray(ff.encode(A, W))
    codes = np.asarray(ff.encode((A * scale).astype(np.float32), W))
    np.testing.assert_allclose(codes / scale, usual, rtol=1e-5, atol=1e-6)


def test_codes_beyond_the_range_are_refused_or_told_in_the_certificate():
    small, large = np.full((2, 2), 1e-25, np.float32), np.full((2, 2), 1e25, np.float32)
    for A, W in ((large, small), (small, large)):
        with pytest.raises(ValueError, match="leave the range of float32"):
            ff.encode(A, W)
        codes = jax.jit(ff.encode)(A, W)
        assert not bool(ff.certify_codes(A, codes, W).met.any())


@each_dtype
@each_kind
def test_certificate_fails_for_codes_that_are_changed(kind, dtype):
    A, W = problem(kind, dtype)
    codes = np.asarray(ff.encode(A, W))
    rng = np.random.default_rng(2)
    concept = rng.permuted(np.broadcast_to(np.arange(CONCEPTS), codes.shape), axis=1)
    live = np.abs(W).max(axis=1) > 0
    concept = np.array([next(k for k in row if live[k]) for row in concept])
    step = 1e3 * tolerance(dtype) * lengths_of(A) / lengths_of(W)[concept]
    for sign in (1, -1):
        changed = codes.copy()
        changed[np.arange(ROWS), concept] += (sign * step).astype(dtype)
        assert not bool(ff.certify_codes(A, changed, W).met.any())
    spoilt = codes.copy()
    spoilt[3, 0], spoilt[5] = np.nan, 0
    met = np.asarray(ff.certify_codes(A, spoilt, W).met)
    assert not met[3]
    assert met[5] == (not codes[5].any())


def test_a_row_that_is_as_good_as_zero_does_not_stop_the_others():
    A, W = problem(_integers, np.float32)
    usual = np.asarray(ff.encode(A, W))
    A[3] = np.float32(2e-38)
    W[0] *= 64
    codes = np.asarray(ff.encode(A, W))
    assert codes[3].max() <= 2e-38
    np.testing.assert_allclose(np.delete(codes, 3, 0)[:, 1:], np.delete(usual, 3, 0)[:, 1:], atol=1e-4)


def test_growth_says_where_concepts_cancel():
    W = np.array([[1, 0], [-1, 1e-3]])
    found = ff.certify_codes(np.array([[0.0, 1.0]]), ff.encode(np.array([[0.0, 1.0]]), W), W)
    np.testing.assert_allclose(found.growth, 2000, rtol=1e-5)
    assert bool(found.met.all())


@each_dtype
@pytest.mark.parametrize(
    "kind", [_more_than_channels, _duplicated, _near, _low_rank], ids=lambda kind: kind.__name__[1:]
)
def test_weights_and_penalties_are_solved_and_certified_too(kind, dtype):
    A, W = problem(kind, dtype)
    rng = np.random.default_rng(3)
    weights = (rng.random(A.shape) * (rng.random(A.shape) < 0.8)).astype(dtype)
    weights[:, 0] = 1
    weights[::4] *= dtype(1e-20)
    objective = ff.SquaredError(weights=jnp.asarray(weights))
    codes = np.asarray(ff.encode(A, W, objective=objective))
    roots = np.sqrt(weights.astype(np.float64))
    for row in range(ROWS):
        scaled, concepts = (roots[row] * A[row])[None], roots[row] * W
        assert violation(scaled, concepts, codes[row : row + 1]) <= tolerance(dtype)
        np.testing.assert_allclose(
            missed(scaled, concepts, codes[row : row + 1]) ** 2,
            lowest(scaled, concepts) ** 2,
            atol=4 * CONCEPTS * tolerance(dtype),
        )
    assert bool(ff.certify_codes(A, codes, W, objective=objective).met.all())
    assert not bool(ff.certify_codes(A, codes + dtype(0.01), W, objective=objective).met.any())
    objective = ff.SquaredError(l1_codes=0.1, l2_codes=0.02)
    codes = np.asarray(ff.encode(A, W, objective=objective))
    # The square penalty is a channel for each concept, the linear one moves the slope.
    wide = np.concatenate([W, np.sqrt(0.02) * np.eye(CONCEPTS)], axis=1).astype(np.float64)
    lengths, v = np.linalg.norm(wide, axis=1), codes * np.linalg.norm(wide, axis=1)
    slope = ((codes @ W.astype(np.float64) - A) @ W.T.astype(np.float64) + 0.1 + 0.02 * codes) / lengths
    assert np.abs(np.minimum(slope, v)).max() <= tolerance(dtype) * 10
    assert bool(ff.certify_codes(A, codes, W, objective=objective).met.all())
    assert not bool(ff.certify_codes(A, codes, W).met.all())


def test_a_square_penalty_keeps_tiny_concepts_in_range():
    A, W = problem(_integers, np.float32)
    W[0] *= np.float32(1e-30)
    objective = ff.SquaredError(l2_codes=0.5)
    codes = np.asarray(ff.encode(A, W, objective=objective))
    assert np.isfinite(codes).all()
    assert bool(ff.certify_codes(A, codes, W, objective=objective).met.all())


@pytest.mark.parametrize("kind", [_duplicated, _more_than_channels], ids=lambda kind: kind.__name__[1:])
def test_derivative_of_dependent_concepts_agrees_with_differences(kind):
    A, W = (jnp.asarray(x) for x in problem(kind, np.float64))
    # Rows that have enough codes lie in the cone, where others' multipliers are zero: those are at a kink.
    codes = ff.encode(A, W)
    slope = (codes @ W - A) @ W.T
    first = np.array([k for k in range(CONCEPTS) if not any(np.array_equal(W[k], W[j]) for j in range(k))])
    gap = np.where(codes > 0, codes, slope)[:, first].min(axis=1)
    rows = np.flatnonzero(gap > 1e-3)
    assert len(rows) > 5
    change = jnp.asarray(np.random.default_rng(4).standard_normal(A.shape))
    found = jax.jvp(lambda A: ff.encode(A, W), (A,), (change,))[1]
    step = 1e-6
    expected = (ff.encode(A + step * change, W) - ff.encode(A - step * change, W)) / (2 * step)
    assert float(jnp.abs(expected[rows]).max()) > 0.1
    np.testing.assert_allclose(found[rows], expected[rows], atol=1e-7)
    weights = jnp.asarray(np.random.default_rng(5).standard_normal((*A.shape[:1], CONCEPTS)))
    loss = lambda A, W: jnp.sum(weights * ff.encode(A, W))  # noqa: E731
    gradients = jax.jit(jax.grad(loss, (0, 1)))(A, W)
    assert all(bool(jnp.isfinite(part).all()) for part in gradients)
    np.testing.assert_allclose(jnp.sum(gradients[0] * change), jnp.sum(weights * found), rtol=1e-10)
    if kind is _duplicated:
        mapped = jax.vmap(jax.grad(loss), (0, None))(jnp.stack([A, A[::-1]]), W)
        np.testing.assert_allclose(mapped[0], gradients[0], atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "apart"), [(np.float32, 0.1), (np.float32, 0.02), (np.float64, 1e-3), (np.float64, 1e-5)]
)
def test_derivative_of_concepts_that_are_nearly_one_is_as_precise_as_stated(dtype, apart):
    rng = np.random.default_rng(6)
    W = rng.random((4, CHANNELS))
    W[1] = W[0] * (1 + apart * rng.standard_normal(CHANNELS))
    A = ((rng.random((ROWS, 4)) + 0.5) @ W).astype(dtype)
    W, change = W.astype(dtype), rng.standard_normal(A.shape).astype(dtype)
    codes, found = jax.jvp(lambda A: ff.encode(A, W), (jnp.asarray(A),), (jnp.asarray(change),))
    assert bool((codes > 0).all())
    # By orthogonalization, which costs κ and not its square.
    expected = np.linalg.lstsq(W.T.astype(np.float64), change.T.astype(np.float64))[0].T
    kappa = np.linalg.cond(W.astype(np.float64))
    assert kappa > 1 / apart
    off = np.linalg.norm(np.asarray(found) - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() <= 4 * np.finfo(dtype).eps * kappa**2


def test_derivative_in_any_units():
    A, W = (jnp.asarray(x) for x in problem(_signed, np.float64))
    W = W[:4]
    weights = jnp.asarray(np.random.default_rng(5).standard_normal((ROWS, 4)))
    loss = lambda A, W: jnp.sum(weights * ff.encode(A, W))  # noqa: E731
    usual = jax.grad(loss, (0, 1))(A, W)
    a, w = 3e-20, 7e25
    found = jax.grad(loss, (0, 1))(a * A, w * W)
    np.testing.assert_allclose(found[0] * w, usual[0], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found[1] * w**2 / a, usual[1], rtol=1e-9, atol=1e-11)


def test_certificates_refuse_what_they_do_not_measure():
    A, W = problem(_integers, np.float64)
    codes = ff.encode(A, W)
    with pytest.raises(ValueError, match="don't make activations"):
        ff.certify_codes(A, codes[:, :4], W)
    with pytest.raises(ValueError, match="dictionary has 1 entries that are NaN"):
        ff.certify_codes(A, codes, np.where(np.arange(W.size).reshape(W.shape) == 7, np.nan, W))
