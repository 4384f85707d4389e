"""Records print without their arrays."""

import jax.numpy as jnp
import numpy as np

import face_jax as fj
from face_jax.faithfulness import Path
from face_jax.faithfulness.lambda_path import Point
from face_jax.pictures.crop_rules import Crops


def test_a_solution_prints_its_shapes_and_numbers():
    text = repr(fj.factorize(np.ones((30, 12)), 2, solver=fj.HALS(max_steps=2)))
    assert "codes=float64[30,2], dictionary=float64[2,12]" in text
    assert "steps=" in text
    assert "array" not in text.lower()
    assert len(text) < 500


def test_starts_and_crops_print_shapes():
    assert (
        repr(fj.Given(jnp.ones((30, 2)), jnp.ones((2, 12)))) == "Given(codes=float64[30,2], dictionary=float64[2,12])"
    )
    assert repr(Crops(np.zeros(5, np.int64), np.zeros((5, 4), np.int64))) == (
        "Crops(image=int64[5], box=int64[5,4], window=None)"
    )


def test_a_path_prints_what_was_chosen():
    points = tuple(
        Point(weight, 0.1, 0.2, 0.3, loss, 1.0, 1.0, 1e-5, 9) for weight, loss in ((0.0, 0.85), (30.0, 0.61))
    )
    text = repr(Path(points, 1, None, 1.1))
    assert "λ=30 chosen" in text
    assert "0.85 → 0.61" in text
