"""What every solver promises, and what the driver around it does."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import NMF

from face_jax import nmf as ff

RANK, SHAPE = 4, (60, 12)
# All of them with as many steps, which is part of a program, as reaching the tolerance takes.
SOLVERS = {
    "admm": ff.ADMM(max_steps=3000),
    "admm-cg": ff.ADMM(linear=ff.ConjugateGradient(), max_steps=3000),
    "admm-textbook": ff.ADMM(inner=5, sweeps=0, extrapolate=False, max_steps=3000),
    "hals": ff.HALS(max_steps=3000),
    "hals-plain": ff.HALS(sweeps=1, extrapolate=False, max_steps=3000),
    "multiplicative": ff.MultiplicativeUpdate(max_steps=3000),
    "semi": ff.SemiNMF(max_steps=3000),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())


def noisy(seed=0, shape=SHAPE, dtype=np.float64, noise=0.2):
    generator = np.random.default_rng(seed)
    A = generator.gamma(0.5, 1, (shape[0], RANK)) @ generator.gamma(0.5, 1, (RANK, shape[1]))
    return np.maximum(A + noise * A.mean() * generator.standard_normal(shape), 0).astype(dtype)


@each_solver
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_objective_never_rises_and_factors_keep_their_signs_lengths_and_dtype(solver, dtype):
    A = noisy(dtype=dtype)
    solution = ff.factorize(A, RANK, solver=solver)
    codes, dictionary = np.asarray(solution.codes), np.asarray(solution.dictionary)
    assert codes.dtype == dictionary.dtype == dtype
    assert codes.shape == (SHAPE[0], RANK)
    assert dictionary.shape == (RANK, SHAPE[1])
    assert codes.min() >= 0
    assert solver.signed_dictionary or dictionary.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=1), 1, rtol=10 * np.finfo(dtype).eps)
    history = np.asarray(solution.stats.objective)
    assert (history[int(solution.stats.steps) :] == history[int(solution.stats.steps)]).all()
    history = history[: int(solution.stats.steps) + 1]
    assert len(history) > 3
    assert np.all(np.diff(history) <= 4 * np.finfo(dtype).eps * history[0])
    error = ((A.astype(np.float64) - codes.astype(np.float64) @ dictionary) ** 2).sum() / 2
    # The first value is a difference of sums as large as itself and ‖A‖², later ones follow from it by changes.
    sums = float((A**2).sum()) + float(history[0])
    assert history[-1] == pytest.approx(error, rel=1e-9, abs=64 * float(np.finfo(dtype).eps) * sums)
    assert float(solution.stats.final_objective) == pytest.approx(error, rel=1e-5 if dtype == np.float32 else 1e-9)


@each_solver
def test_same_key_gives_the_same_bits(solver):
    A = noisy()
    first, second = (ff.factorize(A, RANK, solver=solver, start=ff.Random(), key=jax.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.dictionary, second.dictionary)
    other = ff.factorize(A, RANK, solver=solver, start=ff.Random(), key=jax.random.key(4))
    assert not np.array_equal(first.codes, other.codes)


@each_solver
def test_vmap_equals_a_loop(solver):
    batch = jnp.stack([jnp.asarray(noisy(seed)) for seed in range(3)])
    together = jax.jit(jax.vmap(lambda A: ff.factorize(A, RANK, solver=solver, throw=False)))(batch)
    for index, A in enumerate(batch):
        alone = ff.factorize(A, RANK, solver=solver)
        np.testing.assert_allclose(together.codes[index], alone.codes, rtol=1e-7, atol=1e-9)
        assert int(together.stats.steps[index]) == int(alone.stats.steps)


@each_solver
def test_solution_meets_the_tolerance_that_it_reports(solver):
    if isinstance(solver, ff.MultiplicativeUpdate):
        solver = dataclasses.replace(solver, rtol=1e-2)
    A = jnp.asarray(noisy())
    solution = ff.factorize(A, RANK, solver=solver)
    assert solution.result == ff.RESULTS.successful
    # The pair that's returned is one step beyond the one that met it.
    assert float(solution.stats.final_residual) <= 2 * solver.rtol
    signed = solver.signed_dictionary
    residual = ff.kkt_residual(A, solution.codes, solution.dictionary, signed_dictionary=signed)
    # What is left of a dictionary of least squares is rounding.
    assert float(residual.scaled) == pytest.approx(float(solution.stats.final_residual), rel=1e-6, abs=1e-12)
    assert float(residual.negative) == 0


def test_second_call_does_not_compile_again():
    traces = []

    @jax.jit
    def run(A):
        traces.append(1)
        return ff.factorize(A, RANK, throw=False).codes

    run(jnp.asarray(noisy(0)))
    run(jnp.asarray(noisy(1)))
    assert len(traces) == 1


@pytest.mark.parametrize("block_rows", [7, 16, 60])
def test_blocks_of_rows_give_the_same_answer_as_all_at_once(block_rows):
    from face_jax.nmf.solvers.loop import solve

    A = jnp.asarray(noisy())
    codes, dictionary = ff.Random()(A, RANK, signed=False, key=jax.random.key(0))
    weights = jnp.linspace(0.5, 2, SHAPE[0])
    objective = ff.SquaredError(row_weights=weights)

    @partial(jax.jit, static_argnums=2)
    def run(codes, dictionary, rows):
        return solve(A, objective, ff.ADMM(max_steps=30), codes, dictionary, block_rows=rows)

    some, every = (run(codes, dictionary, rows) for rows in (block_rows, None))
    np.testing.assert_allclose(some.codes, every.codes, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(some.stats.objective, every.stats.objective, rtol=1e-10)


def test_the_error_of_a_good_fit_has_the_digits_of_its_rows_and_not_of_their_sum():
    # Of the squares 1 % is left: sums over all of them would be off by ten times what is allowed.
    random = np.random.default_rng(0)
    A = random.gamma(0.3, 1, (16384, 4)) @ random.gamma(0.3, 1, (4, 16))
    A = np.maximum(A + 0.2 * A.mean() * random.standard_normal(A.shape), 0).astype(np.float32)
    found = ff.factorize(A, 4, solver=ff.HALS(max_steps=5), key=0)
    codes, dictionary = np.asarray(found.codes, np.float64), np.asarray(found.dictionary, np.float64)
    error = 0.5 * ((A - codes @ dictionary) ** 2).sum()
    assert 0.002 < error / (A.astype(np.float64) ** 2).sum() < 0.05
    assert float(found.stats.final_objective) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("solver", [ff.ADMM(rtol=1e-9, max_steps=5000), ff.HALS(rtol=1e-9, max_steps=5000)])
def test_planted_separable_factorization_is_recovered(solver):
    generator = np.random.default_rng(1)
    codes = np.concatenate([np.eye(RANK) * 2, generator.dirichlet(np.ones(RANK) * 0.5, SHAPE[0] - RANK)])
    concepts = np.zeros((RANK, SHAPE[1]))
    for k in range(RANK):
        concepts[k, 3 * k : 3 * k + 3] = generator.uniform(0.5, 1, 3)
    concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    solution = ff.factorize(codes @ concepts, RANK, solver=solver)
    cosine = np.asarray(solution.dictionary) @ concepts.T
    order = cosine.argmax(axis=0)
    assert sorted(order) == list(range(RANK))
    np.testing.assert_allclose(np.asarray(solution.dictionary)[order], concepts, atol=1e-6)
    np.testing.assert_allclose(np.asarray(solution.codes)[:, order], codes, atol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("shape", [(60, 12), (40, 80), (150, 6)])
@pytest.mark.parametrize("seed", [0, 1])
def test_not_above_scikit_learn_from_the_same_start(shape, seed):
    A = noisy(seed, shape)
    codes, dictionary = ff.Random()(jnp.asarray(A), RANK, signed=False, key=jax.random.key(seed))
    codes = np.array(codes.T)
    peer = NMF(RANK, init="custom", tol=1e-4, max_iter=200)
    peer.fit_transform(A, W=codes.copy(), H=np.array(dictionary))
    solver = ff.ADMM(rtol=1e-5, max_steps=3000)
    ours = ff.factorize(A, RANK, solver=solver, start=ff.Given(jnp.asarray(codes), dictionary))
    assert float(ours.stats.final_objective) <= peer.reconstruction_err_**2 / 2 * (1 + 1e-4)


@pytest.mark.parametrize("solver", [ff.HALS(rtol=1e-7, max_steps=5000), ff.SemiNMF(rtol=1e-7, max_steps=5000)])
def test_masked_entries_have_no_say(solver):
    A = noisy(noise=0)
    if solver.signed_dictionary:
        A = A @ np.diag(np.where(np.arange(SHAPE[1]) % 2, -1, 1))
    mask = jnp.asarray((np.random.default_rng(0).random(SHAPE) > 0.15).astype(float))
    spoiled = jnp.where(mask > 0, A, 1e3)
    solution = ff.factorize(spoiled, RANK, objective=ff.SquaredError(weights=mask), solver=solver)
    rebuilt = np.asarray(solution.codes @ solution.dictionary)
    assert np.linalg.norm((rebuilt - A) * (1 - mask)) < 0.02 * np.linalg.norm(A * (1 - mask))
    residual = ff.kkt_residual(
        spoiled, solution.codes, solution.dictionary, objective=ff.SquaredError(weights=mask),
        signed_dictionary=solver.signed_dictionary,
    )  # fmt: skip
    assert float(residual.scaled) < 1e-4


@pytest.mark.parametrize("rule", [ff.HALS, ff.SemiNMF])
def test_row_weight_equals_repeating_the_row(rule):
    A = noisy()
    start = ff.Random()(jnp.asarray(A), RANK, signed=False, key=jax.random.key(0))
    repeated = np.concatenate([A, A[:20]])
    weights = jnp.asarray(np.r_[np.full(20, 2.0), np.ones(40)])
    codes, dictionary = start[0].T, start[1]
    # Both take the same steps; along a free dictionary's flat valley thousands of them would add up their rounding.
    solver = rule(rtol=1e-8, max_steps=200, extrapolate=False)
    one = ff.factorize(
        A, RANK, objective=ff.SquaredError(row_weights=weights), solver=solver, start=ff.Given(codes, dictionary)
    )
    other = ff.factorize(
        repeated, RANK, solver=solver, start=ff.Given(jnp.concatenate([codes, codes[:20]]), dictionary)
    )
    assert float(one.stats.final_objective) == pytest.approx(float(other.stats.final_objective), rel=1e-9)
    np.testing.assert_allclose(one.dictionary, other.dictionary, atol=1e-6)


@pytest.mark.parametrize("solver", [ff.ADMM(rtol=1e-7, max_steps=3000), ff.HALS(rtol=1e-7, max_steps=3000)])
def test_penalties_reach_a_stationary_point_and_make_codes_sparser(solver):
    A = jnp.asarray(noisy())
    objective = ff.SquaredError(l1_codes=0.3, l2_codes=0.01, l1_dictionary=0.2, l2_dictionary=0.1)
    solution = ff.factorize(A, RANK, objective=objective, solver=solver)
    scale = solution.scale
    codes, dictionary = solution.codes / scale[None], solution.dictionary * scale[:, None]
    residual = ff.kkt_residual(A, codes, dictionary, objective=objective)
    assert float(residual.scaled) < 1e-6
    value = float(objective.value(A, codes, dictionary))
    assert float(solution.stats.final_objective) == pytest.approx(value, rel=1e-9)
    plain = ff.factorize(A, RANK, solver=solver)
    assert (np.asarray(solution.codes) == 0).sum() > (np.asarray(plain.codes) == 0).sum()


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_multiplicative_updates_beside_penalties_are_scikit_learns_and_never_raise_the_objective(ratio):
    A, generator = noisy(), np.random.default_rng(3)
    codes, dictionary = generator.random((SHAPE[0], RANK)) + 0.1, generator.random((RANK, SHAPE[1])) + 0.1
    # So large that it is above some entries' U A, which wouldn't be left above 0 if it were taken off them.
    alpha = 0.1
    assert (alpha * SHAPE[1] * ratio > A @ dictionary.T).any()
    settings = {"solver": "mu", "init": "custom", "max_iter": 8, "tol": 0, "alpha_W": alpha, "l1_ratio": ratio}
    expected = NMF(RANK, **settings)
    peer = expected.fit_transform(A, W=codes.copy(), H=dictionary.copy())
    of_codes, of_dictionary = alpha * SHAPE[1], alpha * SHAPE[0]
    objective = ff.SquaredError(
        l1_codes=ratio * of_codes, l2_codes=(1 - ratio) * of_codes,
        l1_dictionary=ratio * of_dictionary, l2_dictionary=(1 - ratio) * of_dictionary,
    )  # fmt: skip
    solver = ff.MultiplicativeUpdate(max_steps=8, rtol=0.0)
    start = ff.Given(jnp.asarray(codes), jnp.asarray(dictionary))
    solution = ff.factorize(A, RANK, objective=objective, solver=solver, start=start)
    np.testing.assert_allclose(solution.codes / solution.scale[None], peer, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(solution.dictionary * solution.scale[:, None], expected.components_, rtol=1e-9)
    history = np.asarray(solution.stats.objective)
    assert np.all(np.diff(history) <= 4 * np.finfo(float).eps * history[0])
    assert int(solution.stats.restarts) == 0


def test_penalties_of_a_free_dictionary_reach_a_stationary_point():
    A = jnp.asarray(noisy() - 0.5)
    objective = ff.SquaredError(l1_codes=0.3, l2_codes=0.01, l2_dictionary=0.1)
    solution = ff.factorize(A, RANK, objective=objective, solver=ff.SemiNMF(rtol=1e-7, max_steps=3000))
    codes, dictionary = solution.codes / solution.scale[None], solution.dictionary * solution.scale[:, None]
    residual = ff.kkt_residual(A, codes, dictionary, objective=objective, signed_dictionary=True)
    assert float(residual.scaled) < 1e-6
    value = float(objective.value(A, codes, dictionary))
    assert float(solution.stats.final_objective) == pytest.approx(value, rel=1e-9)


def test_a_sum_is_no_penalty_of_entries_of_either_sign():
    A = jnp.asarray(noisy() - 0.5)
    objective = ff.SquaredError(l1_codes=0.1, l1_dictionary=0.1)
    found = ff.factorize(A, RANK, solver=ff.SemiNMF(max_steps=5))
    for call in (
        lambda: ff.factorize(A, RANK, objective=objective, solver=ff.SemiNMF()),
        lambda: ff.kkt_residual(A, found.codes, found.dictionary, objective=objective, signed_dictionary=True),
        lambda: ff.derivative_stats(A, found, objective=objective, signed_dictionary=True),
    ):
        with pytest.raises(ValueError, match=r"l1_dictionary=0\.1 .*give l2_dictionary"):
            call()

    @jax.jit
    def result(penalty):
        objective = ff.SquaredError(l1_codes=0.1, l1_dictionary=penalty, l2_dictionary=0.1)
        return ff.factorize(A, RANK, objective=objective, solver=ff.SemiNMF(max_steps=5), throw=False).result.code

    assert int(result(0.1)) == ff.RESULTS.negative.value
    assert int(result(0.0)) != ff.RESULTS.negative.value


def test_the_error_of_a_free_dictionary_is_that_of_singular_values():
    # A positive direction among the singular vectors of the rows lets all codes be positive (Gillis & Kumar 2015).
    A = noisy() + 0.1
    found = float(ff.factorize(A, RANK, solver=ff.SemiNMF(rtol=1e-6, max_steps=3000)).stats.final_objective)
    best = (np.linalg.svd(A, compute_uv=False)[RANK:] ** 2).sum() / 2
    assert best * (1 - 1e-9) <= found <= best * (1 + 1e-3)


def test_semi_nmf_takes_signs_and_beats_clamping():
    generator = np.random.default_rng(0)
    A = generator.gamma(0.5, 1, (60, RANK)) @ generator.standard_normal((RANK, 12))
    solution = ff.factorize(A, RANK, solver=ff.SemiNMF(rtol=1e-6, max_steps=3000))
    assert float(solution.dictionary.min()) < 0 <= float(solution.codes.min())
    clamped = ff.factorize(np.maximum(A, 0), RANK)
    rebuilt = np.asarray(clamped.codes @ clamped.dictionary)
    assert float(solution.stats.final_objective) < 0.2 * ((A - rebuilt) ** 2).sum() / 2


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((1, 12), 1), ((60, 1), 1), ((60, 12), 1), ((6, 5), 9), ((3, 40), 5)],
    ids=["one row", "one channel", "rank one", "rank above both", "rank above rows"],
)
@pytest.mark.parametrize("rule", [ff.ADMM, ff.SemiNMF])
def test_degenerate_sizes(shape, rank, rule):
    A = noisy(shape=shape)
    solution = ff.factorize(A, rank, solver=rule(rtol=1e-6, max_steps=2000))
    assert bool(jnp.all(jnp.isfinite(solution.codes)))
    if rank >= min(shape):
        assert float(solution.stats.final_objective) < 1e-3 * (A**2).sum()
    else:
        best = np.linalg.svd(A, compute_uv=False)[rank:]
        assert float(solution.stats.final_objective) == pytest.approx((best**2).sum() / 2, rel=1e-6)


@pytest.mark.parametrize("solver", [ff.ADMM(), ff.HALS(), ff.MultiplicativeUpdate(), ff.SemiNMF()])
def test_nothing_at_all_is_factorized_without_nan(solver):
    solution = ff.factorize(np.zeros(SHAPE), RANK, solver=solver)
    assert solution.result == ff.RESULTS.successful
    assert float(jnp.abs(solution.codes).max()) == 0
    assert int(solution.stats.dead) == RANK
    assert bool(jnp.all(jnp.isfinite(solution.dictionary)))


def test_zero_rows_and_columns_stay_zero():
    A = noisy()
    A[5], A[:, 3] = 0, 0
    solution = ff.factorize(A, RANK)
    np.testing.assert_array_equal(solution.codes[5], 0)
    np.testing.assert_array_equal(solution.dictionary[:, 3], 0)


def test_result_says_when_steps_ran_out():
    solution = ff.factorize(noisy(), RANK, solver=ff.HALS(rtol=1e-12, max_steps=2))
    assert solution.result == ff.RESULTS.max_steps_reached
    assert "max_steps" in solution.result.message


def test_duplicates_are_counted():
    concept = np.abs(np.random.default_rng(0).standard_normal(12))
    codes = np.random.default_rng(1).random((60, 2))
    A = codes.sum(1, keepdims=True) * concept
    solution = ff.factorize(A, 2, start=ff.Given(jnp.asarray(codes), jnp.asarray(np.stack([concept, concept]))))
    assert int(solution.stats.duplicated) == 1


@partial(jax.jit, static_argnames=("start", "signed"))
def begun(start, A, *, signed):
    return start(A, RANK, signed=signed, key=jax.random.key(0))


@pytest.mark.parametrize("start", [ff.NNDSVD(), ff.NNDSVDa(), ff.NNDSVDar(), ff.Random(), ff.Warmup()])
def test_starts_are_feasible_and_better_than_nothing(start):
    A = jnp.asarray(noisy(shape=(2400, 12)))
    codes, dictionary = begun(start, A, signed=False)
    assert codes.shape == (RANK, 2400)
    assert float(jnp.minimum(codes.min(), dictionary.min())) >= 0
    scale = jnp.sum(A * (codes.T @ dictionary)) / jnp.sum((codes.T @ dictionary) ** 2)
    assert float(jnp.sum((A - scale * codes.T @ dictionary) ** 2)) < float(jnp.sum(A**2))
    assert bool(jnp.all(codes > 0)) == isinstance(start, ff.NNDSVDa | ff.NNDSVDar | ff.Random)


@pytest.mark.parametrize("start", [ff.NNDSVD(), ff.NNDSVDa(), ff.NNDSVDar(), ff.Warmup()])
def test_signed_starts_leave_the_dictionary_its_signs(start):
    A = jnp.asarray(noisy(shape=(2400, 12)) @ np.diag(np.where(np.arange(12) % 2, -1, 1)))
    codes, dictionary = begun(start, A, signed=True)
    assert float(codes.min()) >= 0 > float(dictionary.min())
    rebuilt = codes.T @ dictionary
    scale = jnp.sum(A * rebuilt) / jnp.sum(rebuilt**2)
    assert float(jnp.sum((A - scale * rebuilt) ** 2)) < 0.7 * float(jnp.sum(A**2))


def test_warm_up_of_a_free_dictionary_starts_near_the_end():
    A = jnp.asarray(noisy(shape=(2400, 12)) - 0.5)
    warm, cold = (ff.factorize(A, RANK, solver=ff.SemiNMF(), start=start) for start in (ff.Warmup(), ff.NNDSVD()))
    assert float(warm.stats.objective[0]) < 0.5 * float(cold.stats.objective[0])
    assert float(warm.stats.objective[0]) < 1.1 * float(warm.stats.final_objective)


def test_warm_up_starts_near_the_end():
    A = jnp.asarray(noisy(shape=(2400, 12)))
    warm = ff.factorize(A, RANK)
    cold = ff.factorize(A, RANK, start=ff.NNDSVD())
    assert float(warm.stats.objective[0]) < 0.5 * float(cold.stats.objective[0])
    assert float(warm.stats.objective[0]) < 1.1 * float(warm.stats.final_objective)


def test_singular_triplets_are_the_largest_ones():
    from face_jax.nmf.solvers.starts import singular_triplets

    A = jnp.asarray(noisy(shape=(60, 12)))
    for matrix in (A, A.T):
        left, values, right = jax.jit(singular_triplets, static_argnums=(1, 2))(matrix, 8, 6, jax.random.key(0))
        np.testing.assert_allclose(values[:RANK], np.linalg.svd(matrix, compute_uv=False)[:RANK], rtol=1e-6)
        np.testing.assert_allclose(left.T @ left, np.eye(8), atol=1e-8)
        np.testing.assert_allclose(matrix @ right[0], values[0] * left[:, 0], rtol=1e-6)
