"""Scores against values by hand, and against the ceilings that they're printed beside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax import metrics
from face_jax.heads import Affine

KEY = jax.random.key(0)


def test_certificates_by_hand():
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    found = metrics.certificates(np.log(p), np.log(q))
    kl = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    np.testing.assert_allclose(found.kl, [kl], rtol=1e-12)
    np.testing.assert_allclose(found.l1, [0.8], rtol=1e-12)
    np.testing.assert_allclose(found.pinsker, [np.sqrt(2 * kl)], rtol=1e-12)
    assert found.agreement.tolist() == [True]


def test_bounds_hold_and_each_is_tighter_somewhere():
    generator = np.random.default_rng(1)
    original = generator.normal(size=(400, 7)) * 3
    near = original + 0.3 * generator.normal(size=original.shape)
    far = generator.normal(size=original.shape) * 6
    found = metrics.certificates(np.concatenate([original, original]), np.concatenate([near, far]))
    assert (found.l1 <= found.pinsker + 1e-12).all()
    assert (found.l1 <= found.bretagnolle_huber + 1e-12).all()
    assert (found.pinsker < found.bretagnolle_huber).any()
    assert (found.bretagnolle_huber < found.pinsker).any()


def test_extreme_logits_stay_finite():
    found = metrics.certificates(np.array([[1000.0, 0.0]]), np.array([[0.0, 1000.0]]))
    np.testing.assert_allclose(found.kl, [1000.0])
    np.testing.assert_allclose(found.l1, [2.0])


def test_relative_squared_error():
    assert metrics.relative_squared_error(np.array([3.0, 4.0]), np.array([3.0, 0.0])) == pytest.approx(16 / 25)
    assert np.isnan(metrics.relative_squared_error(np.zeros(2), np.zeros(2)))


def test_gini_by_hand():
    assert metrics.gini(np.array([1.0, 1.0, 1.0])) == pytest.approx(0)
    assert metrics.gini(np.array([0.0, -2.0, 0.0, 0.0])) == pytest.approx(metrics.gini_ceiling(4))
    assert metrics.gini(np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert metrics.gini(np.zeros(3)) == 0


@pytest.fixture
def toy():
    """Two classes; concept 0 alone decides for class 1, concept 1 against it."""
    head = Affine(jnp.array([[0.0, 4.0], [3.0, 0.0], [0.0, 0.0]]), jnp.array([0.5, 0.0]))
    return head, jnp.ones((2, 1, 1, 3)), jnp.eye(3)


def test_curves_by_hand(toy):
    head, codes, dictionary = toy
    found = metrics.fidelity(head, codes, dictionary, 1, np.array([0, 1, 2]))
    np.testing.assert_array_equal(found.insertion.accuracy, [0, 1, 1, 1])
    np.testing.assert_array_equal(found.deletion.accuracy, [1, 0, 0, 0])
    assert found.c_insertion == pytest.approx(metrics.insertion_ceiling(3))
    assert found.c_deletion == pytest.approx(metrics.deletion_ceiling(3))
    np.testing.assert_allclose(found.insertion.probability[1], 1 / (1 + np.exp(0.5 - 4)), rtol=1e-12)


def test_the_order_is_what_is_asked_for(toy):
    head, codes, dictionary = toy
    found = metrics.fidelity(head, codes, dictionary, 1, np.array([1, 2, 0]))
    np.testing.assert_array_equal(found.insertion.accuracy, [0, 0, 0, 1])
    np.testing.assert_array_equal(found.deletion.accuracy, [1, 1, 1, 0])


def test_ceilings_of_the_papers_rank():
    assert metrics.insertion_ceiling(25) == pytest.approx(0.98)
    assert metrics.deletion_ceiling(25) == pytest.approx(25 / 26)
    assert metrics.gini_ceiling(25) == pytest.approx(0.96)
    assert metrics.insertion_ceiling(25, accuracy_of_nothing=1.0) == 1


def test_controls_have_unit_length_and_the_mean_comes_first():
    rows = np.abs(np.random.default_rng(2).normal(size=(20, 9)))
    bank = metrics.mean_direction(rows, 4, key=KEY)
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(bank[0] * np.linalg.norm(rows.mean(0)), rows.mean(0), rtol=1e-6)
    assert (metrics.random_dictionary(9, 4, key=KEY) >= 0).all()
    signed = metrics.random_dictionary(9, 4, key=KEY, signed=True)
    np.testing.assert_array_equal(np.abs(signed), metrics.random_dictionary(9, 4, key=KEY))
    assert (signed < 0).any()


def test_score_of_a_perfect_bank(toy):
    from face_jax.activations import Collected

    head, codes, dictionary = toy
    maps = np.asarray(codes @ dictionary)
    pictures = Collected(maps, np.asarray(head(jnp.asarray(maps))))
    row = metrics.score("own", head, pictures, np.asarray(dictionary), 1, np.array([0.9, 0.1, 0.0]))
    assert row.relative_error == pytest.approx(0, abs=1e-20)
    assert row.kl == pytest.approx(0, abs=1e-12)
    assert row.agreement == 1
    assert row.becomes == ()
    assert row.fidelity.c_insertion == pytest.approx(metrics.insertion_ceiling(3))


def test_what_predictions_become_is_counted(toy):
    from face_jax.activations import Collected

    head, codes, _ = toy
    maps = np.asarray(codes @ jnp.eye(3))
    pictures = Collected(maps, np.asarray(head(jnp.asarray(maps))))
    # Without concept 0, which alone decides for class 1, both pictures fall into class 0.
    blind = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    row = metrics.score("blind", head, pictures, blind, 1, np.array([0.5, 0.5]))
    assert row.agreement == 0
    assert row.becomes == ((0, 2),)


@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1e30, 1e300])
def test_errors_and_shares_have_no_unit(unit):
    generator = np.random.default_rng(5)
    activations, rebuilt = generator.random((2, 6, 3))
    error = ((activations - rebuilt) ** 2).sum() / (activations**2).sum()
    assert metrics.relative_squared_error(activations * unit, rebuilt * unit) == pytest.approx(error)
    assert metrics.gini(np.array([1.0, 3.0]) * unit) == pytest.approx(0.25)
    found = metrics.controls.unit_length(activations * unit)
    np.testing.assert_allclose(found, activations / np.linalg.norm(activations, axis=1, keepdims=True), rtol=1e-12)


def test_huge_logits_have_a_divergence():
    """Two classes whose logits differ by 1e30: the divergence is that difference, agreement is told."""
    found = metrics.certificates(np.array([[1e30, 0.0], [0.0, 1.0]]), np.array([[0.0, 1e30], [0.0, 1.0]]))
    np.testing.assert_allclose(found.kl, [1e30, 0], atol=1e-12)
    np.testing.assert_allclose(found.l1, [2, 0], atol=1e-12)
    assert found.agreement.tolist() == [False, True]
