"""Concepts as layers of a Flax model: encode with a learned dictionary, or factorize what comes in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from .nmf import (
    ADMM,
    Adjoint,
    ImplicitAdjoint,
    Objective,
    Solution,
    Solver,
    SquaredError,
    Start,
    Warmup,
    encode,
    factorize,
)
from .nmf.settings import check_adjoint, check_solver, check_start
from .nmf.validate import rank_of, squared_error
from .support.arguments import flag, real, whole


class Encode(nnx.Module):
    """Non-negative codes for a dictionary that's learned with the rest of the model.

    For a bottleneck whose units are concepts: what comes in is explained by as few of them as the penalty asks for,
    exactly, and the loss behind it moves the concepts. Its derivative is that of non-negative least squares: in
    closed form, without iterating.

    **Arguments:**

    - `channels`: of what comes in.
    - `rank`: how many concepts.
    - `l1`: weight of the codes' ℓ1 penalty; a learned one with `learn_l1`.
    - `signed`: whether concepts may have entries below zero, for activations that have such.
    - `learn_l1`: whether the penalty is a parameter, for bilevel problems: its gradient belongs on held-out data.
    - `rngs`: for the first dictionary.

    Fields `dictionary` and `l1` are `nnx.Param` without bounds; `concepts` is the form that's used: of unit length, and
    non-negative unless `signed`.
    """

    def __init__(
        self,
        channels: int,
        rank: int,
        *,
        l1: float = 0.0,
        learn_l1: bool = False,
        signed: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        channels, rank = whole("channels", channels, "channels"), whole("rank", rank, "concepts")
        flag("learn_l1", learn_l1)
        self.signed = flag("signed", signed)
        l1 = real("l1", l1, "penalty")
        if channels < 1 or rank < 1:
            raise ValueError(f"channels={channels} and rank={rank} leave nothing to encode; give at least 1 of each")
        if l1 < 0 or (learn_l1 and l1 == 0):
            raise ValueError(f"l1={l1} isn't a penalty to begin with; give 0 or more, and more than 0 to learn it")
        self.dictionary = nnx.Param(jax.random.normal(rngs.params(), (rank, channels)))
        # The logarithm, so that steps of an optimizer keep the penalty positive.
        self.log_l1 = nnx.Param(jnp.log(jnp.asarray(l1))) if learn_l1 else None
        self.fixed_l1 = l1

    @property
    def concepts(self) -> Float[Array, "concept channel"]:
        """Each of unit length, and non-negative unless `signed`."""
        free = self.dictionary[...] if self.signed else jax.nn.softplus(self.dictionary[...])
        return free / jnp.linalg.norm(free, axis=1, keepdims=True)

    @property
    def l1(self) -> Float[Array, ""] | float:
        """The penalty on the codes."""
        return self.fixed_l1 if self.log_l1 is None else jnp.exp(self.log_l1[...])

    def __call__(
        self, activations: Float[Array, "*batch channel"], observed: Bool[Array, "*batch channel"] | None = None
    ) -> Float[Array, "*batch concept"]:
        """The codes of activations with any leading axes, in their dtype; `observed`: where none are missing."""
        rows = activations.reshape(-1, activations.shape[-1])
        concepts = self.concepts.astype(rows.dtype)
        seen = None if observed is None else observed.reshape(rows.shape)
        codes = encode(rows, concepts, objective=SquaredError(l1_codes=self.l1), observed=seen)
        return codes.reshape(*activations.shape[:-1], -1)

    def decode(self, codes: Float[Array, "*batch concept"]) -> Float[Array, "*batch channel"]:
        """What the codes stand for."""
        return codes @ self.concepts.astype(codes.dtype)


class Factorize(nnx.Module):
    """The factorization of a whole batch, codes and concepts both found anew at each call.

    For models that are to make activations whose concepts have some property: the derivative goes through both
    factors. Has no parameters.

    **Arguments:**

    - `rank`: how many concepts.
    - `objective`, `solver`, `start`, `adjoint`: as for `factorize`.
    """

    def __init__(
        self,
        rank: int,
        *,
        objective: Objective = SquaredError(),  # noqa: B008 (settings: frozen)
        solver: Solver = ADMM(),  # noqa: B008
        start: Start = Warmup(),  # noqa: B008
        adjoint: Adjoint = ImplicitAdjoint(),  # noqa: B008
    ) -> None:
        check_solver(solver)
        check_start(start)
        check_adjoint(adjoint)
        squared_error(objective)
        self.rank = rank_of(rank)
        # Data, not children: what's in them is differentiated through `factorize` only if the caller passes it there.
        self.objective, self.solver, self.start = nnx.data(objective), nnx.data(solver), nnx.data(start)
        self.adjoint = adjoint

    def __call__(
        self, activations: Float[Array, "*batch channel"], observed: Bool[Array, "*batch channel"] | None = None
    ) -> tuple[Float[Array, "*batch concept"], Float[Array, "concept channel"]]:
        """Codes of activations with any leading axes, and the concepts; `observed`: where none are missing."""
        rows = activations.reshape(-1, activations.shape[-1])
        solution = self.solve(rows, None if observed is None else observed.reshape(rows.shape))
        return solution.codes.reshape(*activations.shape[:-1], -1), solution.dictionary

    def solve(self, rows: Float[Array, "row channel"], observed: Bool[Array, "row channel"] | None = None) -> Solution:
        """The whole solution, with what happened on the way."""
        return factorize(
            rows,
            self.rank,
            objective=self.objective,
            solver=self.solver,
            start=self.start,
            adjoint=self.adjoint,
            observed=observed,
        )
