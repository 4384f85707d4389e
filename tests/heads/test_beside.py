"""Tokens kept beside maps: they go with their pictures through every stage."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax import metrics
from face_jax.activations import Collected
from face_jax.heads import Affine, Beside
from face_jax.metrics.curves import fidelity
from face_jax.pipeline.selection import units

RANDOM = np.random.Generator(np.random.PCG64(5))
KERNEL = RANDOM.normal(size=(6, 3)).astype(np.float32)
CODES = RANDOM.random((5, 2, 3, 2)).astype(np.float32)
DICTIONARY = RANDOM.random((2, 6)).astype(np.float32)
KEPT = (3 * RANDOM.normal(size=(5, 1, 6))).astype(np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attending:
    """Logits of what a class token gathers from the maps: patches count by their likeness to it."""

    kernel: jax.Array
    affine = False

    def __call__(self, maps, tokens):
        patches = maps.reshape(maps.shape[0], -1, maps.shape[-1])
        shares = jax.nn.softmax(jnp.einsum("nc,npc->np", tokens[:, 0], patches), axis=1)
        return (tokens[:, 0] + jnp.einsum("np,npc->nc", shares, patches)) @ self.kernel.astype(maps.dtype)


HEAD = Attending(jnp.asarray(KERNEL))


def alone(number):
    """The head of one picture, which knows no other."""
    return Beside(HEAD, jnp.asarray(KEPT[number : number + 1]))


def test_logits_are_those_of_each_picture_with_its_own_tokens():
    maps = jnp.asarray(CODES @ DICTIONARY)
    head = Beside(HEAD, jnp.asarray(KEPT))
    expected = np.concatenate([alone(n)(maps[n : n + 1]) for n in range(5)])
    np.testing.assert_allclose(jax.jit(lambda h, a: h(a))(head, maps), expected, rtol=1e-5)
    np.testing.assert_allclose(head[np.array([3, 1])](maps[np.array([3, 1])]), expected[[3, 1]], rtol=1e-5)
    # Many variants of one picture, and masks under vmap.
    np.testing.assert_allclose(alone(2)(maps), HEAD(maps, jnp.tile(KEPT[2], (5, 1, 1))), rtol=1e-5)
    scaled = jax.vmap(lambda s: head(s * maps))(jnp.asarray([1.0, 0.5], jnp.float32))
    np.testing.assert_allclose(scaled[0], expected, rtol=1e-5)
    assert not head.affine
    with pytest.raises(ValueError, match=r"kept has the tokens of 5 pictures.*head\[index\]"):
        head(maps[:3])


def test_measures_of_several_pictures_are_those_of_each():
    codes, bank, head = jnp.asarray(CODES), jnp.asarray(DICTIONARY), Beside(HEAD, jnp.asarray(KEPT))
    together = fj.total_sobol(head, codes, bank, 1, designs=4, scrambles=2)
    first_order = fj.gradient_times_code(head, codes, bank, 1).contribution
    slopes = fj.tcav(head, codes, bank, 1, directions=10).derivative
    curves = fidelity(head, codes, bank, 1, np.arange(2))
    single = [fidelity(alone(n), codes[n : n + 1], bank, 1, np.arange(2)) for n in range(5)]
    for n in range(5):
        one = codes[n : n + 1]
        np.testing.assert_allclose(
            together.total[n], fj.total_sobol(alone(n), one, bank, 1, designs=4, scrambles=2).total[0], rtol=1e-3
        )
        np.testing.assert_allclose(
            first_order[n], fj.gradient_times_code(alone(n), one, bank, 1).contribution[0], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            slopes[n], fj.tcav(alone(n), one, bank, 1, directions=10).derivative[0], rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(
        curves.insertion.probability, np.mean([c.insertion.probability for c in single], axis=0), rtol=1e-5
    )
    with pytest.raises(ValueError, match="keeps the tokens of 5 pictures and codes has 3"):
        fj.gradient_times_code(head, codes[:3], bank, 1)


def test_scores_take_the_tokens_of_the_pictures_chosen():
    maps = CODES @ DICTIONARY
    collected = Collected(maps, np.asarray(HEAD(jnp.asarray(maps), jnp.asarray(KEPT))), KEPT)
    some = units(collected, np.array([4, 0, 2]), affine=False)
    np.testing.assert_array_equal(some.kept, KEPT[[4, 0, 2]])
    # The maps are made of these concepts: rebuilt exactly, they're predicted as before.
    assert metrics.score("mine", HEAD, some, DICTIONARY, 1, np.ones(2)).kl < 1e-5
    swapped = dataclasses.replace(some, kept=some.kept[::-1])
    assert metrics.score("swapped", HEAD, swapped, DICTIONARY, 1, np.ones(2)).kl > 1e-3


@pytest.mark.parametrize("keep", [True, False])
def test_the_faithfulness_term_is_the_sum_over_pictures_with_their_own_tokens(keep):
    maps = CODES @ DICTIONARY + 0.1 * RANDOM.random((5, 2, 3, 6)).astype(np.float32)
    rows = jnp.asarray(maps.reshape(-1, 6))
    term = fj.Faithfulness(Beside(HEAD, jnp.asarray(KEPT)), grid=(2, 3), keep_predictions=keep)
    codes, bank = jnp.asarray(CODES.reshape(-1, 2)), jnp.asarray(DICTIONARY)
    known = term.recalled(term.prepare(rows), rows)
    values = term.values(known, codes, bank)
    slope = term.local_codes(known, codes, bank).slope
    for n in range(5):
        own = slice(6 * n, 6 * n + 6)
        one = fj.Faithfulness(alone(n), grid=(2, 3))
        prepared = one.prepare(rows[own])
        np.testing.assert_allclose(values[n], one.value(prepared, codes[own], bank), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(slope[own], one.local_codes(prepared, codes[own], bank).slope, rtol=1e-3, atol=1e-5)


def test_codes_with_the_term_are_each_pictures_own_however_rows_are_grouped():
    rows = jnp.asarray((CODES @ DICTIONARY + 0.1).reshape(-1, 6).astype(np.float64))
    bank = jnp.asarray(DICTIONARY, jnp.float64)
    term = fj.Faithfulness(Beside(HEAD, jnp.asarray(KEPT, jnp.float64)), grid=(2, 3))
    together = fj.encode(rows, bank, objective=fj.SquaredError() + 0.1 * term)
    for n in (0, 4):
        own = slice(6 * n, 6 * n + 6)
        one = fj.Faithfulness(Beside(HEAD, jnp.asarray(KEPT[n : n + 1], jnp.float64)), grid=(2, 3))
        apart = fj.encode(rows[own], bank, objective=fj.SquaredError() + 0.1 * one)
        np.testing.assert_allclose(together[own], apart, rtol=1e-4, atol=1e-5)


def tokens_model():
    """Pictures of 16 × 16 in 4 × 4 patches' colours, with a class token made of the picture's own average."""
    mix = np.abs(RANDOM.normal(size=(3, 6))).astype(np.float32)

    def with_tokens(images):
        patches = jnp.asarray(images).reshape(-1, 4, 4, 4, 4, 3).mean((2, 4)) @ mix
        return patches, 0.3 * jnp.max(patches, axis=(1, 2))[:, None]

    return fj.SplitModel(
        features=lambda images: with_tokens(images)[0],
        head=HEAD,
        layer="patches",
        preprocess=fj.Preprocess(size=16, resize=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        classes=("a", "b", "c"),
        name="tokens",
        fingerprint="tokens",
        with_tokens=with_tokens,
    )


def test_an_explanation_keeps_each_pictures_tokens_from_the_photographs_to_the_saved_files(tmp_path):
    model = tokens_model()
    images = (255 * np.random.Generator(np.random.PCG64(1)).random((8, 16, 16, 3))).astype(np.uint8)
    given = {
        "rank": 2,
        "faithfulness": None,
        "crops": fj.RandomCrops(per_image=4),
        "batch": 3,
        "cache": fj.ArrayCache(tmp_path / "cache"),
    }
    found = fj.explain(model, list(images), **given)
    kept = found.pictures.collected.kept
    assert kept is not None
    maps, tokens = model.with_tokens(images[[0]] / np.float32(255))
    first = [n for n, photograph in enumerate(found.photographs) if (photograph.pixels() == images[0]).all()]
    for n in first:
        np.testing.assert_allclose(kept[n], tokens[0], rtol=1e-4)
        np.testing.assert_allclose(found.pictures.collected.maps[n], maps[0], rtol=1e-4)
    # What is predicted from the tokens alone, by hand.
    held_out = found.pictures.collected[found.pictures.held_out]
    nothing = HEAD(jnp.zeros(held_out.maps.shape, jnp.float32), jnp.asarray(held_out.kept))
    share = float((np.asarray(nothing).argmax(1) == found.target.index).mean())
    assert found.scores.accuracy_of_nothing == pytest.approx(share)
    again = fj.explain(model, list(images), **given)
    np.testing.assert_array_equal(again.pictures.collected.kept, kept)
    np.testing.assert_allclose(again.importance.sobol.total, found.importance.sobol.total, rtol=1e-5)
    fj.save(found, tmp_path / "saved")
    loaded = fj.load(tmp_path / "saved", model, images=list(images))
    np.testing.assert_array_equal(loaded.pictures.collected.kept, kept)
    fj.write_report(loaded, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"class token alone, kept while all codes are zero, this class is predicted for {100 * share:.0f}" in page
    # One pass for the maps, and one for codes and class token together.
    passes = []

    def counted(given):
        passes.append(len(given))
        return model.with_tokens(given)

    counting = dataclasses.replace(model, features=lambda given: counted(given)[0], with_tokens=counted)
    fj.picture(dataclasses.replace(loaded, model=counting), images[0], tmp_path / "one.png")
    assert passes == [1, 1]


def test_a_head_that_is_affine_takes_no_tokens():
    affine = Affine(jnp.asarray(KERNEL), jnp.zeros(3, jnp.float32))
    with pytest.raises(ValueError, match=r"with_tokens is given and head\.affine is True"):
        dataclasses.replace(tokens_model(), head=affine)
