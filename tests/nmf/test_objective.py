"""Objectives: a squared error with or without terms is one kind of thing, and is written down the same way."""

import jax
import jax.numpy as jnp
import pytest

import face_jax as fj
from face_jax.faithfulness import Faithfulness
from face_jax.heads import Affine

TERM = Faithfulness(Affine(jnp.eye(3), jnp.zeros(3)))


def test_the_squared_error_alone_is_an_objective_without_terms():
    alone = fj.SquaredError(l1_codes=0.5, row_weights=jnp.ones(2))
    assert isinstance(alone, fj.Objective)
    assert alone.terms == ()
    assert alone.squared_error
    assert jax.tree.structure(alone.quadratic) == jax.tree.structure(alone)


@pytest.mark.parametrize("order", ["error first", "terms first"])
def test_terms_beside_a_squared_error_leave_its_penalties_as_they_are(order):
    error, terms = fj.SquaredError(l1_codes=0.5, l2_dictionary=2.0), 3.0 * TERM + TERM
    both = error + terms if order == "error first" else terms + error
    assert isinstance(both, fj.Objective)
    assert not isinstance(both, fj.SquaredError)
    assert both.quadratic == error
    assert both.l1_codes == 0.5
    assert [part.weight for part in both.terms] == [3.0, 1.0]


def test_an_objective_without_terms_has_no_more_leaves_than_its_numbers():
    assert jax.tree.leaves(fj.SquaredError(l1_codes=0.5)) == [0.5, 0.0, 0.0, 0.0]
    assert isinstance(jax.tree.map(lambda x: 2 * x, fj.SquaredError(l1_codes=0.5)), fj.SquaredError)


def test_objectives_are_written_down_as_explanations_keep_them():
    alone = (
        "SquaredError(weights=None, row_weights=None, l1_codes=0.5, l2_codes=0.0, l1_dictionary=0.0, l2_dictionary=0.0)"
    )
    assert repr(fj.SquaredError(l1_codes=0.5)) == alone
    both = fj.SquaredError(l1_codes=0.5) + 2.0 * TERM
    assert (
        repr(both) == f"Objective(quadratic={alone}, terms=(Weighted(weight=2.0, term={TERM!r}),), squared_error=True)"
    )


def test_terms_are_added_and_not_given_to_the_squared_error():
    with pytest.raises(TypeError, match="terms"):
        fj.SquaredError(terms=())  # pyright: ignore[reportCallIssue]
