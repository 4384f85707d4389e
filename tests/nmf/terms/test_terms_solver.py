"""Factorizations with the term: monotone, stationary, λ = 0 is plain NMF, any loss and any head, the published Adam."""

import dataclasses

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import face_jax as fj
from face_jax.faithfulness import Faithfulness, InMeans, ReverseKL, SigmoidKL, SquaredLogits, certify, faithfulness_path
from face_jax.heads import Affine
from face_jax.nmf import ADMM, RESULTS, Given, PaperAdam, SemiNMF, factorize
from face_jax.nmf.terms import alternation, lambda_weights, problem

ROWS, CHANNELS, CLASSES, RANK = 48, 12, 5, 3
SOLVER = ADMM(max_steps=150, rtol=1e-7)


def _problem(places=1, seed=0):
    generator = np.random.default_rng(seed)
    planted = generator.gamma(0.5, 1, (ROWS, 5)) @ (
        generator.random((5, CHANNELS)) * (generator.random((5, CHANNELS)) < 0.5)
    )
    activations = np.maximum(planted + 0.2 * generator.normal(size=planted.shape), 0)
    head = Affine(
        jnp.asarray(generator.normal(size=(CHANNELS, CLASSES))),
        jnp.asarray(generator.normal(size=CLASSES)),
        places=places,
    )
    return jnp.asarray(activations), head


def _network(rows):
    weights = jnp.asarray(np.random.default_rng(8).normal(size=(2, CHANNELS, CHANNELS))) / 2
    return (jax.nn.gelu(rows @ weights[0]) @ weights[1])[:, :CLASSES]


def _maps_network(maps):
    return jnp.max(_network(maps.reshape(-1, CHANNELS)).reshape(maps.shape[0], -1, CLASSES), axis=1)


@jax.jit
def _value(term, weight, activations, factors):
    squared = fj.SquaredError().value(activations, *factors)
    return squared + weight * term.value(term.prepare(activations), *factors)


_slopes = jax.jit(jax.grad(_value, argnums=3))


def _residual(term, weight, activations, solution):
    """Violations of the optimality conditions of the whole objective, from `jax.grad` of its value."""
    factors = solution.codes, solution.dictionary
    slopes = _slopes(term, weight, activations, factors)
    scale = float(jnp.sum(activations**2))
    worst = 0.0
    for x, slope in zip(factors, slopes, strict=True):
        worst = max(worst, float(jnp.abs(x * slope).max()) / scale, -float(jnp.where(x == 0, slope, 0).min()) / scale)
    return worst


CASES = {
    "pooled rows": (lambda: Faithfulness(_problem()[1]), 1),
    "places of maps": (lambda: Faithfulness(_problem(6)[1]), 6),
    "reverse divergence": (lambda: Faithfulness(_problem()[1], loss=ReverseKL()), 1),
    "squared logits": (lambda: Faithfulness(_problem()[1], loss=SquaredLogits()), 1),
    "several labels": (lambda: Faithfulness(_problem()[1], loss=SigmoidKL()), 1),
    "a network of rows": (lambda: Faithfulness(_network), 1),
    "a network of maps": (lambda: Faithfulness(_maps_network, grid=(2, 3)), 6),
    "some images only": (lambda: Faithfulness(_problem()[1], weights=jnp.arange(ROWS, dtype=float) % 2.0), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_the_objective_never_rises_and_ends_stationary(name):
    build, _ = CASES[name]
    activations, _ = _problem()
    term, weight = build(), 2.0
    solution = factorize(activations, RANK, objective=fj.SquaredError() + weight * term, solver=SOLVER)
    history = np.asarray(solution.stats.objective)[: int(solution.stats.steps) + 1]
    assert len(history) > 2
    assert (np.diff(history) <= 0).all()
    assert history[-1] < history[0]
    value = float(_value(term, weight, activations, (solution.codes, solution.dictionary)))
    assert float(solution.stats.final_objective) == pytest.approx(value, rel=1e-10)
    assert history[-1] == pytest.approx(value, rel=1e-9)
    assert solution.result == RESULTS.successful, solution.result.message
    assert _residual(term, weight, activations, solution) < 1e-6
    assert (solution.codes >= 0).all()
    assert (solution.dictionary >= 0).all()
    np.testing.assert_allclose(jnp.linalg.norm(solution.dictionary, axis=1), 1, rtol=1e-12)


def test_faithfulness_is_bought_with_reconstruction():
    activations, head = _problem()
    term = Faithfulness(head)
    prepared = term.prepare(activations)
    losses, errors = [], []
    for weight in (0.0, 1.0, 100.0):
        found = factorize(activations, RANK, objective=fj.SquaredError() + weight * term, solver=SOLVER)
        losses.append(float(term.value(prepared, found.codes, found.dictionary)))
        errors.append(float(jnp.sum((activations - found.codes @ found.dictionary) ** 2)))
    assert losses[0] > losses[1] > 2 * losses[2]
    assert errors[0] < errors[1] < errors[2]


def test_no_weight_is_plain_factorization_bit_by_bit():
    activations, head = _problem()
    plain = factorize(activations, RANK)
    for nothing in (0.0, jnp.zeros(())):
        found = factorize(activations, RANK, objective=fj.SquaredError() + nothing * Faithfulness(head))
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_general_optimizer_finds_nothing_better_nearby():
    activations, head = _problem()
    term, weight = Faithfulness(head), 5.0
    solution = factorize(activations, RANK, objective=fj.SquaredError() + weight * term, solver=SOLVER)
    prepared = term.prepare(activations)
    first = np.concatenate([np.asarray(solution.codes).ravel(), np.asarray(solution.dictionary).ravel()])

    @jax.jit
    @jax.value_and_grad
    def value(x):
        codes, dictionary = x[: ROWS * RANK].reshape(ROWS, RANK), x[ROWS * RANK :].reshape(RANK, CHANNELS)
        return fj.SquaredError().value(activations, codes, dictionary) + weight * term.value(
            prepared, codes, dictionary
        )

    best = scipy.optimize.minimize(
        lambda x: tuple(np.asarray(part, np.float64) for part in value(x)), first, jac=True, method="L-BFGS-B",
        bounds=[(0, None)] * len(first), options={"maxiter": 500, "ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    assert float(solution.stats.final_objective) <= best.fun * (1 + 1e-6)


def test_blocks_of_rows_do_what_all_rows_do(monkeypatch):
    activations, head = _problem(6)
    objective = fj.SquaredError(row_weights=jnp.linspace(0.5, 1.5, ROWS)) + 3.0 * Faithfulness(head)
    solver = ADMM(max_steps=6, rtol=0.0)

    def solved():
        jax.clear_caches()
        return factorize(activations, RANK, objective=objective, solver=solver)

    whole = solved()
    # Eight images in blocks of three: the last block overlaps the one before it.
    monkeypatch.setattr(problem, "BLOCK_ROWS", 18)
    blocks = solved()
    jax.clear_caches()
    # Conjugate gradients stop when all of a block have arrived, so inexact steps differ from block to block.
    np.testing.assert_allclose(blocks.codes, whole.codes, atol=1e-3)
    np.testing.assert_allclose(blocks.stats.final_objective, whole.stats.final_objective, rtol=1e-5)


def test_penalties_and_row_weights_count():
    activations, head = _problem()
    term, weight = Faithfulness(head), 2.0
    quadratic = fj.SquaredError(row_weights=jnp.linspace(0.2, 2, ROWS), l1_codes=0.05, l2_codes=0.02, l2_dictionary=0.1)
    solution = factorize(activations, RANK, objective=quadratic + weight * term, solver=SOLVER)
    codes, dictionary = solution.codes / solution.scale[None], solution.dictionary * solution.scale[:, None]
    value = quadratic.value(activations, codes, dictionary)
    value = value + weight * term.value(term.prepare(activations), codes, dictionary)
    assert float(solution.stats.final_objective) == pytest.approx(float(value), rel=1e-9)
    history = np.asarray(solution.stats.objective)[: int(solution.stats.steps) + 1]
    assert (np.diff(history) <= 0).all()


def test_the_unit_of_row_weights_and_term_makes_no_difference():
    activations, head = _problem()
    rows = jnp.asarray(np.random.default_rng(4).uniform(0.1, 10, ROWS))
    found = []
    for unit in (1.0, 1e-4):
        objective = fj.SquaredError(row_weights=unit * rows) + unit * 2.0 * Faithfulness(head)
        solution = factorize(activations, RANK, objective=objective, solver=SOLVER)
        measured = fj.kkt_residual(activations, solution.codes, solution.dictionary, objective=objective)
        assert float(solution.stats.final_residual) == pytest.approx(float(measured.scaled), rel=1e-6, abs=1e-12)
        assert solution.result == RESULTS.successful
        found.append(solution)
    np.testing.assert_allclose(found[0].codes, found[1].codes, atol=1e-6)
    assert abs(int(found[0].stats.steps) - int(found[1].stats.steps)) <= 2


def test_signed_activations_with_the_term():
    activations, head = _problem()
    activations = activations - 0.4
    term = Faithfulness(head)
    solution = factorize(activations, RANK, objective=fj.SquaredError() + 2.0 * term, solver=SemiNMF(max_steps=100))
    history = np.asarray(solution.stats.objective)[: int(solution.stats.steps) + 1]
    assert (np.diff(history) <= 0).all()
    assert (solution.codes >= 0).all()
    assert (solution.dictionary < 0).any()
    plain = factorize(activations, RANK, solver=SemiNMF(max_steps=100))
    prepared = term.prepare(activations)
    assert term.value(prepared, solution.codes, solution.dictionary) < term.value(
        prepared, plain.codes, plain.dictionary
    )


def test_single_precision_agrees_with_double():
    activations, head = _problem()
    small = jax.tree.map(lambda x: x.astype(jnp.float32), head)
    solver = ADMM(max_steps=60, rtol=1e-4)
    double = factorize(activations, RANK, objective=fj.SquaredError() + 2.0 * Faithfulness(head), solver=solver)
    single = factorize(
        activations.astype(jnp.float32), RANK, objective=fj.SquaredError() + 2.0 * Faithfulness(small), solver=solver
    )
    assert single.codes.dtype == jnp.float32
    assert float(single.stats.final_objective) == pytest.approx(float(double.stats.final_objective), rel=1e-4)


def test_under_jit_and_vmap():
    activations, head = _problem()
    solver = ADMM(max_steps=8)

    @jax.jit
    def objective_at(weight):
        objective = fj.SquaredError() + weight * Faithfulness(head)
        return factorize(activations, RANK, objective=objective, solver=solver, throw=False).stats.final_objective

    weights = jnp.asarray([0.5, 4.0])
    batch = jax.vmap(objective_at)(weights)
    for one, weight in zip(batch, weights, strict=True):
        assert float(one) == pytest.approx(float(objective_at(weight)), rel=1e-8)


def test_a_start_of_ones_own_is_where_it_starts():
    activations, head = _problem()
    objective = fj.SquaredError() + 2.0 * Faithfulness(head)
    generator = np.random.default_rng(2)
    codes, dictionary = jnp.asarray(generator.random((ROWS, RANK))), jnp.asarray(generator.random((RANK, CHANNELS)))
    found = factorize(activations, RANK, objective=objective, start=Given(codes, dictionary), solver=ADMM(max_steps=1))
    value = float(_value(Faithfulness(head), 2.0, activations, (codes, dictionary)))
    assert float(found.stats.objective[0]) == pytest.approx(value, rel=1e-10)


def test_published_adam_is_adam_and_clamp():
    import optax

    activations, head = _problem()
    term, weight = Faithfulness(head, unit=InMeans()), 0.1
    generator = np.random.default_rng(2)
    first = jnp.asarray(generator.random((ROWS, RANK))), jnp.asarray(generator.random((RANK, CHANNELS)))
    found = factorize(
        activations, RANK, objective=fj.SquaredError() + weight * term, start=Given(*first),
        solver=PaperAdam(max_steps=30, atol=0.0),
    )  # fmt: skip

    @jax.jit
    def loss(factors):
        rebuilt = factors[0] @ factors[1]
        log_p, log_q = jax.nn.log_softmax(head(activations)), jax.nn.log_softmax(head(rebuilt))
        return jnp.mean((rebuilt - activations) ** 2) + weight * jnp.mean(
            jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)
        )

    optimizer, factors = optax.adam(5e-4), first
    memory = optimizer.init(factors)

    @jax.jit
    def step(factors, memory):
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = optimizer.update(jax.grad(loss)(factors), memory)
        return jax.tree.map(lambda x, step: jnp.maximum(x + step, 0), factors, updates), memory

    for _ in range(30):
        factors, memory = step(factors, memory)
    np.testing.assert_allclose(found.codes @ found.dictionary, factors[0] @ factors[1], atol=1e-9)
    assert found.result == RESULTS.max_steps_reached
    assert float(found.stats.objective[30]) == pytest.approx(float(loss(factors)) * activations.size / 2, rel=1e-8)


def test_published_adam_is_judged_by_its_own_objective():
    activations, head = _problem()
    seen = jnp.asarray(np.random.default_rng(3).random(activations.shape) > 0.3, activations.dtype)
    term, quadratic = Faithfulness(head), fj.SquaredError(weights=seen)
    objective = quadratic + 2.0 * term
    found = factorize(activations, RANK, objective=objective, solver=PaperAdam(max_steps=30, atol=0.0))
    value = quadratic.value(activations, found.codes, found.dictionary)
    value = value + 2.0 * term.value(term.prepare(activations), found.codes, found.dictionary)
    assert float(found.stats.final_objective) == pytest.approx(float(value), rel=1e-9)
    measured = fj.kkt_residual(activations, found.codes, found.dictionary, objective=objective)
    assert float(found.stats.final_residual) == pytest.approx(float(measured.scaled), rel=1e-9)


def test_published_adam_stops_by_the_change_of_its_loss_and_is_no_stationary_point():
    activations, head = _problem()
    objective = fj.SquaredError() + 0.1 * Faithfulness(head, unit=InMeans())
    solver = PaperAdam(max_steps=3000)
    found = factorize(activations, RANK, objective=objective, solver=solver)
    steps = int(found.stats.steps)
    losses = np.asarray(found.stats.objective)[: steps + 1] * 2 / activations.size
    assert found.result == RESULTS.settled
    assert abs(losses[steps - 1] - losses[steps - 2]) < 1e-3
    assert (np.abs(np.diff(losses[: steps - 1])) >= 1e-3).all()
    better = factorize(activations, RANK, objective=objective, solver=SOLVER)
    assert better.stats.final_objective < found.stats.final_objective
    assert better.stats.final_residual < 1e-3 * found.stats.final_residual


def test_the_path_is_chosen_by_images_held_out_within_the_bound():
    activations, head = _problem()
    held_out, _ = _problem(seed=5)
    path = faithfulness_path(activations, RANK, Faithfulness(head), held_out, weights=(1.0, 10.0, 1e3, 1e5))
    assert [point.weight for point in path.points] == [0.0, 1.0, 10.0, 1e3, 1e5]
    bound = 1.1 * path.points[0].held_out_error
    allowed = [point for point in path.points if point.held_out_error <= bound]
    assert path.points[path.chosen].held_out_loss == min(point.held_out_loss for point in allowed)
    assert path.points[path.chosen].held_out_loss < path.points[0].held_out_loss
    assert path.table()[1]["weight"] == 1.0
    with pytest.raises(ValueError, match=r"most_error=0\.9"):
        faithfulness_path(activations, RANK, Faithfulness(head), held_out, most_error=0.9)
    with pytest.raises(ValueError, match="ascending"):
        faithfulness_path(activations, RANK, Faithfulness(head), held_out, weights=(2.0, 1.0))


def test_certificates_bound_what_they_certify():
    activations, head = _problem(6)
    held_out, _ = _problem(6, seed=5)
    term = Faithfulness(head)
    found = factorize(activations, RANK, objective=fj.SquaredError() + 3.0 * term, solver=ADMM(max_steps=20))
    certified = certify(term, activations, found, held_out=held_out)
    for images in (certified.fitted, certified.held_out):
        assert images.kl.shape == (ROWS // 6,)
        assert images.kl.max() > 0
        assert (images.l1 <= np.minimum(images.pinsker, images.bretagnolle_huber) + 1e-12).all()
    table = certified.table()
    assert {(row["images"], row["quantity"]) for row in table} >= {("fitted", "kl"), ("held out", "agreement")}
    (row,) = [row for row in table if (row["images"], row["quantity"]) == ("held out", "kl")]
    assert row["0.5"] <= row["0.9"] <= row["1.0"] == pytest.approx(certified.held_out.kl.max())  # pyright: ignore[reportOperatorIssue]
    # Codes that heed the predictions keep them better, and rebuild the activations less well.
    faithful = certify(term, activations, found, held_out=held_out, objective=fj.SquaredError() + 3.0 * term)
    assert faithful.held_out.kl.mean() < 0.9 * certified.held_out.kl.mean()
    assert faithful.held_out_error > certified.held_out_error  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize("name", ["places of maps", "a network of maps"])
def test_predictions_that_are_not_kept_are_computed_again(name):
    activations, _ = _problem()
    term = CASES[name][0]()
    unkept = dataclasses.replace(term, keep_predictions=False)
    found, expected = (
        factorize(activations, RANK, objective=fj.SquaredError() + 2.0 * one, solver=ADMM(max_steps=6, rtol=0.0))
        for one in (unkept, term)
    )
    np.testing.assert_allclose(found.codes, expected.codes, atol=1e-9)
    np.testing.assert_allclose(found.stats.objective, expected.stats.objective, rtol=1e-12)
    cotangent = jnp.asarray(np.random.default_rng(3).normal(size=found.codes.shape))

    def derivative(term):
        def scalar(weight):
            codes = fj.encode(activations, found.dictionary, objective=fj.SquaredError() + weight * term)
            return jnp.sum(codes * cotangent)

        return jax.jit(jax.grad(scalar))(2.0)

    wanted = derivative(term)
    assert abs(float(wanted)) > 1e-4
    np.testing.assert_allclose(derivative(unkept), wanted, rtol=1e-8)


@pytest.mark.parametrize("traced", [False, True], ids=["a number", "traced"])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_predictions_that_are_not_numbers_are_refused(kept, traced):
    activations, _ = _problem()
    bad = Faithfulness(lambda maps: _maps_network(maps) + jnp.nan, grid=(2, 3), keep_predictions=kept)

    def objective_value(weight):
        return factorize(activations, RANK, objective=fj.SquaredError() + weight * bad).stats.objective

    with pytest.raises(ValueError, match="NaN or infinite for 8 of 8 images"):
        (jax.grad(objective_value) if traced else objective_value)(1.0)


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_of_rows_by_channels_by_classes_is_formed(kept, monkeypatch):
    """The largest array in a step is the activations' or the predictions', with distinct sizes to tell them apart.

    Without predictions kept it is the activations', and a block's predictions are all of them that there is.
    """
    rows, channels, classes, concepts, block = 110, 23, 31, 4, 22
    monkeypatch.setattr(problem, "BLOCK_ROWS", block)
    monkeypatch.setattr(problem, "SAMPLE_ROWS", block)
    if not kept:
        monkeypatch.setattr(alternation, "JOINT_ROWS", block)
    generator = np.random.default_rng(0)
    activations = jnp.asarray(generator.random((rows, channels)))
    head = Affine(jnp.asarray(generator.normal(size=(channels, classes))), jnp.zeros(classes))
    objective = fj.SquaredError() + 1.0 * Faithfulness(head, keep_predictions=kept)
    prepared = lambda_weights.prepare(objective.terms, activations)
    settings = ADMM(max_steps=2).beside_terms

    def run(activations, codes, dictionary):
        whole = problem.problem_of(activations, objective, prepared, settings)
        return alternation.solve(whole, codes, dictionary).codes

    traced = jax.make_jaxpr(run)(activations, jnp.ones((rows, concepts)), jnp.ones((concepts, channels)))
    shapes = set()

    def collect(jaxpr):
        for equation in jaxpr.eqns:
            shapes.update(tuple(getattr(v.aval, "shape", ())) for v in equation.outvars if v.aval.size > 0)
            for parameter in jax.tree.leaves(
                list(equation.params.values()),
                is_leaf=lambda x: isinstance(x, (jax.extend.core.ClosedJaxpr, jax.extend.core.Jaxpr)),
            ):
                if isinstance(parameter, jax.extend.core.ClosedJaxpr):
                    collect(parameter.jaxpr)
                elif isinstance(parameter, jax.extend.core.Jaxpr):
                    collect(parameter)

    collect(traced.jaxpr)
    assert (block, classes) in shapes, "the walk missed the loop's body"
    assert ((rows, classes) in shapes) == kept
    assert max(int(np.prod(shape)) for shape in shapes) == rows * (classes if kept else channels)
