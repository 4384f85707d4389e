"""Papers' settings: what the papers and their codes say, and that scores can be had by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax import methods
from face_jax.activations import Collected

MODEL = colour_model()
MAPS = np.asarray(MODEL.features(jnp.asarray(MODEL.preprocess(pictures(10, 0)))))
SEEN = Collected(MAPS, np.asarray(MODEL.head(jnp.asarray(MAPS))))


def test_faces_crops_are_sixteen_of_an_input_of_224_pixels():
    usual = fj.Preprocess()
    shapes, key = [(224, 224)], jax.random.key(0)
    native = methods.PUBLISHED["face"].crops_of(usual)(shapes, key=key)
    assert len(native) == 16
    assert set(np.diff(native.window[:, [0, 2]]).ravel()) == {64}
    # The same places, and one more row and column that reach the edge.
    resized = methods.PUBLISHED["craft"].crops_of(usual)(shapes, key=key)
    assert resized.window is None
    assert {tuple(box) for box in native.window.tolist()} <= {tuple(box) for box in resized.box.tolist()}
    assert methods.PUBLISHED["ice"].crops_of(usual) is None
    with pytest.raises(ValueError, match="preprocess"):
        methods.PUBLISHED["face"].crops_of(224)


def test_faces_solver_and_unit_are_the_published_codes():
    method = methods.PUBLISHED["face"].method
    assert isinstance(method, methods.FACE)
    assert isinstance(method.solver, fj.PaperAdam)
    assert (method.faithfulness, method.unit, method.solver) == (1e-5, fj.InMeans(), fj.PaperAdam())
    assert (method.solver.learning_rate, method.solver.atol, method.start) == (5e-4, 1e-3, fj.NNDSVD())
    assert fj.metrics.deletion_ceiling(25, methods.PUBLISHED["face"].deletion) == pytest.approx(25 / 27)


@pytest.mark.parametrize("name", ["craft", "ice"])
def test_banks_are_scored_by_the_papers_rules(name):
    paper = methods.PUBLISHED[name]
    bank = paper.method.fit(SEEN.maps[:7], 3, jax.random.key(0))
    found = fj.score_bank(MODEL, SEEN[7:], bank, target=0, fitted=SEEN[:7], **paper.scoring())
    codes = bank.encode(SEEN.maps[7:])
    rebuilt = fj.metrics.relative_squared_error(SEEN.maps[7:], codes @ bank.dictionary)
    assert found.score.relative_error == pytest.approx(rebuilt, rel=1e-4)
    head, codes = MODEL.head, bank.encode(SEEN.maps[:7])
    weights = paper.importance(head, SEEN.maps[:7], codes, bank.dictionary, 0, jax.random.key(0))
    np.testing.assert_allclose(found.importance, weights, rtol=1e-3, atol=1e-5)
