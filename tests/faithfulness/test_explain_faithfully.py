"""Explanations that keep the model's predictions: by a number, by a path, for any head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_model

import face_jax as fj
from face_jax.faithfulness import chosen_lambda
from face_jax.heads import Affine

SETTINGS = {"target": "reddish", "rank": 2, "batch": 8, "key": 0}


def _colourful(count):
    """Pictures of 32 × 40 pixels with four squares of any colour each, so that no two directions describe them."""
    # Whether faithfulness pays on pictures held out depends on the pictures; with these and this key it does.
    generator = np.random.Generator(np.random.PCG64(11))
    found = generator.integers(0, 90, (count, 32, 40, 3), dtype=np.uint8)
    for picture in found:
        for top, left in generator.integers(0, 24, (4, 2)):
            picture[top : top + 10, left : left + 12] = generator.integers(0, 255, 3)
    return found


def _hard_model(head=Affine):
    """The toy classifier with a head that looks at every channel, so that two concepts can't keep its predictions."""
    kernel = np.array(colour_model().head.kernel)
    kernel[3:] = np.random.Generator(np.random.PCG64(3)).normal(size=kernel[3:].shape)
    return colour_model(head=head(jnp.asarray(2 * kernel), jnp.asarray([4.0, 0.0, 0.0], jnp.float32)))


PICTURES = _colourful(40)


def test_a_weight_buys_faithfulness_for_reconstruction():
    found = fj.explain(_hard_model(), PICTURES, **SETTINGS, faithfulness=30.0)
    own, without = found.scores.rows[:2]
    assert "λ = 0" in without.name
    assert without.kl > 5e-3, "there's nothing to be bought"
    assert own.kl < 0.8 * without.kl
    assert own.relative_error > without.relative_error
    assert found.provenance.settings.faithfulness == 30.0
    assert found.fit.path is None
    assert len(found.crop_codes) == len(found.pictures.crop_activations) == len(found.crops)


def test_auto_chooses_along_a_path_that_comes_with_it():
    found = fj.explain(_hard_model(), PICTURES, **SETTINGS, faithfulness="auto")
    first, chosen = found.fit.path.points[0], found.fit.path.points[found.fit.path.chosen]
    assert first.weight == 0
    assert chosen.held_out_loss <= first.held_out_loss
    assert chosen.held_out_error <= found.fit.path.most_error * first.held_out_error
    assert found.scores.rows[0].kl < found.scores.rows[1].kl
    assert set(found.fit.path.table()[0]) >= {"weight", "held_out_error", "held_out_loss"}
    (note,) = [note for note in found.notes if "Faithfulness with λ" in note]
    assert f"KL from {first.held_out_loss:.3g} to {chosen.held_out_loss:.3g}" in note
    assert f"error from {first.held_out_error:.3g} to {chosen.held_out_error:.3g}" in note
    assert found.provenance.settings.faithfulness == found.fit.path.weight
    assert found.provenance.seconds["choice of the faithfulness"] > 0


def test_lambda_is_judged_on_pictures_of_which_not_even_crops_are_learned(monkeypatch):
    seen = []

    def looked_at(rows, rank, term, held_out, *, held_out_term, **others):
        seen.append((np.asarray(rows), np.asarray(held_out), np.asarray(term.weights)))
        return fj.faithfulness_path(rows, rank, term, held_out, held_out_term=held_out_term, **others)

    monkeypatch.setattr(chosen_lambda, "faithfulness_path", looked_at)
    found = fj.explain(_hard_model(), PICTURES, **SETTINGS, faithfulness="auto")
    [(rows, judged, weights)] = seen
    averages = found.pictures.collected.maps[found.pictures.fitted].mean(axis=(1, 2))
    judging = found.pictures.fitted[(averages[:, None] == judged[None]).all(-1).any(1)]
    assert len(judging) == len(judged) == round(len(found.pictures.fitted) / 4)
    learned = ~np.isin(found.crops.image, judging)
    np.testing.assert_array_equal(rows[weights == 0], found.pictures.crop_activations[learned])


def test_heads_that_are_not_affine():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Squared:
        kernel: jax.Array
        bias: jax.Array
        affine = False

        def __call__(self, maps):
            return jnp.mean(maps**2, axis=(1, 2)) @ self.kernel + self.bias[None]

    found = fj.explain(_hard_model(Squared), PICTURES, **SETTINGS, faithfulness=10.0)
    assert found.scores.rows[0].kl < found.scores.rows[1].kl
    assert len(found.crop_codes) == len(found.crops)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"faithfulness": -1.0}, "faithfulness=-1.0 isn't a λ"),
        ({"faithfulness": float("nan")}, "faithfulness=nan"),
        ({"faithfulness": 1.0, "objective": fj.SquaredError()}, "both given"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        fj.explain(colour_model(), PICTURES, **SETTINGS, **wrong)
