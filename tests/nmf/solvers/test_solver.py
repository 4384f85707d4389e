"""A solver owns the way from a start to a solution, and says what it can do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax.faithfulness import Faithfulness
from face_jax.heads import Affine

A = jnp.asarray(np.random.default_rng(0).random((20, 6)))
WITH_TERM = fj.SquaredError() + 1.0 * Faithfulness(Affine(jnp.eye(6), jnp.zeros(6)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Marked(fj.HALS):
    """HALS whose solutions can be told from others."""

    def solve(self, *problem, **how):
        return dataclasses.replace(super().solve(*problem, **how), scale=jnp.full(2, 7.0))


def test_factorize_gives_what_the_solver_solves():
    found = fj.factorize(A, 2, solver=Marked(max_steps=3), adjoint=fj.StopGradient())
    plain = fj.factorize(A, 2, solver=fj.HALS(max_steps=3), adjoint=fj.StopGradient())
    assert found.scale.tolist() == [7.0, 7.0]
    np.testing.assert_array_equal(found.codes, plain.codes)


@pytest.mark.parametrize("solver", [fj.HALS(), fj.MultiplicativeUpdate(), Marked()], ids=lambda one: type(one).__name__)
def test_solvers_of_the_squared_error_alone_say_so(solver):
    assert solver.beside_terms is None
    with pytest.raises(ValueError, match=rf"solver={type(solver).__name__}\(\) can only fit a squared error"):
        fj.factorize(A, 2, objective=WITH_TERM, solver=solver)


def test_what_the_loop_with_terms_takes_from_a_solver():
    own = fj.ADMM(inner=2, rtol=1e-6, max_steps=9, linear=fj.ConjugateGradient(steps=4, rtol=0.2)).beside_terms
    assert (own.inner, own.steps, own.cg_rtol, own.rtol, own.max_steps, own.signed) == (2, 4, 0.2, 1e-6, 9, False)
    inner = fj.SemiNMF(codes=fj.ADMM(inner=5, max_steps=1), max_steps=8, extrapolate=False).beside_terms
    assert (inner.inner, inner.max_steps, inner.extrapolate, inner.signed) == (5, 8, False, True)
    assert fj.SemiNMF().beside_terms == dataclasses.replace(fj.ADMM().beside_terms, signed=True)


def test_given_factors_are_checked_however_deep_they_are_in_a_start():
    start = fj.Warmup(fj.Warmup(fj.Given(jnp.ones((20, 3)), jnp.ones((3, 6)))))
    with pytest.raises(ValueError, match=r"start\.codes has shape \(20, 3\); activations and rank=2 need \(20, 2\)"):
        fj.factorize(A, 2, start=start)
