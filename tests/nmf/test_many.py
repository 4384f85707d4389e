"""Many factorizations in one call are what each is by itself."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax.nmf import ADMM, MultiplicativeUpdate, Random, SemiNMF, SquaredError, factorize, factorize_many, many

RANK = 2
SOLVER = ADMM(rtol=1e-9, max_steps=200)


def planted(rows, channels=12, seed=0):
    rng = np.random.default_rng(seed)
    product = rng.gamma(0.4, 1, (rows, RANK)) @ rng.gamma(0.4, 1, (RANK, channels))
    return product + 0.05 * rng.random((rows, channels))


def assert_alike(found, wanted):
    assert found.codes.shape == wanted.codes.shape
    np.testing.assert_allclose(found.codes, wanted.codes, atol=1e-9 * np.abs(wanted.codes).max())
    np.testing.assert_allclose(found.dictionary, wanted.dictionary, atol=1e-9)
    np.testing.assert_allclose(found.stats.final_objective, wanted.stats.final_objective, rtol=1e-9)
    assert int(found.stats.steps) == int(wanted.stats.steps)
    assert found.result == wanted.result


@pytest.mark.parametrize("channels", [12, 40])
def test_classes_of_different_rows(channels, monkeypatch):
    matrices = [planted(rows, channels, rows) for rows in (70, 80)]
    programs = []
    monkeypatch.setattr(many, "_one", lambda *given, one=many._one: programs.append(given[-1]) or one(*given))
    found = factorize_many(matrices, RANK, solver=SOLVER)
    # One program, traced once for its shapes and once for itself, with samples of fewer rows than channels or of more.
    assert len(programs) == 2
    assert programs[0][0].shape == (80, channels)
    # The second one has as many rows as the program; what becomes of the first one's further rows is the question.
    for mine, matrix in list(zip(found, matrices, strict=True))[: 2 if channels == 12 else 1]:
        assert_alike(mine, factorize(matrix, RANK, solver=SOLVER))


def test_side_by_side_as_on_accelerators(monkeypatch):
    matrices = [planted(rows, 12, rows) for rows in (70, 80, 100)]
    programs = []
    monkeypatch.setattr(many, "_solve", lambda *given, all_of=many._solve: programs.append(given) or all_of(*given))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = factorize_many(matrices, RANK, solver=SOLVER)
    # One program, for a power of two of rows and of problems.
    assert [given[4][0].shape for given in programs] == [(4, 128, 12)]
    monkeypatch.undo()
    for mine, matrix in zip(found, matrices, strict=True):
        assert_alike(mine, factorize(matrix, RANK, solver=SOLVER))


def test_ranks_starts_and_penalties_of_one_matrix():
    A = jnp.asarray(planted(70))
    start = Random()
    found = factorize_many(A, [RANK, RANK, 1], solver=SOLVER, start=start, key=[3, 4, 3])
    for mine, rank, key in zip(found, (RANK, RANK, 1), (3, 4, 3), strict=True):
        assert_alike(mine, factorize(A, rank, solver=SOLVER, start=start, key=key))
    objectives = [SquaredError(l1_codes=size, l1_dictionary=size) for size in (0.0, 0.01, 0.02)]
    found = factorize_many(A, RANK, objective=objectives, solver=SOLVER)
    for mine, objective in zip(found, objectives, strict=True):
        assert_alike(mine, factorize(A, RANK, objective=objective, solver=SOLVER))
    assert found[1].stats.final_objective < found[2].stats.final_objective


def test_weights_of_terms():
    A = jnp.asarray(planted(70))
    term = fj.Faithfulness(fj.heads.Affine(jnp.asarray(planted(12, 3, 5)), jnp.zeros(3)))
    objectives = [SquaredError() + weight * term for weight in (0.5, 2.0)]
    found = factorize_many(A, RANK, objective=objectives, solver=ADMM(rtol=1e-6))
    for mine, objective in zip(found, objectives, strict=True):
        wanted = factorize(A, RANK, objective=objective, solver=ADMM(rtol=1e-6))
        np.testing.assert_allclose(mine.stats.final_objective, wanted.stats.final_objective, rtol=1e-9)
        np.testing.assert_allclose(mine.dictionary, wanted.dictionary, atol=1e-6)


def test_what_would_see_rows_of_zeros_gets_none():
    A, B = planted(70), planted(75)
    rows = {"row_weights": jnp.linspace(0.5, 2, 70)}, {"row_weights": jnp.linspace(2, 1, 75)}
    cases = [
        {"solver": MultiplicativeUpdate(max_steps=20)},
        {"solver": SOLVER, "objective": [SquaredError(**weights) for weights in rows]},
        {"solver": SemiNMF(max_steps=20)},
    ]
    for settings in cases:
        found = factorize_many([A, B], RANK, **settings)
        objectives = settings.pop("objective", [SquaredError()] * 2)
        for mine, matrix, objective in zip(found, (A, B), objectives, strict=True):
            assert_alike(mine, factorize(matrix, RANK, objective=objective, **settings))


def test_units_and_dtypes_may_differ():
    A = planted(75)
    matrices = [A, A * 2.0**-80, A.astype(np.float32), A * 2.0**60]
    found = factorize_many(matrices, RANK, solver=SOLVER)
    assert [str(mine.codes.dtype) for mine in found] == ["float64", "float64", "float32", "float64"]
    for mine, power in ((found[1], -80), (found[3], 60)):
        np.testing.assert_array_equal(mine.dictionary, found[0].dictionary)
        np.testing.assert_array_equal(mine.codes, found[0].codes * 2.0**power)


def test_derivatives():
    matrices = [jnp.asarray(planted(rows, seed=rows)) for rows in (70, 75)]
    solver = ADMM(rtol=1e-10, max_steps=400)

    def rebuilt(found):
        return sum(jnp.sum(jnp.sin(one.codes @ one.dictionary)) for one in found)

    mine = jax.jit(jax.grad(lambda both: rebuilt(factorize_many(both, RANK, solver=solver))))(matrices)
    one = jax.jit(jax.grad(lambda A: rebuilt([factorize(A, RANK, solver=solver)])))
    assert all(jnp.any(found != 0) for found in mine)
    # Both go through the program in the same way; the first has more rows of zeros there.
    np.testing.assert_allclose(mine[0], one(matrices[0]), atol=1e-8)


def test_rows_in_blocks_are_problems_beside_others(tmp_path):
    A, told = planted(70), []

    @contextlib.contextmanager
    def progress(stage, total):
        told.append(total)
        yield told.append

    np.save(tmp_path / "a.npy", A)
    found = factorize_many([fj.RowBlocks(A, rows=40), A, str(tmp_path / "a.npy")], 3, solver=SOLVER, progress=progress)
    assert told == [3, 1, 1, 1]
    for one in found:
        np.testing.assert_allclose(one.dictionary, found[1].dictionary, atol=1e-8)
    with pytest.raises(ValueError, match=r"activations\[1\]=.*none.npy.* doesn't exist"):
        factorize_many([A, str(tmp_path / "none.npy")], 3)


def test_bad_input_is_named():
    A = planted(70)
    for given, words in (
        ({"activations": [A, A[:, 0]], "rank": 2}, r"activations\[1\] has shape"),
        ({"activations": [A, -A], "rank": 2}, r"activations\[1\] has 840 of 840 entries below zero"),
        ({"activations": [A, A * np.nan], "rank": 2}, r"activations\[1\] has 840 entries that are NaN"),
        ({"activations": [A, A], "rank": [2, 2, 2]}, "activations is a list of 2 and rank one of 3"),
        ({"activations": A, "rank": []}, "rank is an empty list"),
        ({"activations": A, "rank": [2, 0]}, "rank=0 leaves no concept"),
        ({"activations": A, "rank": 2, "solver": "hals"}, "solver"),
    ):
        with pytest.raises(ValueError, match=words):
            factorize_many(**given)
