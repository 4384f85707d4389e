"""Valid data makes no NaN and no infinity on the way; what is invalid inside `jit` is told by a result of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax import nmf as ff
from face_jax.faithfulness import Faithfulness
from face_jax.heads import Affine

RANK, STEPS = 3, 4
_GENERATOR = np.random.default_rng(1)
A = jnp.asarray(_GENERATOR.random((40, 8)))
DEAD = A.at[3].set(0).at[:, 2].set(0)
SOLVERS = [
    ff.ADMM(max_steps=STEPS),
    ff.ADMM(linear=ff.ConjugateGradient(), max_steps=STEPS),
    ff.HALS(max_steps=STEPS),
    ff.MultiplicativeUpdate(max_steps=STEPS),
    ff.SemiNMF(max_steps=STEPS),
    ff.PaperAdam(max_steps=STEPS),
]
STARTS = [ff.Warmup(), ff.NNDSVD(), ff.NNDSVDa(), ff.NNDSVDar(), ff.Random()]


@pytest.fixture
def _strict():
    with jax.debug_nans(True), jax.debug_infs(True):
        yield


@pytest.mark.usefixtures("_strict")
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_solvers_make_only_numbers(solver):
    for activations in (A, DEAD, jnp.zeros_like(A)):
        solution = ff.factorize(activations, RANK, solver=solver)
        for leaf in jax.tree.leaves(solution):
            assert np.isfinite(leaf).all()
        steps = int(solution.stats.steps)
        assert (solution.stats.objective[steps:] == solution.stats.objective[steps]).all()


@pytest.mark.usefixtures("_strict")
@pytest.mark.parametrize("start", STARTS, ids=lambda start: type(start).__name__)
def test_starts_make_only_numbers(start):
    for activations in (A, DEAD, jnp.zeros_like(A)):
        ff.factorize(activations, RANK, start=start, solver=ff.HALS(max_steps=STEPS))


@pytest.mark.usefixtures("_strict")
def test_objectives_derivatives_codes_and_ranks_make_only_numbers():
    kernel = jnp.asarray(_GENERATOR.normal(size=(8, 3)))
    for term in (Faithfulness(Affine(kernel, jnp.zeros(3))), Faithfulness(lambda rows: jax.nn.relu(rows @ kernel))):
        objective = fj.SquaredError() + 2.0 * term
        solution = ff.factorize(A, RANK, objective=objective, solver=ff.ADMM(max_steps=STEPS))
        ff.encode(DEAD, solution.dictionary, objective=objective)
    entries = ff.SquaredError(weights=jnp.ones_like(A).at[4].set(0))
    ff.factorize(A, RANK, objective=entries, solver=ff.HALS(max_steps=STEPS))
    dictionary = jnp.concatenate([solution.dictionary, solution.dictionary[:1], jnp.zeros((1, 8))])
    jax.grad(lambda a, w: ff.encode(a, w).sum(), argnums=(0, 1))(DEAD, dictionary)
    penalties = ff.SquaredError(l2_codes=0.1, l2_dictionary=0.1)
    adjoint = ff.ImplicitAdjoint(throw=False)
    jax.grad(lambda a: ff.factorize(a, RANK, objective=penalties, adjoint=adjoint).codes.sum())(DEAD)
    ff.kkt_residual(jnp.zeros_like(A), jnp.zeros((40, RANK)), jnp.zeros((RANK, 8)))
    ff.rank_scan(A, (1, 2), key=jax.random.key(0), folds=2, starts=2, solver=ff.HALS(max_steps=STEPS))


def test_negative_values_inside_jit_have_a_result_of_their_own():
    solver, signed = ff.HALS(max_steps=STEPS), ff.SemiNMF(max_steps=STEPS)

    def code(activations, weights=None, l2=0.0, start=None, solver: Any = solver):
        objective = ff.SquaredError(row_weights=weights, l2_codes=l2, l2_dictionary=l2)
        start = ff.NNDSVD() if start is None else start
        return ff.factorize(activations, RANK, objective=objective, solver=solver, start=start, throw=False).result.code

    wrong, ones = A.at[2, 3].set(-0.1), jnp.ones(40)
    factors = jnp.ones((40, RANK)), jnp.ones((RANK, 8))
    assert int(jax.jit(code)(A)) != ff.RESULTS.negative.value
    assert int(jax.jit(code)(wrong)) == ff.RESULTS.negative.value
    assert int(jax.jit(code)(wrong * 2.0**-400)) == ff.RESULTS.negative.value
    assert int(jax.jit(code)(A, -ones)) == ff.RESULTS.negative.value
    assert int(jax.jit(code)(A, ones, -1.0)) == ff.RESULTS.negative.value
    assert int(jax.jit(code)(A, start=ff.Given(-factors[0], factors[1]))) == ff.RESULTS.negative.value
    assert int(jax.jit(lambda a: code(a, solver=signed))(wrong)) != ff.RESULTS.negative.value
    assert jax.vmap(code)(jnp.stack([A, wrong])).tolist()[1] == ff.RESULTS.negative.value
    for bad in (jnp.nan, jnp.inf):
        assert int(jax.jit(code)(A.at[1, 1].set(bad))) == ff.RESULTS.nonfinite.value
    result = ff.Result(jnp.asarray(ff.RESULTS.negative.value))
    assert not result.usable
    assert not result.successful
    assert "SemiNMF" in result.message

    def told():
        jax.block_until_ready(jax.jit(lambda a: ff.factorize(a, RANK, solver=solver).codes)(wrong))
        jax.effects_barrier()

    with pytest.raises(Exception, match="known inside jit have negative entries"):
        told()
    with pytest.raises(ValueError, match="entries below zero"):
        ff.factorize(wrong, RANK)
