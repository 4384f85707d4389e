"""Missing values: what wasn't observed has no part in codes, dictionary or derivatives, whatever stands there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from flax import nnx

import face_jax as fj

ROWS, CHANNELS, RANK = 24, 9, 2
BETAS = (0.0, 1.0, 2.0)


def planted(noise: float = 0.0, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    exact = drawn.gamma(1, 1, (ROWS, RANK)) @ drawn.gamma(1, 1, (RANK, CHANNELS))
    return exact * np.exp(noise * drawn.normal(size=exact.shape))


def mask(seed: int = 1) -> np.ndarray:
    """Two thirds of the entries, nothing of row 4."""
    found = np.random.default_rng(seed).uniform(size=(ROWS, CHANNELS)) < 2 / 3
    found[4] = False
    return found


A, OBSERVED = planted(0.3), mask()
DICTIONARY = np.random.default_rng(2).gamma(1, 1, (RANK, CHANNELS))
HOLED = np.where(OBSERVED, A, np.nan)


# Before the solver is asked, whichever it is.
@pytest.mark.parametrize(
    ("solver", "beta"),
    [(fj.ADMM(), 0.0), (fj.ADMM(), 1.0), (fj.ADMM(), 2.0), (fj.HALS(), 2.0), (fj.MultiplicativeUpdate(), 1.0)],
    ids=lambda given: given if isinstance(given, float) else type(given).__name__,
)
def test_what_stands_in_missing_entries_makes_no_difference(solver, beta):
    objective = fj.BetaDivergence(beta)
    found = [
        fj.factorize(given, RANK, objective=objective, solver=solver, observed=OBSERVED)
        for given in (HOLED, np.where(OBSERVED, A, -1e6), np.where(OBSERVED, A, np.inf))
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other.codes, found[0].codes)
        np.testing.assert_array_equal(other.dictionary, found[0].dictionary)
    codes = [
        fj.encode(given, DICTIONARY, objective=objective, observed=OBSERVED)
        for given in (HOLED, np.where(OBSERVED, A, -1e6))
    ]
    np.testing.assert_array_equal(*codes)


@pytest.mark.parametrize("beta", BETAS)
def test_factors_are_stationary_for_the_observed_entries(beta):
    found = fj.factorize(HOLED, RANK, objective=fj.BetaDivergence(beta), solver=fj.HALS(rtol=1e-9), observed=OBSERVED)
    codes, dictionary = np.asarray(found.codes), np.asarray(found.dictionary)
    product = codes @ dictionary
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.where(OBSERVED, product ** (beta - 2) * (product - A), 0)
        sizes = np.where(OBSERVED, product ** (beta - 2) * (product + A), 0)
    for factor, slope, size in (
        (codes, slopes @ dictionary.T, sizes @ dictionary.T),
        (dictionary, codes.T @ slopes, codes.T @ sizes),
    ):
        assert np.all(np.abs(slope[factor > 0]) <= 1e-6 * size[factor > 0])
        assert np.all(slope >= -1e-6 * size)
    assert np.all(codes[4] == 0)


def test_codes_are_least_squares_on_the_observed_entries():
    codes = np.asarray(fj.encode(HOLED, DICTIONARY, observed=OBSERVED))
    for row, seen, found in zip(A, OBSERVED, codes, strict=True):
        np.testing.assert_allclose(found, scipy.optimize.nnls(DICTIONARY[:, seen].T, row[seen])[0], atol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_rows_without_anything_observed_have_no_codes(beta):
    assert np.all(
        np.asarray(fj.encode(HOLED, DICTIONARY, objective=fj.BetaDivergence(beta), observed=OBSERVED))[4] == 0
    )


@pytest.mark.parametrize("beta", BETAS)
def test_what_is_missing_is_found_again_where_the_rank_says_so(beta):
    exact = planted()
    found = fj.factorize(
        np.where(OBSERVED, exact, np.nan), RANK, objective=fj.BetaDivergence(beta),
        solver=fj.ADMM(rtol=1e-10, max_steps=2000), observed=OBSERVED,
    )  # fmt: skip
    seen = OBSERVED.any(axis=1)
    np.testing.assert_allclose((found.codes @ found.dictionary)[seen], exact[seen], rtol=1e-4)


def test_weights_count_where_something_was_observed():
    weights = np.random.default_rng(3).uniform(0.5, 2, A.shape)
    given = fj.SquaredError(weights=weights), fj.SquaredError(weights=np.where(OBSERVED, weights, 0))
    masked = fj.factorize(HOLED, RANK, objective=given[0], observed=OBSERVED)
    weighted = fj.factorize(np.where(OBSERVED, A, 0), RANK, objective=given[1])
    np.testing.assert_allclose(masked.stats.final_objective, weighted.stats.final_objective, rtol=1e-3)
    same = fj.BetaDivergence(2, weights=given[1].weights)
    entry_by_entry = fj.factorize(np.where(OBSERVED, A, 0), RANK, objective=same)
    np.testing.assert_array_equal(masked.codes, entry_by_entry.codes)


def test_solvers_that_complete_rows_leave_missing_values_out_too():
    for solver in (fj.SemiNMF(), fj.PaperAdam(max_steps=20)):
        found = [
            fj.factorize(np.where(OBSERVED, A, other), RANK, solver=solver, observed=OBSERVED) for other in (np.nan, 7)
        ]
        np.testing.assert_array_equal(found[0].codes, found[1].codes)


def test_all_observed_is_none_missing():
    solver = fj.ADMM(rtol=1e-9)
    whole, plain = (fj.factorize(A, RANK, solver=solver, observed=m) for m in (np.ones_like(A, bool), None))
    np.testing.assert_allclose(whole.codes @ whole.dictionary, plain.codes @ plain.dictionary, rtol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_derivatives_see_the_observed_entries_alone(beta):
    start = fj.Given(*(jnp.asarray(np.random.default_rng(5).uniform(0.5, 1, s)) for s in ((ROWS, 2), (2, CHANNELS))))
    objective = fj.BetaDivergence(beta, l1_codes=0.2, l1_dictionary=0.2)

    def score(activations):
        found = fj.factorize(
            activations, RANK, objective=objective, solver=fj.HALS(rtol=1e-7), start=start, observed=OBSERVED
        )
        codes = fj.encode(activations, DICTIONARY, objective=objective, observed=OBSERVED)
        return jnp.sum(jnp.sin(found.codes)) + jnp.sum(jnp.cos(3 * found.dictionary)) + jnp.sum(jnp.cos(codes))

    both = jax.jit(jax.value_and_grad(score))
    filled = jnp.asarray(np.where(OBSERVED, A, 0))
    way = jnp.asarray(np.random.default_rng(6).normal(size=A.shape))
    step = 3e-6
    gradient = np.asarray(both(filled)[1])
    expected = float(both(filled + step * way)[0] - both(filled - step * way)[0]) / (2 * step)
    assert abs(expected) > 0.1
    assert np.sum(gradient * way) == pytest.approx(expected, rel=1e-7)
    assert np.all(gradient[~OBSERVED] == 0)
    assert np.all(np.isfinite(np.asarray(both(jnp.asarray(HOLED))[1])))


def test_masks_that_do_not_fit_are_refused():
    for call in (
        lambda given, **more: fj.factorize(given, RANK, **more),
        lambda given, **more: fj.encode(given, DICTIONARY, **more),
    ):
        with pytest.raises(ValueError, match="observed has shape"):
            call(HOLED, observed=OBSERVED[:-1])
        with pytest.raises(ValueError, match="give truth values"):
            call(HOLED, observed=OBSERVED.astype(float))
        with pytest.raises(ValueError, match="NaN or infinite"):
            call(HOLED, observed=np.ones_like(OBSERVED))
        with pytest.raises(ValueError, match="NaN or infinite"):
            call(HOLED)
        with pytest.raises(ValueError, match="in memory"):
            call(fj.RowBlocks(A), observed=OBSERVED)
        term = fj.Faithfulness(fj.heads.Affine(jnp.ones((CHANNELS, 2)), jnp.zeros(2)))
        with pytest.raises(ValueError, match="further terms"):
            call(HOLED, observed=OBSERVED, objective=fj.SquaredError() + 1.0 * term)
    empty = OBSERVED.copy()
    empty[:, 7] = False
    with pytest.raises(ValueError, match="1 channels without any entry, the first 7"):
        fj.factorize(HOLED, RANK, observed=empty)
    assert np.all(np.isfinite(fj.encode(HOLED, DICTIONARY, observed=empty)))


def test_many_factorizations_leave_missing_values_out_each():
    holes = np.where(OBSERVED, A, np.nan)
    settings = {"solver": fj.ADMM(max_steps=30), "start": fj.Random(), "key": 0}
    found = fj.factorize_many([holes, A, holes], RANK, observed=[OBSERVED, None, OBSERVED], **settings)
    alone = fj.factorize(holes, RANK, observed=OBSERVED, **settings), fj.factorize(A, RANK, **settings)
    for one, expected in zip(found, (alone[0], alone[1], alone[0]), strict=True):
        np.testing.assert_allclose(one.dictionary, expected.dictionary, atol=1e-6)
    with pytest.raises(ValueError, match="observed has shape"):
        fj.factorize_many([A, A], RANK, observed=OBSERVED[:, 1:])


def test_layers_leave_missing_values_out():
    holes, seen = jnp.asarray(np.where(OBSERVED, A, np.nan)), jnp.asarray(OBSERVED)
    layer = fj.layer.Encode(A.shape[1], RANK, rngs=nnx.Rngs(0))
    expected = fj.encode(holes, layer.concepts.astype(holes.dtype), observed=seen)
    np.testing.assert_allclose(layer(holes, seen), expected, atol=1e-12)
    np.testing.assert_allclose(layer(holes[None], seen[None])[0], expected, atol=1e-12)
    codes, concepts = fj.layer.Factorize(RANK, solver=fj.ADMM(max_steps=30))(holes, seen)
    alone = fj.factorize(holes, RANK, observed=seen, solver=fj.ADMM(max_steps=30))
    np.testing.assert_allclose(concepts, alone.dictionary, atol=1e-12)
    np.testing.assert_allclose(codes, alone.codes, atol=1e-12)


def test_rows_in_blocks_and_kept_runs_refuse_masks(tmp_path):
    with pytest.raises(ValueError, match="observed= is there for activations in memory"):
        fj.factorize(fj.RowBlocks(A), RANK, observed=OBSERVED)
    with pytest.raises(ValueError, match="without checkpoint="):
        fj.factorize(A, RANK, observed=OBSERVED, checkpoint=str(tmp_path / "kept"))
    with pytest.raises(ValueError, match="observed= is there for activations in memory"):
        fj.encode(fj.RowBlocks(A), np.ones((RANK, A.shape[1])), observed=OBSERVED)
    with pytest.raises(ValueError, match="observed= is there for dense activations in memory"):
        fj.rank_scan(fj.RowBlocks(A), (2, 3), observed=OBSERVED)


def test_numbers_means_what_is_not_nan():
    holes = np.where(OBSERVED, A, np.nan)
    settings = {"solver": fj.ADMM(max_steps=30), "start": fj.Random()}
    found, expected = (fj.factorize(holes, RANK, observed=seen, **settings) for seen in ("numbers", OBSERVED))
    np.testing.assert_array_equal(found.dictionary, expected.dictionary)
    with pytest.raises(ValueError, match="observed='all' isn't known"):
        fj.factorize(A, RANK, observed="all")
