"""Two explanations over the same photographs: copies are equal, other channels don't matter, noise shares nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layered_model import layered_model, warm_pictures
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.action.comparing import _averaging, _correlated, _on, _predicted
from face_jax.heads import Affine

IMAGES = np.concatenate([pictures(12, 0), pictures(4, 0, seed=9)])
_RANDOM = np.random.Generator(np.random.PCG64(5))


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), IMAGES, "reddish", rank=3, batch=8, key=0)


def with_channels(explanation, order):
    """The same explanation of a network whose channels are the given ones of this one's."""
    bank = dataclasses.replace(explanation.bank, dictionary=explanation.dictionary[:, order])
    seen = explanation.pictures.collected
    collected = dataclasses.replace(seen, maps=seen.maps[..., order])
    return dataclasses.replace(
        explanation, bank=bank, pictures=dataclasses.replace(explanation.pictures, collected=collected)
    )


def test_a_copy_is_equal(explanation):
    found = fj.compare(explanation, explanation, key=0)
    assert found.equal
    assert [(match.first, match.second) for match in found.shared if match.first != match.second] == []
    assert len(found.shared) == 3
    assert found.only_first == found.only_second == ()
    assert found.predicts_second[0] == pytest.approx(1, abs=1e-6)
    assert all(entry["importance_change"] == 0 for entry in found.table()["matches"])
    assert len(found.photographs) == 16


def test_channels_and_their_order_do_not_matter(explanation):
    other = with_channels(explanation, np.r_[np.arange(14)[::-1]])
    swapped = dataclasses.replace(other.bank, dictionary=other.dictionary[[2, 0, 1]])
    found = fj.compare(explanation, dataclasses.replace(other, bank=swapped), key=0)
    assert found.equal
    assert {(match.first, match.second) for match in found.shared} == {(0, 1), (1, 2), (2, 0)}


def test_activations_that_know_nothing_of_the_photographs_share_nothing(explanation):
    seen = explanation.pictures.collected
    noise = np.abs(_RANDOM.normal(size=seen.maps.shape)).astype(np.float32)
    pictures_ = dataclasses.replace(explanation.pictures, collected=dataclasses.replace(seen, maps=noise))
    found = fj.compare(explanation, dataclasses.replace(explanation, pictures=pictures_), key=0)
    assert found.shared == ()
    assert not found.equal
    assert found.only_first == found.only_second == (0, 1, 2)
    assert found.predicts_second[0] < 0.1


def test_a_network_that_learned_nothing_shares_nothing_and_other_crops_share_all(explanation):
    weights = np.random.Generator(np.random.PCG64(0)).normal(size=(48, 14)).astype(np.float32)

    def features(images):
        patches = images.reshape(len(images), 4, 4, 4, 4, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(images), 4, 4, 48)
        return jax.nn.relu(patches @ jnp.asarray(weights))

    head = Affine(jnp.zeros((14, 3), jnp.float32).at[:, 0].set(1), jnp.zeros(3, jnp.float32))
    random = fj.explain(
        colour_model(features=features, head=head, fingerprint="random"), IMAGES, 0, rank=3, batch=8, key=0
    )
    found = fj.compare(explanation, random, key=0)
    # Its codes know the picture, and may go together with learned ones; so do random directions of its activations.
    assert found.shared == ()
    again = fj.explain(colour_model(), IMAGES[::-1], "reddish", rank=3, batch=8, key=5)
    assert len(fj.compare(explanation, again, key=0).shared) == 3


def test_a_concept_that_one_side_lacks_is_one_sided(explanation):
    bank = explanation.bank
    fewer = dataclasses.replace(
        bank,
        dictionary=bank.dictionary[:2],
        crop_codes=bank.crop_codes[:, :2],
        codes=bank.codes[..., :2],
        concepts=bank.concepts[:2],
    )
    found = fj.compare(explanation, dataclasses.replace(explanation, bank=fewer), least=0.8, key=0)
    assert found.correlation.shape == (3, 2)
    assert len(found.only_first) >= 1
    assert len(found.shared) <= 2
    assert not found.equal


def test_two_layers_are_compared_on_the_coarser_grid():
    images = warm_pictures()
    explanations = [
        fj.explain(layered_model(layer), images, "warm", rank=2, faithfulness=None, key=0)
        for layer in ("middle", "last")
    ]
    found = fj.compare(*explanations, key=0)
    assert found.places == "grid"
    assert found.correlation.shape == (2, 2)
    assert np.abs(found.correlation).max() <= 1 + 1e-9


def test_photographs_that_were_not_explained_may_be_given(explanation):
    found = fj.compare(explanation, explanation, pictures(9, 1), key=0)
    assert len(found.photographs) == 9
    assert found.equal


def test_with_few_photographs_in_common_all_that_either_explains_are_taken(explanation):
    def of(some):
        collected = dataclasses.replace(explanation.pictures.collected[some])
        shown = dataclasses.replace(
            explanation.pictures, photographs=explanation.photographs[some], collected=collected
        )
        return dataclasses.replace(explanation, pictures=shown)

    first, second = of(slice(0, 10)), of(slice(6, 16))
    found = fj.compare(first, second, key=0)
    assert len(found.photographs) == 16
    assert {one.digest() for one in found.photographs} == {one.digest() for one in explanation.photographs}
    assert found.equal
    (note,) = found.notes
    assert "Both explain 4 of the photographs only" in note
    assert found.table()["notes"] == [note]
    assert fj.compare(first, of(slice(0, 9)), key=0).notes == ()
    with pytest.raises(ValueError, match="first and second explain 5 photographs"):
        fj.compare(of(slice(0, 3)), of(slice(2, 5)), key=0)


def test_too_few_photographs_are_refused(explanation):
    with pytest.raises(ValueError, match="images has 3 photographs"):
        fj.compare(explanation, explanation, IMAGES[:3])
    with pytest.raises(ValueError, match="least=1"):
        fj.compare(explanation, explanation, least=1)


def test_grids_are_averaged_by_area():
    np.testing.assert_allclose(_averaging(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(_averaging(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    codes = _RANDOM.random((2, 4, 6, 3))
    np.testing.assert_allclose(_on(codes, (1, 1))[:, 0], codes.mean((1, 2)))


def test_correlations_are_numpys_and_constants_have_none():
    one, other = _RANDOM.random((5, 4, 2)), _RANDOM.random((5, 4, 3))
    expected = np.corrcoef(np.concatenate([one, other], -1).reshape(-1, 5).T)[:2, 2:]  # pyright: ignore[reportIndexIssue]
    np.testing.assert_allclose(_correlated(one, other), expected, atol=1e-12)
    other[..., 1] = 7.3
    assert (_correlated(one, other)[:, 1] == 0).all()


def test_what_is_predicted_is_predicted_in_photographs_left_out():
    given = _RANDOM.random((20, 3, 4))
    wanted = np.concatenate([given @ np.ones((4, 1)), _RANDOM.random((20, 3, 1))], axis=-1)
    everything, each = _predicted(given, wanted, np.arange(20) % 5)
    np.testing.assert_allclose(each[0], 1, atol=1e-9)
    assert each[1] < 0.2
    assert each[1] < everything < 1
