"""What paths, certificates and terms refuse before any work, and what they measure of which images."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from face_jax.faithfulness import (
    Faithfulness,
    ForwardKL,
    InMeans,
    ReverseKL,
    SigmoidKL,
    certify,
    faithfulness_path,
    lambda_path,
)
from face_jax.faithfulness.checks import check, check_settings
from face_jax.faithfulness.term import check_weighed
from face_jax.heads import Affine, NetworkHead, layers
from face_jax.nmf import HALS, SquaredError, encode, factorize

ROWS, CHANNELS, CLASSES, RANK = 48, 12, 5, 3


def _arrays(seed=0):
    generator = np.random.default_rng(seed)
    activations = generator.gamma(0.5, 1, (ROWS, RANK)) @ generator.random((RANK, CHANNELS))
    activations += 0.2 * generator.random(activations.shape)
    head = Affine(jnp.asarray(generator.normal(size=(CHANNELS, CLASSES))), jnp.asarray(generator.normal(size=CLASSES)))
    return jnp.asarray(activations), head


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("loss", ReverseKL, r"loss=ReverseKL is a class; give an object: ForwardKL\(\)"),
        ("loss", "reverse", r"loss='reverse' isn't a loss; .*SigmoidKL\(\)"),
        ("unit", InMeans, r"unit=InMeans is a class; .*InMeans\(\)"),
        ("unit", ForwardKL(), r"unit=ForwardKL\(\) isn't a unit"),
        ("grid", 5, r"grid=5 isn't a height and width.*grid=\(7, 7\)"),
        ("grid", (7,), r"grid=\(7,\) isn't a height and width"),
        ("grid", (0, 7), r"grid=\(0, 7\) isn't a height and width"),
        ("grid", (2.0, 7), r"grid=\(2\.0, 7\) isn't a height and width"),
    ],
)
def test_settings_that_are_none_are_refused(name, value, said):
    term = Faithfulness(_arrays()[1], grid=(2, 3))
    check_settings(term)
    # The annotations' check would be faster than ours; users don't have it.
    object.__setattr__(term, name, value)
    with pytest.raises(ValueError, match=said):
        check_settings(term)


def test_a_head_of_another_type_is_told_the_type():
    activations, head = _arrays()
    kernel = head.kernel.astype(jnp.float32).T[:, :, None]

    def convolution(rows):
        return jax.lax.conv(rows[:, :, None], kernel, (1,), "VALID")[:, :, 0]

    check(Faithfulness(convolution), activations.astype(jnp.float32))
    with pytest.raises(
        ValueError, match=r"takes activations of dtype float32 and these are float64.*astype\('float32'"
    ):
        check(Faithfulness(convolution), activations)


def test_a_network_of_other_channels_is_told_them():
    activations, head = _arrays()
    classifier = layers.Chain([layers.Flatten(), layers.Dense(head.kernel, None)])
    network = NetworkHead(layers.Chain([]), layers.Pooling((1, 1)), classifier)
    check(Faithfulness(network), activations)
    with pytest.raises(ValueError, match="head takes 12 channels and rows has 7"):
        check(Faithfulness(network), activations[:, :7], "rows")


def test_what_is_no_term_and_no_matrix_is_refused():
    activations, head = _arrays()
    for term in (None, 2.0 * Faithfulness(head)):
        with pytest.raises(ValueError, match=r"term is a \w+; give a Faithfulness"):
            check_weighed(term, activations, "activations")
    with pytest.raises(ValueError, match=r"rows has shape \(1, 48, 12\); give a matrix"):
        inspect.unwrap(check)(Faithfulness(head), activations[None], "rows")


UNFIT = {
    "other channels": (
        lambda head: Affine(head.kernel[1:], head.bias),
        None,
        "takes 11 channels and activations has 12",
    ),
    "other places": (lambda head: dataclasses.replace(head, places=7), None, "activations has 48 rows, .* of the 7"),
    "NaN": (
        lambda head: dataclasses.replace(head, bias=head.bias.at[0].set(jnp.nan)),
        None,
        "NaN or infinite for 48 of 48 images of activations",
    ),
    "no weight": (lambda head: Faithfulness(head, weights=jnp.zeros(ROWS)), None, "all images of activations are 0"),
    "other channels held out": (lambda head: head, lambda rows: rows[:, :7], "takes 12 channels and held_out has 7"),
    "other places held out": (
        lambda head: dataclasses.replace(head, places=6),
        lambda rows: rows[:7],
        "held_out has 7 rows, .* of the 6",
    ),
    "NaN held out": (
        lambda head: head,
        lambda rows: rows.at[3, 0].set(jnp.nan),
        "NaN or infinite for 1 of 48 images of held_out, the first is image 3",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_before_anything_is_factorized(name, monkeypatch):
    activations, head = _arrays()
    build, change, said = UNFIT[name]
    built = build(head)
    term = built if isinstance(built, Faithfulness) else Faithfulness(built)
    held_out = activations if change is None else change(activations)
    monkeypatch.setattr(lambda_path, "factorize", lambda *_, **__: pytest.fail("it was factorized"))
    # The annotations' check would be faster than ours here too.
    with pytest.raises(ValueError, match=said):
        inspect.unwrap(faithfulness_path)(activations, RANK, term, held_out)
    if name != "NaN held out":  # encoding says that itself
        with pytest.raises(ValueError, match=said):
            inspect.unwrap(certify)(term, activations, _solution(), held_out=held_out)


def _solution():
    return factorize(_arrays()[0], RANK)


def test_a_solver_without_terms_is_refused_before_anything_is_factorized(monkeypatch):
    activations, head = _arrays()
    monkeypatch.setattr(lambda_path, "factorize", lambda *_, **__: pytest.fail("it was factorized"))
    with pytest.raises(ValueError, match=r"solver=HALS\(\)"):
        faithfulness_path(activations, RANK, Faithfulness(head), activations, solver=HALS())


def test_images_without_weight_are_not_certified():
    activations, head = _arrays()
    weights = jnp.asarray(np.repeat([0.0, 1.0, 3.0], ROWS // 3))
    solution, counted = _solution(), np.asarray(weights) > 0
    found = certify(Faithfulness(head, weights=weights), activations, solution, held_out=activations)
    plain = certify(Faithfulness(head), activations, solution)
    np.testing.assert_allclose(found.fitted.kl, plain.fitted.kl[counted], atol=1e-12)
    np.testing.assert_allclose(found.held_out.kl, plain.fitted.kl, atol=1e-12)
    rebuilt = np.asarray(encode(activations, solution.dictionary) @ solution.dictionary)
    missed = np.asarray(activations) - rebuilt
    expected = (missed[counted] ** 2).sum() / (np.asarray(activations)[counted] ** 2).sum()
    assert found.fitted_error == pytest.approx(expected, rel=1e-9)
    assert abs(found.fitted_error - plain.fitted_error) > 1e-4


def test_the_agreement_of_several_labels_is_of_each():
    activations, head = _arrays()
    path = faithfulness_path(activations, RANK, Faithfulness(head, loss=SigmoidKL()), activations, weights=())
    (point,) = path.points
    rebuilt = encode(activations, path.solution.dictionary) @ path.solution.dictionary
    original, found = (np.asarray(head(rows)) for rows in (activations, rebuilt))
    assert point.agreement == pytest.approx(((original > 0) == (found > 0)).mean(), abs=1e-12)
    assert abs(point.agreement - (original.argmax(1) == found.argmax(1)).mean()) > 1e-3


@pytest.mark.parametrize(
    ("said", "given"),
    [
        (lambda rows: (rows,), "a tuple"),
        (lambda rows: None, "a NoneType"),
        (lambda rows: rows > 0, "an array of bool"),
        (lambda rows: (rows > 0).astype(jnp.int32), "an array of int32"),
        (lambda rows: rows.astype(jnp.complex128), "an array of complex128"),
    ],
)
def test_heads_that_give_no_real_logits_are_refused(said, given):
    with pytest.raises(ValueError, match=f"head returns {given}; it has to give logits alone"):
        factorize(np.ones((5, 4)), 2, objective=SquaredError() + 1.0 * Faithfulness(said))


def test_weights_of_several_sets_of_rows_are_not_mixed():
    rows, term = (
        jnp.asarray(np.random.default_rng(0).random((12, 4))),
        Faithfulness(Affine(jnp.ones((4, 3)), jnp.zeros(3))),
    )
    solution = factorize(rows, 2)
    for objective in (
        SquaredError(row_weights=jnp.ones(12)),
        SquaredError(weights=jnp.ones((12, 4))),
        SquaredError() + 1.0 * Faithfulness(term.head, weights=np.ones(12)),
    ):
        with pytest.raises(ValueError, match="objective has weights of rows, entries or images"):
            certify(term, rows, solution, held_out=rows, objective=objective)


@pytest.mark.parametrize("kind", [list, tuple, lambda w: np.asarray(w, ">f4"), torch.tensor, lambda w: jnp.asarray(w)])
def test_weights_of_any_kind_of_array_are_the_same(kind):
    rows, head = jnp.asarray(np.random.default_rng(0).random((3, 4))), Affine(jnp.ones((4, 3)), jnp.zeros(3))
    solution = factorize(rows, 2)
    found = certify(Faithfulness(head, weights=kind([1.0, 0.0, 2.0])), rows, solution)
    assert len(found.fitted.kl) == 2
