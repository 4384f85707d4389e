"""Why this and not that, of an explanation's photographs."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import CLASSES, Disguised, Squared, colour_model, pictures

import face_jax as fj

IMAGES = pictures(14, 0)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), IMAGES, "reddish", rank=3, batch=8, faithfulness=None, key=0)


def logits(explanation, image):
    model = explanation.model
    return np.asarray(model.head(model.features(jnp.asarray(model.preprocess(image)))), np.float64)[0]


@pytest.mark.parametrize("head", [None, Disguised, lambda head: Squared(head.kernel)], ids=["affine", "same", "square"])
def test_the_parts_add_up_to_the_difference_of_the_models_logits(explanation, head):
    model = colour_model() if head is None else colour_model(head=head(colour_model().head))
    explanation = dataclasses.replace(explanation, model=model)
    found = explanation.why(IMAGES[3], instead_of="bluish")
    said = logits(explanation, IMAGES[3])
    assert found.parts.total == pytest.approx(said[0] - said[2], rel=1e-4)
    assert found.names == ("reddish", "bluish")
    assert found.predicted == 0
    assert found.parts.exact
    assert found.probability[0] == pytest.approx(np.exp(said[0]) / np.exp(said).sum(), rel=1e-5)


def test_two_ways_to_an_affine_heads_parts_agree(explanation):
    exact = explanation.why(IMAGES[0], "greenish").parts
    disguised = dataclasses.replace(explanation, model=colour_model(head=Disguised(colour_model().head)))
    shapley = disguised.why(IMAGES[0], "greenish").parts
    np.testing.assert_allclose(shapley.concepts, exact.concepts, atol=2e-5)
    assert (shapley.left_out, shapley.nothing) == pytest.approx((exact.left_out, exact.nothing), abs=2e-5)


def test_what_decides_has_maps_and_is_in_the_table(explanation):
    found = explanation.why(IMAGES[1], "bluish", most=2)
    size = np.abs(found.parts.concepts)
    assert found.deciding == tuple(np.argsort(-size)[:2])
    assert found.maps.shape == (2, 16, 16)
    table = found.table()
    adds = [entry["adds"] for entry in table["concepts"]]
    assert sum(adds) + table["left_out"]["adds"] + table["nothing"] == pytest.approx(table["difference"], rel=1e-4)
    assert table["deciding"] == [at + 1 for at in found.deciding]


def test_the_other_class_is_the_next_one_by_default_and_the_target_may_be_any(explanation):
    said = logits(explanation, IMAGES[0])
    assert explanation.why(IMAGES[0]).instead_of == 1 + int(said[2] > said[1])
    turned = explanation.why(IMAGES[0], instead_of=0, target="bluish")
    assert turned.parts.difference == pytest.approx(-explanation.why(IMAGES[0], instead_of="bluish").parts.difference)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"instead_of": "reddish"}, "instead_of='reddish' is the class that is asked about"),
        ({"instead_of": "purple"}, "instead_of='purple' isn't a class"),
        ({"instead_of": 3}, "instead_of=3 is out of range"),
        ({"target": "purple"}, "target='purple' isn't a class"),
        ({"permutations": 2}, "permutations=2 is too few"),
        ({"most": -1}, "most=-1"),
    ],
)
def test_what_isnt_valid_is_refused(explanation, given, said):
    with pytest.raises(ValueError, match=said):
        explanation.why(IMAGES[0], **given)


def test_several_photographs_and_labels_without_another_are_refused(explanation):
    with pytest.raises(ValueError, match="holds 2 photographs"):
        explanation.why(IMAGES[:2])
    labels = dataclasses.replace(explanation, model=colour_model(outputs=fj.MultiLabel()))
    with pytest.raises(ValueError, match="instead_of is needed"):
        labels.why(IMAGES[0])
    assert labels.why(IMAGES[0], CLASSES[1]).parts.exact
