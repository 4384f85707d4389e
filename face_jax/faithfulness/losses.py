"""How far rebuilt predictions are from the original ones: losses of logits, all with one interface."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..outputs import MultiClass, MultiLabel, Outputs

Logits = Float[Array, "image class"]


class Loss(abc.ABC):
    """A distance of logits from those of the original activations, image by image."""

    @property
    def convex(self) -> bool:
        """Whether it is known to be convex in the logits."""
        return False

    @abc.abstractmethod
    def target(self, logits: Logits) -> Logits:
        """What is remembered of the original logits."""

    @abc.abstractmethod
    def values(self, target: Logits, logits: Logits) -> Float[Array, " image"]:
        """The loss of each image."""

    @abc.abstractmethod
    def slope(self, target: Logits, logits: Logits) -> Logits:
        """Its derivative by the logits."""

    @abc.abstractmethod
    def curvature(self, target: Logits, logits: Logits) -> Callable[[Logits], Logits]:
        """Products with a positive semidefinite matrix that is, or stands for, its second derivative."""

    @abc.abstractmethod
    def mean_curvature(
        self, target: Logits, logits: Logits, directions: Float[Array, "concept class"]
    ) -> Float[Array, "concept concept"]:
        """That matrix seen by some directions in the logits, averaged over the images."""


@dataclasses.dataclass(frozen=True)
class SoftmaxLoss(Loss):
    """A divergence between the classes' probabilities, whose curvature is, or stands for, `diag q − q qᵀ`."""

    def target(self, logits: Logits) -> Logits:
        """`log p`."""
        return jax.nn.log_softmax(logits, axis=-1)

    def curvature(self, target: Logits, logits: Logits) -> Callable[[Logits], Logits]:
        """`diag q − q qᵀ`: positive semidefinite everywhere, and every divergence's second derivative where q = p."""
        q = jax.nn.softmax(logits, axis=-1)
        return lambda v: q * (v - jnp.sum(q * v, axis=-1, keepdims=True))

    def mean_curvature(
        self, target: Logits, logits: Logits, directions: Float[Array, "concept class"]
    ) -> Float[Array, "concept concept"]:
        """The mean of `M (diag q − q qᵀ) Mᵀ`."""
        q = jax.nn.softmax(logits, axis=-1)
        seen = q @ directions.T
        return (directions * jnp.mean(q, axis=0)[None]) @ directions.T - seen.T @ seen / q.shape[0]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ForwardKL(SoftmaxLoss):
    """`KL(p ‖ q)`, p the original prediction and q the rebuilt one, in nats (FACE, eq. 2).

    Convex in the logits; the curvature is its second derivative.
    """

    @property
    def convex(self) -> bool:
        """True."""
        return True

    def values(self, target: Logits, logits: Logits) -> Float[Array, " image"]:
        """`Σ p (log p − log q)`."""
        return jnp.sum(jnp.exp(target) * (target - jax.nn.log_softmax(logits, axis=-1)), axis=-1)

    def slope(self, target: Logits, logits: Logits) -> Logits:
        """`q − p`."""
        return jax.nn.softmax(logits, axis=-1) - jnp.exp(target)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ReverseKL(SoftmaxLoss):
    """`KL(q ‖ p)`, p the original prediction and q the rebuilt one, in nats. Not convex in the logits."""

    def values(self, target: Logits, logits: Logits) -> Float[Array, " image"]:
        """`Σ q (log q − log p)`."""
        log_q = jax.nn.log_softmax(logits, axis=-1)
        return jnp.sum(jnp.exp(log_q) * (log_q - target), axis=-1)

    def slope(self, target: Logits, logits: Logits) -> Logits:
        """`q (log q − log p − KL)`."""
        log_q = jax.nn.log_softmax(logits, axis=-1)
        q, ratio = jnp.exp(log_q), log_q - target
        return q * (ratio - jnp.sum(q * ratio, axis=-1, keepdims=True))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SquaredLogits(Loss):
    """`½ Σ (logit − original logit)²`, over the classes."""

    @property
    def convex(self) -> bool:
        """True."""
        return True

    def target(self, logits: Logits) -> Logits:
        """The logits."""
        return logits

    def values(self, target: Logits, logits: Logits) -> Float[Array, " image"]:
        """Half the squared distance."""
        return jnp.sum((logits - target) ** 2, axis=-1) / 2

    def slope(self, target: Logits, logits: Logits) -> Logits:
        """The difference."""
        return logits - target

    def curvature(self, target: Logits, logits: Logits) -> Callable[[Logits], Logits]:
        """The identity."""
        return lambda v: v

    def mean_curvature(
        self, target: Logits, logits: Logits, directions: Float[Array, "concept class"]
    ) -> Float[Array, "concept concept"]:
        """`M Mᵀ`."""
        return directions @ directions.T


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class SigmoidKL(Loss):
    """For models of several labels (attributes): the sum of the labels' `KL(p ‖ q)`, each yes or no. Convex."""

    @property
    def convex(self) -> bool:
        """True."""
        return True

    def target(self, logits: Logits) -> Logits:
        """The logits."""
        return logits

    def values(self, target: Logits, logits: Logits) -> Float[Array, " image"]:
        """`Σ p log p/q + (1 − p) log (1 − p)/(1 − q)`."""
        p = jax.nn.sigmoid(target)
        yes = jax.nn.log_sigmoid(target) - jax.nn.log_sigmoid(logits)
        no = jax.nn.log_sigmoid(-target) - jax.nn.log_sigmoid(-logits)
        return jnp.sum(p * yes + (1 - p) * no, axis=-1)

    def slope(self, target: Logits, logits: Logits) -> Logits:
        """`q − p`."""
        return jax.nn.sigmoid(logits) - jax.nn.sigmoid(target)

    def curvature(self, target: Logits, logits: Logits) -> Callable[[Logits], Logits]:
        """`q (1 − q)`, exactly."""
        weight = jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
        return lambda v: weight * v

    def mean_curvature(
        self, target: Logits, logits: Logits, directions: Float[Array, "concept class"]
    ) -> Float[Array, "concept concept"]:
        """The mean of `M diag(q (1 − q)) Mᵀ`."""
        weight = jnp.mean(jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits), axis=0)
        return (directions * weight[None]) @ directions.T


def loss_for(outputs: Outputs) -> Loss:
    """The loss that keeps predictions: `SigmoidKL()` of several labels, else `ForwardKL()`."""
    return ForwardKL() if outputs.exclusive else SigmoidKL()


def outputs_for(loss: Loss) -> Outputs:
    """What logits mean to a loss, where nobody says it: labels to `SigmoidKL`, else exclusive classes."""
    return MultiLabel() if isinstance(loss, SigmoidKL) else MultiClass()
