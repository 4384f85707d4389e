"""Positive and negative activations as channels of their own: a plain non-negative factorization of a signed layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .heads.affine import Affine
from .model import Head, SplitModel, check_model

_MARK = ", signs apart"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Difference:
    """A head of channels twice over: the difference of the two halves goes to the head inside.

    **Arguments:**

    - `head`: from activations to logits.
    """

    head: Any

    @property
    def affine(self) -> bool:
        """As the head inside: a difference is linear."""
        return self.head.affine

    def __call__(self, maps: Float[Array, "..."], *tokens: Array) -> Float[Array, "image class"]:
        """Logits of maps with the negative parts' channels behind the positive ones'; of tokens beside them as is."""
        if maps.shape[-1] % 2:
            raise ValueError(f"maps has {maps.shape[-1]} channels, which aren't two halves; give both parts of each")
        positive, negative = jnp.split(maps, 2, axis=-1)
        return self.head(positive - negative, *tokens)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Features in JAX, and behind them the parts of what they give; differentiable wherever the features are."""

    features: Callable[..., Any]

    def __call__(self, images: Any) -> Float[Array, "image y x channel"]:
        return parts_of(self.features(images))


@dataclasses.dataclass(frozen=True)
class _PartsWithTokens:
    """Features with tokens beside the maps, which stay as they are."""

    with_tokens: Callable[..., Any]

    def __call__(self, images: Any) -> tuple[Float[Array, "image y x channel"], Array]:
        maps, tokens = self.with_tokens(images)
        return parts_of(maps), tokens


class _PartsWithPullback(_Parts):
    """The same around features that bring a method `vjp` of their own."""

    def vjp(self, images: Any) -> tuple[Float[Array, "image y x channel"], Callable[[Array], Any]]:
        maps, pullback = self.features.vjp(images)  # pyright: ignore[reportFunctionMemberAccess]
        both, inside = jax.vjp(parts_of, maps)
        return both, lambda cotangent: pullback(inside(cotangent)[0])


def parts_of(maps: Float[Array, "*place channel"]) -> Float[Array, "*place twice"]:
    """`[max(A, 0), max(−A, 0)]`, channels last."""
    maps = jnp.asarray(maps)
    return jnp.concatenate([jax.nn.relu(maps), jax.nn.relu(-maps)], axis=-1)


def signs_apart(model: SplitModel) -> SplitModel:
    """The same classifier with positive and negative activations as channels of their own, all of them at least 0.

    An alternative to concepts of either sign where a layer has activations below zero: `A = A⁺ − A⁻`, and concepts are
    those of the non-negative `[A⁺, A⁻]`, twice as many channels. The logits stay what they are, and an affine head
    stays affine. Earlier layers of `recurse` and stages of `sanity_check` are to be made of models cut apart alike.

    **Arguments:**

    - `model`: the split classifier.

    **Returns:** the split classifier whose layer has both parts; it explains, is saved and is loaded like any other
    (`load` takes the model itself, too). Raises `ValueError` for one whose signs are apart already.

    **Example:**

    >>> inputs = model.preprocess(images[:2])
    >>> fj.signs_apart(model).features(inputs).shape[-1] == 2 * model.features(inputs).shape[-1]
    True
    """
    check_model(model)
    if model.fingerprint.endswith(_MARK):
        raise ValueError(f"model={model.name} at layer={model.layer!r} has its signs apart already; give it as it is")
    return dataclasses.replace(
        model,
        features=_features_apart(model.features, tokens=model.with_tokens is not None),
        with_tokens=None if model.with_tokens is None else _PartsWithTokens(model.with_tokens),
        head=_head_apart(model.head),
        fingerprint=model.fingerprint + _MARK,
        lowest=0.0,
        notes=(
            *model.notes,
            f"Positive and negative activations of layer {model.layer} are channels of their own: the first half of a "
            "concept is what it adds, the second half what it takes away.",
        ),
    )


def as_explained(model: SplitModel, fingerprint: str) -> SplitModel:
    """The model, or the model with its signs apart if that's the one of the fingerprint."""
    return signs_apart(model) if fingerprint == model.fingerprint + _MARK else model


def _features_apart(features: Callable[..., Any], *, tokens: bool) -> Callable[..., Any]:
    # Those of another framework may do it there, where their other methods see it too; tokens beside stay whole.
    own = None if tokens else getattr(features, "signs_apart", None)
    if own is not None:
        return own()
    return (_Parts if getattr(features, "vjp", None) is None else _PartsWithPullback)(features)


def _head_apart(head: Head) -> Head:
    if isinstance(head, Affine):
        kernel = jnp.asarray(head.kernel)
        return dataclasses.replace(head, kernel=jnp.concatenate([kernel, -kernel]))
    return Difference(head)
