"""β-divergences: values, factorizations, codes and derivatives, against scikit-learn and central differences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from both_modes import both_modes
from sklearn.decomposition import NMF
from sklearn.decomposition._nmf import _beta_divergence

import face_jax as fj
from face_jax.nmf import divergence

BETAS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
ROWS, CHANNELS, RANK = 20, 8, 3


def data(seed: int = 0) -> np.ndarray:
    """Products of three concepts, each entry off by a third."""
    drawn = np.random.default_rng(seed)
    exact = drawn.gamma(1, 1, (ROWS, RANK)) @ drawn.gamma(1, 1, (RANK, CHANNELS))
    return exact * drawn.gamma(9, 1 / 9, exact.shape)


def counts(seed: int = 0) -> np.ndarray:
    """Counts, many of them 0, a row and a channel of zeros among them."""
    drawn = np.random.default_rng(seed)
    found = drawn.poisson(drawn.gamma(0.5, 1, (ROWS, RANK)) @ drawn.gamma(0.5, 1, (RANK, CHANNELS))).astype(float)
    found[3], found[:, 5] = 0, 0
    return found


A, COUNTS = data(), counts()
DICTIONARY = np.random.default_rng(1).gamma(0.5, 1, (RANK, CHANNELS)) + 0.01


@pytest.mark.parametrize("beta", BETAS)
def test_its_value_is_that_of_scikit_learn(beta):
    codes = np.random.default_rng(2).gamma(1, 1, (ROWS, RANK))
    expected = _beta_divergence(A, codes, DICTIONARY, beta)
    assert fj.BetaDivergence(beta).value(*map(jnp.asarray, (A, codes, DICTIONARY))) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("package", [jnp, np])
@pytest.mark.parametrize("beta", BETAS)
def test_rounding_brings_no_deviation_below_zero(beta, package):
    drawn = np.random.default_rng(3)
    x = drawn.uniform(0.5, 2, 500).astype(np.float32)
    y = x * (1 + 10 ** drawn.uniform(-7, -1, 500) * drawn.choice([-1, 1], 500)).astype(np.float32)
    found = np.asarray(divergence.deviation(beta, package.asarray(x), package.asarray(y), np.float32(1e-30)))
    assert found.dtype == np.float32
    assert (found >= 0).all()
    exact = divergence.deviation(beta, x.astype(np.float64), y.astype(np.float64), 1e-30)
    # Kullback and Leibler's is known to its own size, which falls with the square of the misfit.
    allowed = np.abs(y - x) if beta == 1 else 10.0
    np.testing.assert_array_less(np.abs(found - exact), 4 * np.finfo(np.float32).eps * allowed + 1e-30)


def test_an_objective_of_hardly_any_misfit_is_not_below_zero():
    """Values over sixty orders of magnitude, with as many concepts as channels."""
    wide = (10 ** np.random.default_rng(3).uniform(-30, 30, (ROWS, 4))).astype(np.float32)
    found = fj.factorize(wide, 4, objective=fj.BetaDivergence(1), solver=fj.ADMM(max_steps=100))
    assert np.min(found.stats.objective) >= 0
    assert 0 <= found.stats.final_objective < 1e-4 * wide.sum()


@pytest.mark.parametrize("beta", BETAS)
def test_changes_are_differences_of_values_without_their_rounding(beta):
    x, y = np.asarray([1.0, 2.0, 0.5]), np.asarray([1.5, 1.5, 1.5])
    move = np.asarray([1e-9, -1e-9, 1e-9])
    floor = jnp.asarray(1e-12)
    slope = divergence.slope(beta, jnp.asarray(x), jnp.asarray(y + move / 2), floor)
    found = divergence.change(beta, jnp.asarray(x), jnp.asarray(y), jnp.asarray(move), floor)
    np.testing.assert_allclose(found, slope * move, rtol=1e-7)
    # From a product to one so far away that a difference of values is exact enough.
    far = np.asarray([2.0, -1.0, 0.5])
    whole = divergence.change(beta, jnp.asarray(x), jnp.asarray(y), jnp.asarray(far), floor)
    ends = [divergence.deviation(beta, jnp.asarray(x), jnp.asarray(at), floor) for at in (y + far, y)]
    np.testing.assert_allclose(whole, ends[0] - ends[1], rtol=1e-10)


@pytest.mark.parametrize(("word", "beta"), [("frobenius", 2), ("kullback-leibler", 1), ("itakura-saito", 0)])
def test_words_stand_for_numbers(word, beta):
    assert fj.BetaDivergence(word).beta == fj.BetaDivergence(beta).beta == beta


@pytest.mark.parametrize("beta", ["kl", "", None, jnp.nan, True, [1.0], 1j, np.inf])
def test_what_is_no_beta_is_refused(beta):
    with pytest.raises(ValueError, match="beta="):
        fj.BetaDivergence(beta)


# HALS takes ADMM's step with fewer sweeps; multiplicative updates know β by their exponent and by what all steps share.
@pytest.mark.parametrize(
    ("solver", "beta"),
    [
        *((fj.ADMM(), beta) for beta in BETAS),
        (fj.HALS(), 1.0),
        *((fj.MultiplicativeUpdate(), beta) for beta in (0.5, 1.0, 1.5, 3.0)),
    ],
    ids=lambda given: given if isinstance(given, float) else type(given).__name__,
)
def test_the_objective_never_rises_and_is_the_value_of_the_factors(solver, beta):
    objective = fj.BetaDivergence(beta)
    found = fj.factorize(A, RANK, objective=objective, solver=solver, start=fj.Random())
    history = np.asarray(found.stats.objective)
    assert np.all(np.diff(history) <= 1e-13 * history[0])
    expected = _beta_divergence(A, np.asarray(found.codes), np.asarray(found.dictionary), beta)
    assert float(found.stats.final_objective) == pytest.approx(expected, rel=1e-10)
    assert history[-1] == pytest.approx(expected, rel=1e-10)
    assert found.stats.final_residual < 1e-2


@pytest.mark.parametrize("beta", [-1.0, 0.5, 1.0, 1.5, 3.0])
def test_multiplicative_steps_descend_beside_penalties(beta):
    objective = fj.BetaDivergence(beta, l1_codes=0.3, l2_codes=0.5, l1_dictionary=0.2, l2_dictionary=0.4)
    found = fj.factorize(A, RANK, objective=objective, solver=fj.MultiplicativeUpdate(rtol=0.0, max_steps=60))
    assert found.stats.restarts == 0
    assert found.stats.steps == 60


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("matrix", ["dense", "counts"])
def test_it_ends_no_higher_than_scikit_learn_from_the_same_start(beta, matrix):
    given = A if matrix == "dense" else COUNTS
    drawn = np.random.default_rng(3)
    codes, dictionary = drawn.uniform(0.1, 1, (ROWS, RANK)), drawn.uniform(0.1, 1, (RANK, CHANNELS))
    peer = NMF(RANK, init="custom", solver="mu", beta_loss=beta, max_iter=100, tol=0)
    theirs = peer.fit_transform(given, W=codes.copy(), H=dictionary.copy())
    # To where multiplicative updates go.
    start = fj.Given(jnp.asarray(theirs), jnp.asarray(peer.components_))
    ours = fj.factorize(given, RANK, objective=fj.BetaDivergence(beta), start=start, solver=fj.HALS(rtol=1e-8))
    value = _beta_divergence(given, np.asarray(ours.codes), np.asarray(ours.dictionary), beta)
    assert value <= _beta_divergence(given, theirs, peer.components_, beta) * (1 + 1e-12)
    assert ours.stats.final_residual < 1e-5


def test_rows_and_channels_of_zeros_have_codes_and_entries_of_zero():
    found = fj.factorize(COUNTS, RANK, objective=fj.BetaDivergence(1), solver=fj.ADMM(rtol=1e-8))
    assert np.all(np.asarray(found.codes)[3] == 0)
    assert np.all(np.asarray(found.dictionary)[:, 5] == 0)


@pytest.mark.parametrize("beta", [0.2, 0.5])
def test_zeros_between_none_and_one_have_the_value_of_scikit_learn_and_stay_zero(beta):
    objective = fj.BetaDivergence(beta)
    codes = np.random.default_rng(2).gamma(1, 1, (ROWS, RANK))
    codes[3] = 0
    expected = _beta_divergence(COUNTS, codes, DICTIONARY, beta)
    value = objective.value(*map(jnp.asarray, (COUNTS, codes, DICTIONARY)))
    assert value == pytest.approx(expected, rel=1e-12)
    found = fj.factorize(COUNTS, RANK, objective=objective, solver=fj.ADMM(rtol=1e-6), start=fj.Random())
    history = np.asarray(found.stats.objective)
    assert np.all(np.diff(history) <= 1e-13 * history[0])
    at = np.asarray(found.codes), np.asarray(found.dictionary)
    assert np.all(at[0][3] == 0)
    assert np.all(at[1][:, 5] == 0)
    assert float(found.stats.final_objective) == pytest.approx(_beta_divergence(COUNTS, *at, beta), rel=1e-10)
    peer = NMF(RANK, solver="mu", beta_loss=beta, max_iter=500, init="random", random_state=0).fit(COUNTS)
    assert float(found.stats.final_objective) <= peer.reconstruction_err_**2 / 2 * 1.05
    encoded = np.asarray(fj.encode(COUNTS, at[1], objective=objective, start=at[0]))
    assert _beta_divergence(COUNTS, encoded, at[1], beta) <= _beta_divergence(COUNTS, *at, beta) * (1 + 1e-12)


@pytest.mark.parametrize("beta", [-1.2, 0.5, 3.0])
@pytest.mark.parametrize("kind", ["dense", "stored"])
def test_codes_of_several_minima_are_never_above_those_that_they_start_from(beta, kind):
    objective = fj.BetaDivergence(beta)
    found = fj.factorize(A, RANK, objective=objective, solver=fj.MultiplicativeUpdate(), start=fj.Random())
    dictionary, start = np.asarray(found.dictionary), np.asarray(found.codes)
    how: dict[str, Any] = {} if kind == "dense" else {"observed": "stored"}
    given = A if kind == "dense" else scipy.sparse.csr_array(A)
    codes = fj.encode(given, dictionary, objective=objective, start=start, **how)
    rows = [_beta_divergence(A[k : k + 1], start[k : k + 1], dictionary, beta) for k in range(ROWS)]
    for k, (row, code) in enumerate(zip(rows, np.asarray(codes), strict=True)):
        assert _beta_divergence(A[k : k + 1], code[None], dictionary, beta) <= row * (1 + 1e-10) + 1e-12
    # Without it none is above the fit as a whole by more than a hundredth.
    cold = np.asarray(fj.encode(given, dictionary, objective=objective, **how))
    assert _beta_divergence(A, cold, dictionary, beta) <= 1.01 * float(found.stats.final_objective)
    with pytest.raises(ValueError, match=r"start has shape \(20, 2\); activations and dictionary need \(20, 3\)"):
        fj.encode(given, dictionary, objective=objective, start=start[:, :2], **how)
    with pytest.raises(ValueError, match="start has 60 of 60 entries below zero"):
        fj.encode(given, dictionary, objective=objective, start=-start - 1, **how)


def test_beta_two_is_the_squared_error():
    plain, other = (fj.factorize(A, RANK, objective=o) for o in (fj.SquaredError(), fj.BetaDivergence(2)))
    np.testing.assert_array_equal(plain.codes, other.codes)
    codes = [fj.encode(A, DICTIONARY, objective=o) for o in (fj.SquaredError(), fj.BetaDivergence("frobenius"))]
    np.testing.assert_array_equal(*codes)


@pytest.mark.parametrize("beta", BETAS)
def test_codes_are_stationary_to_rounding(beta):
    codes = fj.encode(A, DICTIONARY, objective=fj.BetaDivergence(beta))
    product = np.asarray(codes) @ DICTIONARY
    slopes = (product ** (beta - 2) * (product - A)) @ DICTIONARY.T
    sizes = (product ** (beta - 2) * (product + A)) @ DICTIONARY.T
    free = np.asarray(codes) > 0
    assert np.all(np.abs(slopes[free]) <= 1e-12 * sizes[free])
    assert np.all(slopes[~free] >= -1e-12 * sizes[~free])


def test_codes_of_counts_are_no_worse_than_scikit_learns_transform():
    peer = NMF(RANK, solver="mu", beta_loss=1, max_iter=1000, tol=1e-10, init="nndsvda").fit(COUNTS)
    theirs = peer.transform(COUNTS)
    ours = np.asarray(fj.encode(COUNTS, peer.components_, objective=fj.BetaDivergence(1)))
    value, other = (_beta_divergence(COUNTS, codes, peer.components_, 1) for codes in (ours, theirs))
    assert value <= other + 1e-12 * other
    assert np.all(ours[3] == 0)


def test_codes_do_not_depend_on_the_rows_beside_them(monkeypatch):
    from face_jax.nmf import divergence_codes

    whole = fj.encode(A, DICTIONARY, objective=fj.BetaDivergence(1, weights=np.ones_like(A)))
    monkeypatch.setattr(divergence_codes, "_BLOCK_ROWS", 7)
    jax.clear_caches()
    parts = fj.encode(A, DICTIONARY, objective=fj.BetaDivergence(1, weights=np.ones_like(A)))
    np.testing.assert_allclose(parts, whole, rtol=1e-12, atol=1e-14)


# Below 1 and above 2 codes come from a neighbouring problem; between them 1 has formulas of its own, 1.5 those of 0.5.
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_codes_have_their_exact_derivative_in_both_modes(beta):
    def score(activations, dictionary, weights, penalty):
        objective = fj.BetaDivergence(beta, weights=weights, l1_codes=penalty, l2_codes=penalty)
        return jnp.sum(jnp.sin(fj.encode(activations, dictionary, objective=objective)))

    weights = np.random.default_rng(4).uniform(0.5, 1.5, A.shape)
    at = tuple(map(jnp.asarray, (A, DICTIONARY, weights, 0.2)))
    check_derivative(both_modes(score), at, modes=1e-10)


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_factors_have_their_exact_derivative_in_both_modes(beta):
    solver = fj.HALS(rtol=1e-7)
    drawn = np.random.default_rng(5)
    start = fj.Given(*(jnp.asarray(drawn.uniform(0.5, 1, shape)) for shape in ((ROWS, RANK), (RANK, CHANNELS))))

    def score(activations, row_weights, penalty):
        objective = fj.BetaDivergence(beta, row_weights=row_weights, l1_codes=penalty, l1_dictionary=penalty)
        found = fj.factorize(activations, RANK, objective=objective, solver=solver, start=start)
        return jnp.sum(jnp.sin(found.codes)) + jnp.sum(jnp.cos(3 * found.dictionary))

    at = tuple(map(jnp.asarray, (A, drawn.uniform(0.5, 1.5, ROWS), 0.3)))
    check_derivative(both_modes(score), at, modes=1e-7)


def ways(at: tuple) -> tuple:
    drawn = np.random.default_rng(6)
    return tuple(jnp.asarray(drawn.normal(size=jnp.shape(x))) for x in at)


def inner(x: tuple, y: tuple) -> float:
    return float(sum(np.sum(np.asarray(a) * np.asarray(b)) for a, b in zip(x, y, strict=True)))


def check_derivative(both, at: tuple, modes: float, step: float = 3e-6) -> None:
    """Backward against central differences along one direction, of the values that belong to derivatives; forward."""
    way = ways(at)
    ends = [both(tuple(x + sign * step * d for x, d in zip(at, way, strict=True)), way)[0] for sign in (1, -1)]
    expected = float(ends[0] - ends[1]) / (2 * step)
    assert abs(expected) > 0.1
    _, forward, gradients = both(at, way)
    assert inner(gradients, way) == pytest.approx(expected, rel=1e-7)
    assert forward == pytest.approx(inner(gradients, way), rel=modes)


def test_input_that_only_jit_has_seen_is_told_by_the_result():
    for beta, given in ((1, A - 1), (0, COUNTS)):
        objective = fj.BetaDivergence(beta)
        run = jax.jit(lambda a, o=objective: fj.factorize(a, RANK, objective=o, throw=False))
        # Of a 0 the divergence for β = 0 is infinite, which is told before its reason.
        assert run(jnp.asarray(given)).result == (fj.RESULTS.negative if beta == 1 else fj.RESULTS.nonfinite)
        codes = np.asarray(jax.jit(lambda a, o=objective: fj.encode(a, DICTIONARY, objective=o))(jnp.asarray(given)))
        wrong = np.any(given < 0 if beta == 1 else given == 0, axis=1)
        np.testing.assert_array_equal(np.isnan(codes).all(axis=1), wrong)


def test_what_has_no_meaning_beside_a_divergence_is_refused():
    kl = fj.BetaDivergence(1)
    term = fj.Faithfulness(fj.heads.Affine(jnp.ones((CHANNELS, 2)), jnp.zeros(2)))
    for both in (lambda: kl + 2.0 * term, lambda: 2.0 * term + kl, lambda: term + kl, lambda: fj.SquaredError() + kl):
        with pytest.raises(ValueError, match=r"BetaDivergence\(1\) stands alone"):
            both()
    with pytest.raises(ValueError, match="can't be weighted"):
        2.0 * kl  # pyright: ignore[reportUnusedExpression]
    with pytest.raises(ValueError, match="SemiNMF"):
        fj.factorize(A, RANK, objective=kl, solver=fj.SemiNMF())
    with pytest.raises(ValueError, match="PaperAdam"):
        fj.factorize(A, RANK, objective=kl, solver=fj.PaperAdam())
    with pytest.raises(ValueError, match="UnrolledAdjoint"):
        fj.factorize(A, RANK, objective=kl, adjoint=fj.UnrolledAdjoint())
    for call in (
        lambda: fj.factorize(fj.RowBlocks(A), RANK, objective=kl),
        lambda: fj.encode(fj.RowBlocks(A), DICTIONARY, objective=kl),
        lambda: fj.factorize_many([A], RANK, objective=kl),
    ):
        with pytest.raises(ValueError, match=r"BetaDivergence\(1\) isn't a squared error"):
            call()


def test_activations_without_a_divergence_are_refused():
    with pytest.raises(ValueError, match="below zero"):
        fj.factorize(A - 1, RANK, objective=fj.BetaDivergence(1))
    with pytest.raises(ValueError, match="below zero"):
        fj.encode(A - 1, DICTIONARY, objective=fj.BetaDivergence(1))
    with pytest.raises(ValueError, match="dictionary has"):
        fj.encode(A, DICTIONARY - 1, objective=fj.BetaDivergence(1))
    for beta in (0, -2):
        for call in (
            lambda beta: fj.factorize(COUNTS, RANK, objective=fj.BetaDivergence(beta)),
            lambda beta: fj.encode(COUNTS, DICTIONARY, objective=fj.BetaDivergence(beta)),
        ):
            with pytest.raises(ValueError, match="entries of 0"):
                call(beta)
    # Zeros without weight are no zeros.
    found = fj.factorize(COUNTS[:, :5], 2, objective=fj.BetaDivergence(0, weights=(COUNTS[:, :5] > 0) * 1.0))
    assert np.isfinite(found.stats.final_objective)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_units_make_no_difference(unit):
    solver = fj.HALS(rtol=1e-9)
    # Powers of the unit are the same formula for every β.
    for beta in (0, 1.5):
        plain, other = (
            fj.factorize(A * by, RANK, objective=fj.BetaDivergence(beta, **penalties(beta, by)), solver=solver)
            for by in (1.0, unit)
        )
        np.testing.assert_allclose(other.codes / unit, plain.codes, rtol=1e-5, atol=1e-6)
        value = float(other.stats.final_objective) / unit**beta
        assert value == pytest.approx(float(plain.stats.final_objective), rel=1e-8)
        codes = [fj.encode(A * by, DICTIONARY, objective=fj.BetaDivergence(beta)) for by in (1.0, unit)]
        np.testing.assert_allclose(codes[1] / unit, codes[0], rtol=1e-9, atol=1e-12)


def penalties(beta: float, unit: float) -> dict:
    """Penalties of the same meaning in another unit, whose root each factor has."""
    return {f"l1_{factor}": 0.1 * unit ** (beta - 0.5) for factor in ("codes", "dictionary")}


def test_it_runs_under_vmap_as_alone():
    both = np.stack([A, data(7)])
    objective = fj.BetaDivergence(1)
    together = jax.vmap(lambda a: fj.factorize(a, RANK, objective=objective).codes)(jnp.asarray(both))
    np.testing.assert_allclose(together[1], fj.factorize(both[1], RANK, objective=objective).codes, atol=1e-8)


def test_float32_stays_and_agrees():
    found = fj.factorize(A.astype(np.float32), RANK, objective=fj.BetaDivergence(1), solver=fj.ADMM(rtol=1e-5))
    assert found.codes.dtype == jnp.float32
    double = fj.factorize(A, RANK, objective=fj.BetaDivergence(1), solver=fj.ADMM(rtol=1e-5))
    assert float(found.stats.final_objective) == pytest.approx(float(double.stats.final_objective), rel=1e-4)


def test_no_product_falls_to_where_no_step_leads_out_again():
    # Rare words: whatever topic a document has none of, its one word's product would be zero, and stay so.
    drawn = np.random.default_rng(0)
    topics = drawn.dirichlet(np.full(60, 0.05), 6)
    counts = np.stack([drawn.multinomial(8, topics[k % 6]) for k in range(80)]).astype(float)
    counts = counts[:, counts.any(axis=0)]
    objective = fj.BetaDivergence(1)
    for given in (counts, scipy.sparse.csr_array(counts)):
        found = fj.factorize(given, 6, objective=objective, solver=fj.ADMM(max_steps=300))
        product = np.asarray(found.codes @ found.dictionary)
        assert product[counts > 0].min() > 1e-12
        assert float(found.stats.final_residual) < 1e-3
