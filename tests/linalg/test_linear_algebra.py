"""Conjugate gradients, line search, blocks of rows and coordinate steps against NumPy, closed forms and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.linalg.conjugate_gradients import conjugate_gradient, conjugate_gradients
from face_jax.linalg.inner_products import Columns, RowGroups, Whole
from face_jax.linalg.line_search import armijo, backtrack, shorter_by_parabola
from face_jax.linalg.row_blocks import RowBlocks, fold_blocks, map_blocks, put_columns
from face_jax.nmf.steps import coordinate_step, share, sweep
from face_jax.support.scaling import positive

RANDOM = np.random.default_rng(0)
FACTOR = RANDOM.normal(size=(7, 5))
MATRIX = FACTOR.T @ FACTOR
RIGHT = RANDOM.normal(size=(5, 6))
SOLUTION = np.linalg.solve(MATRIX, RIGHT)


def solved(product, rhs, inner, **options):
    return conjugate_gradient(product, jnp.asarray(rhs), inner=inner, rtol=1e-12, max_steps=40, **options)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_every_column_is_a_system_of_its_own(scanned, preconditioned):
    options = {"preconditioner": lambda x: x / np.diag(MATRIX)[:, None]} if preconditioned else {}
    found = solved(lambda x: MATRIX @ x, RIGHT, Columns(), scanned=scanned, **options)
    np.testing.assert_allclose(found, SOLUTION, rtol=1e-8, atol=1e-10)
    # In company or alone: a column's steps are its own.
    alone = solved(lambda x: MATRIX @ x, RIGHT[:, 2:3], Columns(), scanned=scanned, **options)
    np.testing.assert_allclose(found[:, 2:3], alone, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_groups_of_rows_are_systems(rows):
    found = solved(lambda x: x @ MATRIX, RIGHT.T, RowGroups(rows), x0=jnp.ones((6, 5)))
    np.testing.assert_allclose(found, SOLUTION.T, rtol=1e-8, atol=1e-10)


def test_a_pytree_is_one_system():
    rhs = jnp.asarray(RIGHT[:, 0]), jnp.asarray(RIGHT[0])
    found = conjugate_gradient(
        lambda pair: (MATRIX @ pair[0], 3 * pair[1]), rhs, inner=Whole(), rtol=1e-12, max_steps=40
    )
    np.testing.assert_allclose(found[0], SOLUTION[:, 0], rtol=1e-8)
    np.testing.assert_allclose(found[1], RIGHT[0] / 3, rtol=1e-8)


def test_scanned_steps_are_differentiated_backwards():
    def total(matrix):
        solutions = conjugate_gradient(
            lambda x: matrix @ x, jnp.asarray(RIGHT), inner=Columns(), rtol=1e-3, max_steps=12, scanned=True
        )
        return jnp.sum(solutions * RIGHT)

    found = jax.grad(total)(jnp.asarray(MATRIX))
    # A column that has arrived stands still, and its square, all but zero, divides nothing.
    assert np.isfinite(found).all()
    # The steps know that the matrix is symmetric: only its symmetric part says something.
    np.testing.assert_allclose((found + found.T) / 2, -SOLUTION @ SOLUTION.T, rtol=1e-6)


def test_of_a_singular_consistent_system_the_least_solution_is_found():
    singular = MATRIX.copy()
    singular[-1], singular[:, -1] = 0, 0
    rhs = jnp.asarray(singular @ RIGHT[:, 0])
    project = lambda x: x * jnp.asarray([1.0, 1, 1, 1, 0])  # noqa: E731
    found, stats = conjugate_gradients(
        lambda x: singular @ x, rhs, preconditioner=lambda x: x, project=project, rtol=jnp.asarray(1e-10), max_steps=50
    )
    assert bool(stats.solved)
    assert not bool(stats.indefinite)
    np.testing.assert_allclose(found, np.linalg.pinv(singular) @ rhs, rtol=1e-7, atol=1e-9)


def test_a_direction_of_negative_curvature_is_told():
    rhs = jnp.asarray([1.0, 2.0])
    found, stats = conjugate_gradients(
        lambda x: x * jnp.asarray([1.0, -1.0]), rhs, preconditioner=lambda x: x, project=lambda x: x,
        rtol=jnp.asarray(1e-10), max_steps=20,
    )  # fmt: skip
    assert bool(stats.indefinite)
    np.testing.assert_allclose(found, [1, -2], rtol=1e-8)


def test_each_problem_gets_the_first_step_that_is_good():
    wanted = jnp.asarray([1.0, 0.3, 0.1, 0.0])

    def trial(t, count):
        return t <= wanted, t / 2, t * 10

    t, found, none = backtrack(trial, jnp.full(4, -1.0), jnp.ones(4, bool), trials=6, dtype=jnp.float64)
    np.testing.assert_array_equal(none, [False, False, False, True])
    np.testing.assert_array_equal(found, [10, 2.5, 0.625, -1])
    np.testing.assert_array_equal(t[:3], [1, 0.25, 0.0625])


def test_what_does_not_look_keeps_what_it_has():
    t, found, none = backtrack(
        lambda t, _: (t < 0, t / 2, t), jnp.asarray(7.0), jnp.zeros((), bool), trials=5, dtype=jnp.float64
    )
    assert (float(t), float(found), bool(none)) == (1, 7, False)


def test_the_parabola_ends_at_the_lowest_point_of_a_quadratic():
    # f(t) = t² − 0.8 t: from t = 1, where it rose by 0.2, to 0.4.
    np.testing.assert_allclose(shorter_by_parabola(jnp.asarray(1.0), jnp.asarray(0.2), jnp.asarray(-0.8)), 0.4)
    assert float(shorter_by_parabola(jnp.asarray(1.0), jnp.asarray(jnp.nan), jnp.asarray(-1.0))) == pytest.approx(0.1)
    assert not bool(armijo(jnp.asarray(jnp.nan), jnp.asarray(-1.0)))


@pytest.mark.parametrize(("rows", "most", "together"), [(10, 4, 1), (12, 4, 1), (10, 100, 1), (12, 5, 2), (12, 1, 3)])
def test_blocks_have_every_row_and_count_each_once(rows, most, together):
    blocks = RowBlocks.of(rows, most, together=together)
    assert blocks.size % together == 0
    assert blocks.size <= max(most, together)
    values = jnp.arange(rows, dtype=jnp.float64)
    out, total = fold_blocks(
        blocks,
        lambda start, fresh: ((taken := blocks.take(values, start)) ** 2, jnp.sum(taken * fresh)),
        jnp.zeros(rows), jnp.zeros(()), dtype=jnp.float64,
    )  # fmt: skip
    np.testing.assert_array_equal(out, np.arange(rows) ** 2)
    assert float(total) == rows * (rows - 1) / 2
    wide = jnp.stack([values, -values])
    mapped = map_blocks(
        blocks, lambda start: 2 * blocks.take(wide, start, axis=1), jnp.zeros_like(wide), put=put_columns
    )
    np.testing.assert_array_equal(mapped, 2 * wide)


def test_coordinate_steps_and_sweeps_by_hand():
    x, slope, curvature = jnp.asarray([1.0, 1.0, 2.0]), jnp.asarray([4.0, -1.0, 3.0]), jnp.asarray([2.0, 1.0, 0.0])
    np.testing.assert_array_equal(coordinate_step(x, slope, curvature), [0, 2, 0])
    np.testing.assert_array_equal(coordinate_step(x, slope, curvature, signed=True), [-1, 2, -1])
    np.testing.assert_array_equal(positive(jnp.asarray([-1.0, 0.0, 2.0])), [1, 1, 2])
    assert float(share(jnp.asarray(9.0), jnp.asarray(0.0))) == 3
    cross = jnp.asarray(MATRIX @ np.abs(RIGHT))
    found, swept = jnp.zeros_like(cross), jax.jit(sweep)
    for _ in range(400):
        found = swept(found, jnp.asarray(MATRIX), cross)
    np.testing.assert_allclose(found, np.abs(RIGHT), rtol=1e-6, atol=1e-8)
    # With a matrix for each column, the same matrix for all.
    each = jnp.repeat(jnp.asarray(MATRIX)[:, :, None], cross.shape[1], axis=2)
    np.testing.assert_allclose(swept(found, each, cross), swept(found, jnp.asarray(MATRIX), cross), rtol=1e-12)


@pytest.mark.parametrize("concepts", [1, 7, 8, 19])
def test_sweeps_of_several_concepts_at_a_time_are_those_of_one(concepts, monkeypatch):
    random = np.random.default_rng(concepts)
    root, x = random.standard_normal((concepts, 30)), random.random((concepts, 5))
    matrix, cross = root @ root.T, random.standard_normal((concepts, 5))
    # A concept of length zero stays where it is.
    matrix[concepts // 2] = matrix[:, concepts // 2] = cross[concepts // 2] = 0
    each = np.repeat(matrix[:, :, None], 5, axis=2) * random.uniform(1, 2, 5)
    for gram in (matrix, each):
        found = {}
        for backend in ("cpu", "gpu"):
            monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
            found[backend] = jax.jit(lambda *args: sweep(*args))(x, gram, cross)
        np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=1e-12, atol=1e-12)
        assert np.any(found["cpu"] != x) or concepts == 1
