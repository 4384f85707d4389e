"""Faithful factorizations of rows in blocks: the steps in memory, with predictions made from the blocks."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax.nmf import checkpoint as keeping

# More rows than both factors move together for.
ROWS, CHANNELS, RANK, PLACES = 9000, 12, 3, 4
RANDOM = np.random.default_rng(0)
CLEAN = RANDOM.gamma(0.5, 1, (ROWS, RANK)) @ RANDOM.gamma(0.5, 1, (RANK, CHANNELS))
A = np.maximum(CLEAN + 0.2 * CLEAN.mean() * RANDOM.standard_normal(CLEAN.shape), 0)
KERNEL, BIAS = (jnp.asarray(RANDOM.normal(size=size)) for size in ((CHANNELS, 5), 5))
HEAD = fj.heads.Affine(KERNEL, BIAS, places=PLACES)
WEIGHTS = jnp.asarray(RANDOM.uniform(size=ROWS // PLACES))
OBJECTIVE = fj.SquaredError() + 30.0 * fj.Faithfulness(HEAD, weights=WEIGHTS, unit=fj.InMeans())
SOLVER = fj.ADMM(max_steps=6)


def blocks(rows=A):
    return fj.RowBlocks(rows, rows=3000)


def off(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def test_blocks_are_factorized_faithfully_as_memory_is(tmp_path, monkeypatch):
    wanted = fj.factorize(A, RANK, objective=OBJECTIVE, solver=SOLVER)
    found = fj.factorize(blocks(), RANK, objective=OBJECTIVE, solver=SOLVER, codes=tmp_path / "codes.npy")
    assert int(found.stats.steps) == int(wanted.stats.steps) == SOLVER.max_steps
    for name in ("dictionary", "codes", "scale"):
        assert off(getattr(found, name), getattr(wanted, name)) <= 1e-10, name
    for name in ("objective", "residual", "final_objective", "final_residual"):
        assert off(getattr(found.stats, name), getattr(wanted.stats, name)) <= 1e-9, name
    # The term was heeded.
    assert off(found.dictionary, fj.factorize(blocks(), RANK, solver=SOLVER).dictionary) > 1e-3
    goes_on_with_the_same_bits(found, tmp_path / "run", monkeypatch)


def goes_on_with_the_same_bits(whole, folder, monkeypatch):
    pytest.importorskip("orbax.checkpoint", reason="Orbax is optional")
    given: dict[str, Any] = {"objective": OBJECTIVE, "solver": SOLVER, "checkpoint": fj.Checkpoint(folder, steps=2)}
    save = keeping.Keeper.save

    def killed(self, step, *more):
        save(self, step, *more)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keeping.Keeper, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fj.factorize(blocks(), RANK, **given)
    found = fj.factorize(blocks(), RANK, **given)
    np.testing.assert_array_equal(found.dictionary, whole.dictionary)
    np.testing.assert_array_equal(found.codes, whole.codes)
    # Fewer steps than the first ones without the terms would have begun elsewhere.
    with pytest.raises(fj.CheckpointError, match="another problem: its solver"):
        fj.factorize(blocks(), RANK, **{**given, "solver": fj.ADMM(max_steps=7)})


def test_few_rows_are_factorized_as_in_memory_with_all_that_is_done_there():
    rows = A[:400]
    objective = fj.SquaredError() + 30.0 * fj.Faithfulness(HEAD)
    found = fj.factorize(fj.RowBlocks(rows, rows=100), RANK, objective=objective, solver=SOLVER)
    wanted = fj.factorize(rows, RANK, objective=objective, solver=SOLVER)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.dictionary, wanted.dictionary)


def test_what_the_terms_cannot_be_given_in_blocks_is_refused():
    for given, message in (
        ({"objective": fj.SquaredError() + fj.Faithfulness(HEAD, weights=WEIGHTS[:5])}, r"weights has shape \(5,\)"),
        ({"objective": OBJECTIVE, "codes": False}, "further terms"),
        ({"objective": OBJECTIVE, "rows": A[:-1]}, "aren't whole images"),
        ({"objective": fj.SquaredError(A + 1) + fj.Faithfulness(HEAD)}, "weights of single entries"),
        ({"objective": OBJECTIVE, "solver": fj.HALS()}, "can only fit a squared error"),
    ):
        rows = blocks(given.pop("rows", A))
        with pytest.raises(ValueError, match=message):
            fj.factorize(rows, RANK, **{"solver": SOLVER, **given})
