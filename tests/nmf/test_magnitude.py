"""Units make no difference: what is found is what the same numbers of ordinary size give, or a refusal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax import nmf as ff
from face_jax.faithfulness import Faithfulness, faithfulness_path
from face_jax.heads import Affine
from face_jax.nmf import magnitude

RANK = 3
_GENERATOR = np.random.default_rng(0)
A = _GENERATOR.random((40, RANK)) @ _GENERATOR.random((RANK, 8)) + 0.1 * _GENERATOR.random((40, 8))
A = A / A.max()
STEPS = 30
UNITS = [(np.float32, 2.0**-100), (np.float32, 2.0**-66), (np.float32, 2.0**66), (np.float32, 2.0**124)]
UNITS += [(np.float64, 2.0**-1000), (np.float64, 2.0**1000)]
SOLVERS = [
    ff.ADMM(max_steps=STEPS),
    ff.HALS(max_steps=STEPS),
    ff.MultiplicativeUpdate(max_steps=STEPS),
    ff.SemiNMF(max_steps=STEPS),
    ff.PaperAdam(max_steps=STEPS),
]


def _same(found, expected, unit):
    eps = 100 * float(jnp.finfo(found.codes.dtype).eps)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=eps)
    codes = np.asarray(expected.codes)
    # What has no normal number in this unit is zero there.
    lost = float(jnp.finfo(found.codes.dtype).tiny) / float(unit)
    np.testing.assert_allclose(found.codes / unit, codes, atol=max(eps * codes.max(), lost))
    # The objective alone is of the unit squared.
    overflows = bool(expected.result.successful) and not np.isfinite(found.stats.final_objective)
    assert found.result == (ff.RESULTS.objective_overflowed if overflows else expected.result)
    assert int(found.stats.steps) == int(expected.stats.steps)
    assert float(found.stats.final_residual) == pytest.approx(float(expected.stats.final_residual), rel=1e-3, abs=eps)


# What a solver sees has no unit any more, whichever it is; double precision is only another range for that.
@pytest.mark.parametrize(
    ("dtype", "unit", "solver"),
    [(dtype, unit, solver) for dtype, unit in UNITS for solver in SOLVERS[: 1 if dtype is np.float64 else None]],
    ids=lambda given: type(given).__name__ if given in SOLVERS else None,
)
def test_factorizations_do_not_depend_on_the_unit(dtype, unit, solver):
    unit = dtype(unit)
    found, expected = (ff.factorize(x, RANK, solver=solver) for x in (A.astype(dtype) * unit, A.astype(dtype)))
    _same(found, expected, unit)
    assert np.abs(A.astype(dtype) - (found.codes / unit) @ found.dictionary).max() < 0.5


@pytest.mark.parametrize(
    ("solver", "blocks"), [(ff.ADMM, False), (ff.HALS, False), (ff.SemiNMF, False), (ff.ADMM, True)]
)
def test_an_objective_that_overflows_is_no_success(solver, blocks):
    """Its factors are as good as any, and can be used."""
    big = A.astype(np.float32) * np.float32(1e30)
    found = ff.factorize(fj.RowBlocks([big[:20], big[20:]]) if blocks else big, RANK, solver=solver(rtol=1e-2))
    assert np.isinf(found.stats.final_objective)
    assert found.stats.final_residual <= 1e-2
    assert found.result == ff.RESULTS.objective_overflowed
    assert found.result.usable
    assert not found.result.successful


def test_the_message_of_several_results_is_of_the_one_that_is_worst():
    codes = [ff.RESULTS.successful, ff.RESULTS.objective_overflowed]
    assert ff.Result(jnp.asarray(codes)).message == ff.RESULTS.objective_overflowed.message
    assert ff.Result(jnp.asarray([*codes, ff.RESULTS.nonfinite])).message == ff.RESULTS.nonfinite.message


def test_ordinary_sizes_are_left_as_they_are():
    for scale in (2.0**-15, 1.0, 2.0**15):
        assert float(magnitude.unit_of(jnp.asarray(A * scale), ff.SquaredError()).whole) == 1
    for given in (jnp.zeros((2, 2)), jnp.full((2, 2), jnp.nan), jnp.full((2, 2), jnp.inf)):
        assert float(magnitude.unit_of(given, ff.SquaredError()).whole) == 1


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_penalties_starts_and_weights_are_of_the_same_unit(unit):
    """An ℓ2 penalty counts in the unit, an ℓ1 penalty in its power of 1½, factors in its root."""
    root = unit**0.5
    weights, row_weights = jnp.asarray(_GENERATOR.random((40, 8))), jnp.asarray(_GENERATOR.random(40))
    codes, dictionary = jnp.asarray(_GENERATOR.random((40, RANK))), jnp.asarray(_GENERATOR.random((RANK, 8)))

    def solved(unit, root, **changes):
        objective = ff.SquaredError(
            weights=weights,
            row_weights=row_weights,
            l1_codes=1e-2 * unit * root,
            l2_codes=2e-2 * unit,
            l1_dictionary=3e-2 * unit * root,
            l2_dictionary=1e-2 * unit,
        )
        start = ff.Given(codes * root, dictionary * root)
        return ff.factorize(A * unit, RANK, objective=objective, start=start, solver=ff.ADMM(max_steps=STEPS))

    found, expected = solved(unit, root), solved(1.0, 1.0)
    _same(found, expected, unit)
    np.testing.assert_allclose(found.scale / root, expected.scale, rtol=1e-9)
    np.testing.assert_allclose(found.stats.objective / unit**2, expected.stats.objective, rtol=1e-9)
    assert float(found.stats.final_objective) / unit**2 == pytest.approx(float(expected.stats.final_objective))


def test_given_factors_may_share_the_unit_in_any_way():
    codes, dictionary = _GENERATOR.random((40, RANK)), _GENERATOR.random((RANK, 8))

    def solved(unit, of_codes, dtype=np.float32):
        start = ff.Given(*(jnp.asarray(x.astype(dtype)) for x in (codes * of_codes, dictionary * (unit / of_codes))))
        return ff.factorize(A.astype(dtype) * dtype(unit), RANK, start=start, solver=ff.ADMM(max_steps=STEPS))

    for unit, of_codes in ((2.0**-80, 2.0**-80), (2.0**-80, 1.0), (2.0**100, 2.0**100), (1.0, 2.0**-90)):
        _same(solved(unit, of_codes), solved(1.0, 1.0), np.float32(unit))


def test_residuals_and_ranks_have_no_unit():
    solution = ff.factorize(A, RANK, solver=ff.ADMM(max_steps=3))
    expected = ff.kkt_residual(jnp.asarray(A), solution.codes, solution.dictionary)
    scan = ff.rank_scan(A.astype(np.float32), (1, 2), key=jax.random.key(0), folds=2, starts=2)
    for unit in (2.0**-100, 2.0**100):
        unit32 = np.float32(unit)
        found = ff.kkt_residual(
            jnp.asarray(A.astype(np.float32) * unit32),
            solution.codes.astype(jnp.float32) * unit32,
            solution.dictionary.astype(jnp.float32),
        )
        for name in ("codes", "dictionary", "complementarity"):
            assert float(getattr(found, name)) == pytest.approx(float(getattr(expected, name)), rel=1e-3)
        other = ff.rank_scan(A.astype(np.float32) * unit32, (1, 2), key=jax.random.key(0), folds=2, starts=2)
        for name in ("held_out", "fitted", "stability", "floor"):
            np.testing.assert_allclose(getattr(other, name), getattr(scan, name), rtol=1e-4)


def test_derivatives_are_those_of_ordinary_units():
    """The codes' derivative by activations has no unit, the dictionary's its inverse; with `jit` and `vmap`, too."""
    solver = ff.ADMM(rtol=1e-11, max_steps=3000)
    generator = np.random.default_rng(0)
    codes, concepts = (generator.random(shape) * (generator.random(shape) < 0.5) for shape in ((40, RANK), (RANK, 8)))
    A = codes @ concepts + 0.05 * generator.random((40, 8))
    A = A / A.max()
    of_codes, of_dictionary = jnp.asarray(_GENERATOR.normal(size=(40, RANK))), _GENERATOR.normal(size=(RANK, 8))

    def objective(unit):
        return ff.SquaredError(l2_codes=0.02 * unit, l2_dictionary=0.02 * unit)

    def read(activations, unit):
        found = ff.factorize(activations, RANK, solver=solver, objective=objective(unit))
        return jnp.sum(found.codes * of_codes) / unit + jnp.sum(found.dictionary * of_dictionary)

    units = 2.0**-400, 2.0**400
    expected, gradient = jax.grad(read)(jnp.asarray(A), 1.0), jax.jit(jax.grad(read))
    batch = jnp.stack([jnp.asarray(A * unit) for unit in (1.0, *units)])
    ordinary, *others = jax.vmap(lambda x: ff.factorize(x, RANK).codes)(batch)
    for unit, codes_there in zip(units, others, strict=True):
        found = gradient(jnp.asarray(A * unit), unit)
        np.testing.assert_allclose(found * unit, expected, atol=1e-6 * np.abs(expected).max())
        np.testing.assert_allclose(codes_there / unit, ordinary, atol=1e-9)
        solution = ff.factorize(A * unit, RANK, solver=solver, objective=objective(unit))
        cotangents = of_codes / unit, jnp.asarray(of_dictionary)
        (pulled, _), stats = ff.implicit_vjp(jnp.asarray(A * unit), solution, cotangents, objective=objective(unit))
        assert stats.result == ff.RESULTS.successful
        np.testing.assert_allclose(pulled * unit, expected, atol=1e-4 * np.abs(expected).max())


def test_what_cannot_be_scaled_is_refused():
    head = Affine(jnp.asarray(_GENERATOR.normal(size=(8, 3)).astype(np.float32)), jnp.zeros(3, jnp.float32))
    objective = fj.SquaredError() + 1.0 * Faithfulness(head)
    for unit in (2.0**-60, 2.0**60):
        activations = A.astype(np.float32) * np.float32(unit)
        with pytest.raises(ValueError, match=r"of the order of 2\*\*.*let the head multiply"):
            ff.factorize(activations, RANK, objective=objective)
        with pytest.raises(ValueError, match=r"of the order of 2\*\*.*let the head multiply"):
            ff.encode(activations, np.eye(RANK, 8, dtype=np.float32), objective=objective)
    penalties = ff.SquaredError(l1_codes=1.0, l2_dictionary=1.0)
    with pytest.raises(ValueError, match=r"l1_codes=1\.0 can't be held beside"):
        ff.factorize(A.astype(np.float32) * np.float32(2.0**-100), RANK, objective=penalties)
    with pytest.raises(ValueError, match="below the smallest normal"):
        ff.factorize(np.full((4, 3), 1e-40, np.float32), 1)
    rows = np.ones((4, 3), np.float32)
    for activations, dictionary, name in ((rows * 1e-40, rows, "activations"), (rows, rows * 1e-40, "dictionary")):
        with pytest.raises(ValueError, match=f"all of {name} is below the smallest normal"):
            ff.encode(activations.astype(np.float32), dictionary.astype(np.float32))


def test_paths_are_refused_where_terms_are():
    head = Affine(jnp.asarray(_GENERATOR.normal(size=(8, 3)).astype(np.float32)), jnp.zeros(3, jnp.float32))
    rows = jnp.asarray(A.astype(np.float32))
    tiny = rows * np.float32(2.0**-60)
    for activations, held_out, name in ((tiny, rows, "activations"), (rows, tiny, "held_out")):
        with pytest.raises(ValueError, match=rf"{name} is of the order of 2\*\*"):
            faithfulness_path(activations, RANK, Faithfulness(head), held_out)
