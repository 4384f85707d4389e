"""What logits mean: closed forms of decisions and divergences, and which models they fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from toy_model import Squared, colour_model

import face_jax as fj
from face_jax import metrics
from face_jax.faithfulness.losses import loss_for
from face_jax.heads import Affine, binary
from face_jax.outputs import outputs_of

RANDOM = np.random.default_rng(5)
ORIGINAL, REBUILT = 2 * RANDOM.normal(size=(2, 40, 5))
LABELS = fj.MultiLabel()


def entropy_of(p, q):
    """Bernoulli's KL, as SciPy has it."""
    return scipy.special.rel_entr(p, q) + scipy.special.rel_entr(1 - p, 1 - q)


def test_labels_are_predicted_above_their_threshold():
    logits = np.array([[0.0, 1e-6, -3.0, 2.0]])
    assert LABELS.predicted(logits).tolist() == [[False, True, False, True]]
    probabilities = scipy.special.expit(ORIGINAL)
    np.testing.assert_array_equal(fj.MultiLabel(0.2).predicted(ORIGINAL), probabilities > 0.2)
    each = (0.1, 0.3, 0.5, 0.7, 0.9)
    np.testing.assert_array_equal(fj.MultiLabel(list(each)).predicted(ORIGINAL), probabilities > np.array([each]))


@pytest.mark.parametrize("outputs", [fj.MultiClass(), fj.Binary(), LABELS, fj.MultiLabel((0.1, 0.3, 0.5, 0.7, 0.9))])
def test_numpy_and_programs_decide_alike(outputs):
    for target in (0, 3):
        has, probability = outputs.has(ORIGINAL, target), outputs.probability(ORIGINAL, target)
        np.testing.assert_array_equal(has, outputs.predicted(ORIGINAL)[:, target])
        compiled = jax.jit(lambda z, target: (outputs.has(z, target), outputs.probability(z, target)))
        given = compiled(jnp.asarray(ORIGINAL), jnp.asarray(target))
        np.testing.assert_array_equal(given[0], has)
        np.testing.assert_allclose(given[1], probability, rtol=1e-12)


def test_exclusive_classes_are_those_of_the_softmax():
    np.testing.assert_array_equal(fj.MultiClass().predicted(ORIGINAL).argmax(1), ORIGINAL.argmax(1))
    assert (fj.MultiClass().predicted(ORIGINAL).sum(1) == 1).all()
    np.testing.assert_allclose(
        fj.MultiClass().probability(ORIGINAL, 2), scipy.special.softmax(ORIGINAL, axis=1)[:, 2], rtol=1e-12
    )


def test_labels_diverge_by_the_sum_of_bernoullis():
    found = metrics.certificates(ORIGINAL, REBUILT, LABELS)
    p, q = scipy.special.expit(ORIGINAL), scipy.special.expit(REBUILT)
    np.testing.assert_allclose(found.kl, entropy_of(p, q).sum(1), rtol=1e-9)
    np.testing.assert_allclose(found.l1, 2 * np.abs(p - q).max(1), rtol=1e-12)
    np.testing.assert_allclose(found.agreement, ((p > 0.5) == (q > 0.5)).mean(1), rtol=1e-12)
    # What the term makes small is what is reported.
    loss = loss_for(LABELS)
    np.testing.assert_allclose(loss.values(loss.target(jnp.asarray(ORIGINAL)), jnp.asarray(REBUILT)), found.kl)


def test_no_label_moves_further_than_the_bounds_allow():
    for scale in (0.1, 1.0, 10.0):
        found = metrics.certificates(scale * ORIGINAL, scale * REBUILT, LABELS)
        assert (found.l1 <= found.pinsker + 1e-12).all()
        assert (found.l1 <= found.bretagnolle_huber + 1e-12).all()


def test_extreme_labels_stay_finite():
    found = metrics.certificates(np.array([[1000.0, -1000.0]]), np.array([[-1000.0, -1000.0]]), LABELS)
    np.testing.assert_allclose(found.kl, [1000.0])
    np.testing.assert_allclose(found.l1, [2.0])
    assert found.agreement.tolist() == [0.5]


def test_one_logit_is_the_bernoulli_however_it_is_written():
    z, other = ORIGINAL[:, :1], REBUILT[:, :1]
    pairs = [np.concatenate([np.zeros_like(each), each], axis=1) for each in (z, other)]
    two, one = metrics.certificates(pairs[0], pairs[1], fj.Binary()), metrics.certificates(z, other, LABELS)
    for name in ("kl", "l1", "pinsker", "bretagnolle_huber"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(two.agreement, one.agreement)
    np.testing.assert_array_equal(fj.Binary().has(pairs[0], 1), z[:, 0] > 0)
    np.testing.assert_allclose(fj.Binary().probability(pairs[0], 1), scipy.special.expit(z[:, 0]), rtol=1e-12)


def test_what_becomes_of_predictions():
    original, rebuilt = np.array([[1.0, -1.0, 2.0], [1.0, 1.0, -1.0]]), np.array([[1.0, 1.0, -2.0], [1.0, 2.0, -1.0]])
    assert LABELS.becomes(original, rebuilt) == [1, 2]
    assert fj.MultiClass().becomes(original, rebuilt) == [0, 1]


def test_curves_of_a_label_by_hand():
    # Label 1 has the logit 4 c₀ − 1; label 0 is always far more probable, which means nothing for it.
    head = Affine(jnp.array([[0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]), jnp.array([9.0, -1.0]))
    codes, dictionary, order = jnp.ones((2, 1, 1, 3)), jnp.eye(3), np.array([1, 0, 2])
    found = metrics.fidelity(head, codes, dictionary, 1, order, LABELS)
    np.testing.assert_array_equal(found.insertion.accuracy, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.deletion.accuracy, [1, 1, 0, 0])
    np.testing.assert_allclose(found.insertion.probability, scipy.special.expit([-1.0, -1.0, 3.0, 3.0]), rtol=1e-12)
    strict = metrics.fidelity(head, codes, dictionary, 1, order, fj.MultiLabel(0.96))
    np.testing.assert_array_equal(strict.insertion.accuracy, [0, 0, 0, 0])
    assert metrics.fidelity(head, codes, dictionary, 1, order).insertion.accuracy.tolist() == [0, 0, 0, 0]


def test_certificates_of_a_term_know_labels():
    rows = jnp.asarray(np.abs(RANDOM.normal(size=(12, 6))))
    head = Affine(jnp.asarray(RANDOM.normal(size=(6, 5))), jnp.zeros(5))
    term = fj.Faithfulness(head, fj.SigmoidKL())
    solution = fj.factorize(rows, 2)
    found = fj.certify(term, rows, solution)
    logits = [
        np.asarray(term.logits(each)) for each in (rows, fj.encode(rows, solution.dictionary) @ solution.dictionary)
    ]
    p, q = scipy.special.expit(logits)
    np.testing.assert_allclose(found.fitted.kl, entropy_of(p, q).sum(1), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.fitted.agreement, ((p > 0.5) == (q > 0.5)).mean(1))
    other = fj.certify(term, rows, solution, outputs=fj.MultiLabel(0.8))
    np.testing.assert_allclose(other.fitted.agreement, ((p > 0.8) == (q > 0.8)).mean(1))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1, 2, float("nan"), True, "half", [], [0.5, 1.5], None])
def test_other_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        fj.MultiLabel(threshold)


def test_thresholds_are_one_for_each_label():
    with pytest.raises(ValueError, match=r"threshold has 2 probabilities for 3 labels"):
        colour_model(outputs=fj.MultiLabel((0.5, 0.5)))
    with pytest.raises(ValueError, match=r"threshold has 2 probabilities for 5 labels"):
        metrics.certificates(ORIGINAL, REBUILT, fj.MultiLabel((0.5, 0.5)))


@pytest.mark.parametrize("outputs", ["multi-label", True, fj.MultiLabel, None])
def test_other_outputs_are_refused(outputs):
    with pytest.raises(ValueError, match="outputs"):
        colour_model(outputs=outputs)


@pytest.mark.parametrize("wrong", ["yes", 1, 0.5, fj.MultiLabel, fj.MultiClass()])
def test_multi_label_is_yes_or_no(wrong):
    with pytest.raises(ValueError, match=r"multi_label=.* is neither True nor False"):
        outputs_of(wrong, 3)


def test_what_is_told_from_the_number_of_logits():
    assert [outputs_of(None, count) for count in (1, 2)] == [fj.Binary(), fj.MultiClass()]
    assert [outputs_of(False, count) for count in (1, 2)] == [fj.Binary(), fj.MultiClass()]
    assert outputs_of(True, 1) == LABELS
    assert outputs_of(fj.MultiLabel(0.2), 4) == fj.MultiLabel(0.2)


MAPS = jnp.asarray(np.abs(RANDOM.normal(size=(3, 2, 2, 14))), jnp.float32)
KERNEL = jnp.asarray(RANDOM.normal(size=(14, 1)), jnp.float32)


@pytest.mark.parametrize("head", [Affine(KERNEL, jnp.ones(1, jnp.float32)), Squared(KERNEL)])
def test_one_name_makes_a_binary_model(head):
    model = colour_model(head=head, classes=["cat"])
    assert model.classes == ("not cat", "cat")
    assert model.outputs == fj.Binary()
    assert model.head.affine == head.affine
    z = np.asarray(head(MAPS))
    np.testing.assert_allclose(model.head(MAPS), np.concatenate([0 * z, z], axis=1), rtol=1e-5)
    np.testing.assert_allclose(model.head_for(0)(MAPS), np.concatenate([-z, 0 * z], axis=1), rtol=1e-5, atol=1e-5)
    assert model.head_for(1) is model.head


def test_a_head_of_several_logits_is_not_binary():
    with pytest.raises(ValueError, match=r"kernel has shape \(14, 2\), and a binary"):
        colour_model(head=Affine(jnp.ones((14, 2)), jnp.ones(2)), classes=["cat"])
    with pytest.raises(ValueError, match=r"logits of shape \(3, 2\), and a binary"):
        binary(Squared(jnp.ones((14, 2), jnp.float32)))(MAPS)


def test_a_single_label_stays_one():
    model = colour_model(head=Affine(KERNEL, jnp.ones(1, jnp.float32)), classes=["cat"], outputs=LABELS)
    assert model.classes == ("cat",)
    assert model.head(MAPS).shape == (3, 1)
