"""Concepts taken out of a model: what is left, what stays, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from layered_model import layered_model
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.action.edits import EditedFeatures

MODEL = colour_model()
PICTURES = pictures(14, 0)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(MODEL, PICTURES, "reddish", rank=3, batch=8, faithfulness=None, key=0)


def maps_of(model):
    return np.asarray(model.features(jnp.asarray(MODEL.preprocess(PICTURES))), np.float64)


def nnls(rows, bank):
    return np.asarray([scipy.optimize.nnls(bank.T, row)[0] for row in rows])


def test_what_is_taken_out_are_the_codes_and_everything_else_stays(explanation):
    bank = explanation.dictionary.astype(np.float64)
    edited = fj.edit(MODEL, explanation, remove=[1], scale={2: 0.5})
    before = maps_of(MODEL).reshape(-1, 14)
    codes = nnls(before, bank)
    expected = before - codes[:, 1:2] * bank[1] - 0.5 * codes[:, 2:3] * bank[2]
    np.testing.assert_allclose(maps_of(edited).reshape(-1, 14), expected, atol=3e-5)
    assert edited.head is MODEL.head


def test_a_linear_edit_is_one_matrix_that_leaves_the_other_codes(explanation):
    bank = explanation.dictionary.astype(np.float64)
    before, after = maps_of(MODEL), maps_of(fj.edit(MODEL, explanation, remove=[0], codes="linear"))
    codes = [np.linalg.lstsq(bank.T, maps.reshape(-1, 14).T, rcond=None)[0].T for maps in (before, after)]
    np.testing.assert_allclose(codes[1][:, 0], 0, atol=1e-5)
    np.testing.assert_allclose(codes[1][:, 1:], codes[0][:, 1:], atol=1e-5)
    left = [maps.reshape(-1, 14) - code @ bank for maps, code in zip((before, after), codes, strict=True)]
    np.testing.assert_allclose(left[1], left[0], atol=1e-5)


def test_factors_scale_and_all_concepts_out_leave_the_rest(explanation):
    bank = explanation.dictionary.astype(np.float64)
    before = maps_of(MODEL).reshape(-1, 14)
    twice = maps_of(fj.edit(MODEL, explanation, scale={explanation.concepts[0]: 2})).reshape(-1, 14)
    np.testing.assert_allclose(twice - before, nnls(before, bank)[:, :1] * bank[0], atol=3e-5)
    nothing = maps_of(fj.edit(MODEL, explanation, remove=explanation.concepts)).reshape(-1, 14)
    np.testing.assert_allclose(nothing, before - nnls(before, bank) @ bank, atol=3e-5)


@pytest.mark.parametrize("codes", ["exact", "linear"])
def test_it_is_the_same_inside_programs_and_has_its_derivative(explanation, codes):
    features = fj.edit(MODEL, explanation, remove=0, codes=codes).features
    assert isinstance(features, EditedFeatures)
    change = features.change
    maps = jnp.asarray(maps_of(MODEL)[:2]) + 0.01

    def total(maps):
        return jnp.sum(change(maps) ** 2)

    np.testing.assert_allclose(jax.jit(change)(maps), change(maps), atol=1e-8)
    step = 1e-6 * jnp.asarray(np.random.default_rng(0).normal(size=maps.shape))
    slope = jnp.vdot(jax.jit(jax.grad(total))(maps), step)
    assert float(slope) == pytest.approx(float(total(maps + step / 2) - total(maps - step / 2)), rel=1e-4)


def test_an_edited_model_explains_is_saved_and_is_loaded_by_itself(explanation, tmp_path):
    edited = fj.edit(MODEL, explanation, remove=[2])
    again = fj.explain(edited, PICTURES, "reddish", rank=2, batch=8, faithfulness=None, key=0)
    folder = fj.save(again, tmp_path / "edited")
    assert fj.load(folder, fj.edit(MODEL, explanation, remove=[2])).concepts == again.concepts
    for other in (MODEL, fj.edit(MODEL, explanation, remove=[1]), fj.edit(MODEL, explanation, scale={2: 0.5})):
        with pytest.raises(fj.WrongModelError):
            fj.load(folder, other)


def test_names_say_what_was_done(explanation):
    assert fj.edit(MODEL, explanation, remove=[0, 2]).name == "colours without concepts 1, 3"
    assert fj.edit(MODEL, explanation, scale={1: 0.5}, codes="linear").name == "colours with concept 2 × 0.5 (linear)"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "change no concept"),
        ({"scale": {0: 1.0}}, "change no concept"),
        ({"remove": [3]}, r"remove=\[3\] of an explanation with 3; give numbers from 0 to 2"),
        ({"remove": [0, 0]}, "different concepts"),
        ({"remove": "1"}, "remove='1' isn't a list of concepts"),
        ({"remove": None}, "remove=None"),
        ({"remove": [0], "scale": {0: 0.5}}, "named already"),
        ({"scale": {0: -1}}, r"scale\[0\]=-1 isn't a factor"),
        ({"scale": {0: float("nan")}}, r"scale\[0\]=nan"),
        ({"scale": [0.5]}, "isn't a mapping"),
        ({"scale": {7: 0.5}}, r"scale=\[7\]"),
        ({"remove": [0], "codes": "nnls"}, "codes='nnls' is unknown"),
    ],
)
def test_what_isnt_valid_is_refused(explanation, options, said):
    with pytest.raises(ValueError, match=said):
        fj.edit(MODEL, explanation, **options)


def test_another_model_is_refused(explanation):
    with pytest.raises(fj.WrongModelError, match="give the model that was explained"):
        fj.edit(layered_model("last"), explanation, remove=[0])
    with pytest.raises(fj.WrongModelError, match="name all concepts in one call"):
        fj.edit(fj.edit(MODEL, explanation, remove=[0]), explanation, remove=[1])
