"""Rank choice on activations whose number of concepts is known."""

import jax
import numpy as np
import pytest
import scipy.sparse

import face_jax as fj
from face_jax.nmf import rank_choice as scanning
from face_jax.nmf import rank_choice_in_blocks as in_parts
from face_jax.nmf.matching import agreements, drawn_rows

PLANTED = 3


@pytest.fixture(scope="module")
def activations():
    random = np.random.default_rng(0)
    codes = random.gamma(0.5, 1, (90, PLANTED))
    dictionary = random.gamma(0.5, 1, (PLANTED, 16))
    clean = codes @ dictionary
    return np.maximum(clean + 0.1 * clean.mean() * random.standard_normal(clean.shape), 0)


@pytest.fixture(scope="module")
def scan(activations):
    return fj.rank_scan(activations, (6, PLANTED, 1, PLANTED), key=jax.random.key(0))


def test_ranks_are_put_in_order_once(scan):
    assert scan.ranks.tolist() == [1, PLANTED, 6]


def test_the_planted_rank_is_suggested(scan):
    assert scan.suggested == PLANTED


def test_entries_left_out_tell_too_many_concepts_from_enough(scan):
    few, right, many = scan.held_out
    assert few > 2 * right
    assert many > right
    # The entries seen can't: their error only falls.
    assert np.all(np.diff(scan.fitted) < 0)
    assert np.all(scan.held_out > scan.fitted)


def test_concepts_are_found_again_at_the_planted_rank(scan):
    right = scan.ranks.tolist().index(PLANTED)
    assert scan.stability[right] > 0.99
    assert scan.floor[right] < 0.95
    # Concepts beyond those that are there come out differently from each start.
    assert scan.stability[-1] < scan.stability[right]


def test_values_left_out_do_not_reach_the_fit(activations):
    # One fold by hand: other values at the entries left out change the score on them, and no factor.
    solver, key = fj.ADMM(max_steps=50, rtol=1e-3), jax.random.key(1)
    seen, unseen = scanning._fold(jax.numpy.asarray(activations), [PLANTED], 0.1, solver, key)[0]
    left_out = np.asarray(jax.random.uniform(jax.random.split(key)[0], activations.shape)) < 0.1
    changed = np.where(left_out, 10 * activations + 1, activations)
    seen_too, unseen_too = scanning._fold(jax.numpy.asarray(changed), [PLANTED], 0.1, solver, key)[0]
    assert seen_too == seen
    assert unseen_too > 2 * unseen


def test_agreement_matches_concepts_whatever_their_order():
    same = np.eye(3)
    assert agreements([same, same[[2, 0, 1]]]) == 1
    assert agreements([np.eye(4)[:2], np.eye(4)[2:]]) == 0


FEWER = {"ranks": (PLANTED, 1, PLANTED), "folds": 2, "starts": 2, "key": 3}


def test_the_same_key_gives_the_same_table(activations):
    tables = [fj.rank_scan(activations, **FEWER) for _ in range(2)]
    np.testing.assert_array_equal(tables[0].held_out, tables[1].held_out)
    np.testing.assert_array_equal(tables[0].stability, tables[1].stability)


def test_rows_for_the_floor_are_drawn_in_one_pass(activations):
    class Counted:
        shape, dtype, passes = activations.shape, activations.dtype, 0

        def blocks(self):
            self.passes += 1
            yield from np.split(activations, 3)

    rows, keys = Counted(), jax.random.split(jax.random.key(2), 3)
    found = in_parts.drawn(fj.RowBlocks(rows, rows=40), PLANTED, keys)
    assert rows.passes == 1
    np.testing.assert_allclose(found, drawn_rows(activations, PLANTED, keys), rtol=1e-12)


def test_rows_in_blocks_are_compared_by_the_same_numbers(activations):
    found, wanted = (fj.rank_scan(rows, **FEWER) for rows in (fj.RowBlocks(activations, rows=40), activations))
    for name in ("ranks", "held_out", "held_out_error", "fitted", "stability", "floor"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, err_msg=name)


def test_entries_that_were_not_observed_have_no_part_in_the_choice():
    drawn = np.random.default_rng(0)
    A = drawn.gamma(0.5, size=(60, 3)) @ drawn.gamma(0.5, size=(3, 20))
    known = drawn.random(A.shape) < 0.7
    settings = {"ranks": (2, 3, 4), "key": 0, "observed": known}
    found = fj.rank_scan(np.where(known, A, np.nan), **settings)
    other = fj.rank_scan(np.where(known, A, 1e3), **settings)
    np.testing.assert_array_equal(found.held_out, other.held_out)
    assert found.suggested == 3
    with pytest.raises(ValueError, match="observed= is there for dense activations in memory"):
        fj.rank_scan(scipy.sparse.csr_array(A), (2, 3), observed=known)
