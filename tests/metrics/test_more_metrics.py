"""Metrics beside those of every report, against values by hand and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from face_jax import heads, metrics
from face_jax.activations import Collected
from face_jax.heads import Affine
from face_jax.metrics.paired import half_width, told_apart
from face_jax.outputs import MultiLabel

CURVE = np.asarray([1.0, 0.5, 0.0])


@pytest.mark.parametrize(("definition", "divisor"), [("paper", 3), ("code", 4), ("ice", 3), ("lad", 2)])
def test_each_source_divides_deletion_by_its_own_number(definition, divisor):
    assert metrics.c_deletion(CURVE, definition) == pytest.approx(1.5 / divisor)
    best = np.asarray([1.0, 0.0, 0.0])
    assert metrics.c_deletion(best, definition) == pytest.approx(metrics.deletion_ceiling(2, definition))


def test_the_definitions_are_those_that_the_sources_compute():
    """FACE's code: sum over all points over their number and one; ICE's notebook: mean over all points."""
    curve = np.random.default_rng(0).random(26)
    falls = curve[0] - curve
    assert metrics.c_deletion(curve, "code") == pytest.approx(falls.sum() / (len(curve) + 1))
    assert metrics.c_deletion(curve, "ice") == pytest.approx(falls.mean())
    assert metrics.deletion_ceiling(25, "code") == pytest.approx(0.9259, abs=1e-4)
    assert metrics.c_insertion(curve) == pytest.approx((curve.sum() - curve[0] / 2 - curve[-1] / 2) / 25)


def test_unknown_definitions_and_curves_of_a_point_are_refused():
    with pytest.raises(ValueError, match="definition='r' is unknown; give 'paper' or"):
        metrics.c_deletion(CURVE, "r")
    with pytest.raises(ValueError, match="definition='r' is unknown"):
        metrics.deletion_ceiling(3, "r")
    with pytest.raises(ValueError, match="accuracy has 1 step"):
        metrics.c_insertion(CURVE[:1])
    with pytest.raises(ValueError, match="definition="):
        metrics.gini(CURVE, "lad")


def test_the_published_gini_keeps_signs():
    assert metrics.gini(np.asarray([3.0, 1.0]), "code") == metrics.gini(np.asarray([3.0, 1.0]))
    # In order: -1, 3; (-1·-1 + 1·3) / (2 · 2) = 1, above what sizes can reach.
    assert metrics.gini(np.asarray([3.0, -1.0]), "code") == pytest.approx(1)
    assert metrics.gini(np.asarray([3.0, -1.0])) == pytest.approx(0.25)
    assert np.isnan(metrics.gini(np.asarray([1.0, -1.0]), "code"))
    assert metrics.gini(np.zeros(2), "code") == 0


def test_mean_squared_error_is_over_all_entries():
    assert metrics.mean_squared_error(np.asarray([[1.0, 2.0], [3.0, 4.0]]), np.ones((2, 2))) == pytest.approx(14 / 4)
    with pytest.raises(ValueError, match="give the same"):
        metrics.mean_squared_error(np.ones(2), np.ones(3))


def test_code_sparsity_by_hand():
    found = metrics.code_sparsity(np.asarray([[0.0, 5.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert (found.non_zero, found.per_place) == (pytest.approx(0.25), pytest.approx(1))
    assert found.hoyer == pytest.approx((1 + (2 - np.sqrt(2)) / 1) / 2)
    assert np.isnan(metrics.code_sparsity(np.ones((2, 1))).hoyer)
    assert np.isnan(metrics.code_sparsity(np.zeros((2, 3))).hoyer)
    assert metrics.code_sparsity(np.asarray([[1e-9, 1.0]]), least=1e-6).non_zero == 0.5
    with pytest.raises(ValueError, match="codes has shape"):
        metrics.code_sparsity(np.ones((0, 3)))


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_code_sparsity_has_no_unit(unit):
    codes = np.random.default_rng(3).random((4, 5))
    assert metrics.code_sparsity(codes * unit).hoyer == pytest.approx(metrics.code_sparsity(codes).hoyer)


def test_stability_matches_one_to_one_and_has_a_floor():
    first = np.eye(4)[:3]
    turned = np.asarray([[0, 0, 2.0, 0], [3.0, 0, 0, 0], [0, np.sqrt(0.5), 0, np.sqrt(0.5)]])
    found = metrics.stability([first, first[[1, 2, 0]], turned], key=0)
    expected = (2 + np.sqrt(0.5)) / 3
    np.testing.assert_allclose(found.pairs, [1, expected, expected])
    assert found.mean == pytest.approx((1 + 2 * expected) / 3)
    assert 0 < found.floor < 1
    # Rows that are all alike: dictionaries of them are the same whatever is drawn.
    assert metrics.stability([first, turned], rows=np.ones((5, 4))).floor == pytest.approx(1)


def test_stability_takes_a_concept_for_its_negative_where_that_is_asked_for():
    first = np.eye(3)
    assert metrics.stability([first, -first]).mean <= 0
    assert metrics.stability([first, -first], either_sign=True).mean == pytest.approx(1)


@pytest.mark.parametrize(
    ("dictionaries", "message"),
    [
        ([np.eye(2)], "at least 2"),
        ([np.eye(2), np.eye(3)], "one rank and layer"),
        ([np.eye(2), np.full((2, 2), np.nan)], r"dictionaries\[1\] has 4 entries"),
    ],
)
def test_stability_refuses_what_cannot_be_compared(dictionaries, message):
    with pytest.raises(ValueError, match=message):
        metrics.stability(dictionaries)
    with pytest.raises(ValueError, match="rows has 3 channels"):
        metrics.stability([np.eye(2), np.eye(2)], rows=np.ones((4, 3)))


def test_bands_over_runs_and_over_images():
    found = metrics.band_over_runs(np.asarray([[0.0, 0.5], [0.2, 0.9]]))
    np.testing.assert_allclose(found.mean, [0.1, 0.7])
    np.testing.assert_allclose(found.high - found.mean, [0.02**0.5, 0.08**0.5])
    with pytest.raises(ValueError, match="1 run"):
        metrics.band_over_runs(np.ones((1, 3)))
    wilson = scipy.stats.binomtest(7, 20).proportion_ci(0.9, method="wilson")
    interval = metrics.band_over_images(np.asarray([7 / 20]), 20, level=0.9)
    np.testing.assert_allclose([interval.low[0], interval.high[0]], [wilson.low, wilson.high])
    with pytest.raises(ValueError, match="give shares"):
        metrics.band_over_images(np.asarray([1.2]), 20)


def test_the_surrogate_is_the_sum_of_weighted_concepts():
    logits = np.asarray([[3.0, 1.0], [0.0, 2.0]])
    presence, weights = np.asarray([[1.0, 0.0], [0.0, 1.0]]), np.asarray([[3.0, 0.0], [0.0, 2.0]])
    found = metrics.surrogate_error(logits, presence, weights)
    assert found.mae == pytest.approx(1 / 4)
    p, q = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-3))
    assert found.emd == pytest.approx((q - p) / 2)
    assert found.agreement == 1
    exact = metrics.surrogate_error(logits - 1, presence, weights, nothing=np.asarray([-1.0, -1.0]))
    assert exact.mae == pytest.approx(1 / 4)
    # A bank for each class: the second one has the missing concept.
    banks = np.stack([presence, np.asarray([[0.0, 0.5], [0.0, 1.0]])], axis=1)
    assert metrics.surrogate_error(logits, banks, weights).mae == pytest.approx(0)
    labels = metrics.surrogate_error(logits, presence, weights, outputs=MultiLabel())
    sigmoid = 1 / (1 + np.exp(-np.asarray([1.0, 0.0])))
    assert labels.emd == pytest.approx((sigmoid[0] - sigmoid[1]) / 2)
    with pytest.raises(ValueError, match="presence has shape"):
        metrics.surrogate_error(logits, presence[:, :1], weights)


def test_a_true_surrogate_passes_the_sanity_check_and_a_random_one_does_not():
    random = np.random.default_rng(0)
    presence, weights = random.random((30, 4)), 3 * random.normal(size=(4, 3))
    drawn = random.random((5, 30, 4))
    logits = presence @ weights
    found = metrics.surrogate_check(logits, presence, weights, drawn, key=0)
    assert found.own.mae == pytest.approx(0, abs=1e-12)
    assert found.passed
    assert not metrics.surrogate_check(logits, drawn[0], weights, presence[None], key=0).passed
    single = metrics.surrogate_check(presence[:, :1] @ weights[:1], presence[:, :1], weights[:1], drawn[..., :1])
    assert np.isnan(single.random_weights.mae)
    assert single.passed
    own = metrics.surrogate_check(logits, presence, weights, drawn, np.repeat(weights[None] + 1, 5, axis=0), key=0)
    expected = np.mean([np.abs(each @ (weights + 1) - logits).mean() for each in drawn])
    assert own.random_concepts.mae == pytest.approx(expected)
    with pytest.raises(ValueError, match="weights_of_random has 1 draws"):
        metrics.surrogate_check(logits, presence, weights, drawn, weights[None])


def _planted(seed=0):
    random = np.random.default_rng(seed)
    maps, dictionary = random.random((6, 2, 2, 5)), random.random((3, 5))
    codes = random.random((6, 2, 2, 3))
    return Affine(jnp.asarray(random.normal(size=(5, 4))), jnp.asarray(random.normal(size=4))), maps, codes, dictionary


def test_bounds_are_above_the_errors_and_reached_along_the_steepest_direction():
    head, maps, codes, dictionary = _planted()
    found = metrics.completeness_bounds(head, maps, codes, dictionary, 2)
    lost = np.asarray(head(jnp.asarray(maps)) - head(jnp.asarray(codes @ dictionary)))
    assert found.fidelity_error == pytest.approx(np.linalg.norm(lost, axis=1).mean())
    assert found.target_error == pytest.approx(np.abs(lost[:, 2]).mean())
    assert found.target_error <= found.fidelity_error <= found.bound
    assert found.target_error <= found.target_bound
    assert found.lipschitz == pytest.approx(np.linalg.svd(np.asarray(head.kernel))[1][0])
    assert found.additivity_error == pytest.approx(0, abs=1e-12)
    steepest = np.linalg.svd(np.asarray(head.kernel))[0][:, 0]
    tight = metrics.completeness_bounds(head, codes @ dictionary + steepest, codes, dictionary, 2)
    assert tight.fidelity_error == pytest.approx(tight.bound)
    # What is known of one kernel isn't taken for another's.
    steeper = metrics.completeness_bounds(Affine(2 * head.kernel, head.bias), maps, codes, dictionary, 2)
    assert steeper.lipschitz == pytest.approx(2 * found.lipschitz)


def test_concepts_that_do_not_add_up_are_measured_and_no_slope_is_made_up(toy_squared):
    _, maps, codes, dictionary = _planted()
    found = metrics.completeness_bounds(toy_squared, maps, codes, dictionary, 0)
    rebuilt = [codes[..., [k]] @ dictionary[[k]] for k in range(3)]
    kernel = np.asarray(toy_squared.kernel)
    whole = ((codes @ dictionary) ** 2).mean((1, 2)) @ kernel
    summed = sum((each**2).mean((1, 2)) @ kernel for each in rebuilt)
    assert found.additivity_error == pytest.approx(np.linalg.norm(whole - summed, axis=1).mean())
    assert np.isnan([found.lipschitz, found.bound, found.target_bound]).all()
    with pytest.raises(ValueError, match="maps has shape"):
        metrics.completeness_bounds(toy_squared, maps[:3], codes, dictionary, 0)


@pytest.fixture
def toy_squared():
    from toy_model import Squared

    return Squared(jnp.asarray(np.random.default_rng(4).normal(size=(5, 4))))


def test_completeness_is_the_share_above_chance():
    assert metrics.completeness(0.6, 0.8, 0.4) == pytest.approx(0.5)
    assert np.isnan(metrics.completeness(0.6, 0.4, 0.4))


@pytest.mark.parametrize("affine", [True, False])
def test_scores_with_an_offset_are_those_of_the_whole_sum(affine, toy_squared):
    head, maps, codes, dictionary = _planted()
    head = head if affine else toy_squared
    offset = np.random.default_rng(1).random(5)
    whole = codes @ dictionary + offset
    pictures = Collected(maps, np.asarray(head(jnp.asarray(maps))))
    row = metrics.score("own", head, pictures, dictionary, 1, np.arange(3.0), codes=codes, offset=offset)
    assert row.relative_error == pytest.approx(metrics.relative_squared_error(maps, whole))
    certified = metrics.certificates(pictures.logits, np.asarray(head(jnp.asarray(whole))))
    assert row.kl == pytest.approx(certified.kl.mean())
    # The first step of insertion is the offset alone.
    alone = np.asarray(head(jnp.broadcast_to(jnp.asarray(offset), maps.shape)))
    assert row.fidelity.insertion.accuracy[0] == pytest.approx((alone.argmax(1) == 1).mean())
    exact = metrics.score("own", head, pictures, dictionary, 1, np.arange(3.0), offset=offset)
    assert exact.relative_error <= row.relative_error
    with pytest.raises(ValueError, match="codes has shape"):
        metrics.score("own", head, pictures, dictionary, 1, np.arange(3.0), codes=codes[:2])


def test_shifted_heads_refuse_offsets_of_other_layers(toy_squared):
    head = _planted()[0]
    assert heads.shifted(head, None) is head
    assert heads.shifted(head, np.ones(5)).affine
    for each in (head, toy_squared):
        with pytest.raises(ValueError, match="offset has 3 numbers"):
            heads.shifted(each, np.ones(3))(jnp.ones((1, 1, 1, 5)))
    with pytest.raises(ValueError, match="NaN"):
        heads.shifted(head, np.full(5, np.nan))


def test_methods_are_told_apart_as_by_a_paired_test():
    random = np.random.default_rng(3)
    shared = random.normal(size=8)
    first, second = (shared + 0.4 * random.normal(size=(40, 8)) + shift for shift in (0.0, 0.3))
    found = told_apart(first, second)
    tested = scipy.stats.ttest_rel(first, second, axis=-1)
    np.testing.assert_array_equal(found, np.where(tested.pvalue < 0.05, np.sign(tested.statistic), 0))
    assert set(found.tolist()) == {-1, 0}
    interval = tested.confidence_interval(0.95)
    np.testing.assert_allclose(half_width(first - second), (interval.high - interval.low) / 2)
    # What differs by rounding alone isn't told apart, however regularly it does.
    assert told_apart(first[0] * (1 + 1e-5), first[0]) == 0
    assert told_apart(first[0] + 0.01, first[0]) == 1
