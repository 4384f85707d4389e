"""Positive and negative activations as channels of their own: a plain non-negative factorization of a signed layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .heads.affine import Affine
from .model import Head, SplitModel, check_model
from .nmf.options import AnySolver
from .support.arguments import shown

if TYPE_CHECKING:
    Signs = Literal["apart", "mixed"]
else:
    # Whoever gives something else is told so in words.
    Signs = Any
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
class Parts:
    """Features in JAX, and behind them the parts of what they give; differentiable wherever the features are."""

    features: Callable[..., Any]

    def __call__(self, images: Any) -> Float[Array, "image y x channel"]:
        """Both parts of what the features give for network input."""
        return parts_of(self.features(images))


@dataclasses.dataclass(frozen=True)
class _PartsWithTokens:
    """Features with tokens beside the maps, which stay as they are."""

    with_tokens: Callable[..., Any]

    def __call__(self, images: Any) -> tuple[Float[Array, "image y x channel"], Array]:
        maps, tokens = self.with_tokens(images)
        return parts_of(maps), tokens


class _PartsWithPullback(Parts):
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

    An alternative to concepts of either sign where a layer has activations below zero, and what `explain` makes of it
    for `signs="apart"`: `A = A⁺ − A⁻`, and concepts are those of the non-negative `[A⁺, A⁻]`, twice as many channels.
    Nothing is lost: the logits stay what they are, and an affine head stays affine.

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
    if are_apart(model):
        raise ValueError(f"model={model.name} at layer={model.layer!r} has its signs apart already; give it as it is")
    return dataclasses.replace(
        model,
        features=_features_apart(model.features, tokens=model.with_tokens is not None),
        with_tokens=None if model.with_tokens is None else _PartsWithTokens(model.with_tokens),
        head=_head_apart(model.head),
        fingerprint=model.fingerprint + _MARK,
        lowest=0.0,
    )


def are_apart(model: SplitModel) -> bool:
    """Whether a model is one of `signs_apart`."""
    return model.fingerprint.endswith(_MARK)


def as_explained(model: SplitModel, fingerprint: str) -> SplitModel:
    """The model, or the model with its signs apart if that's the one of the fingerprint."""
    return signs_apart(model) if fingerprint == model.fingerprint + _MARK else model


def signs_for(
    signs: Signs | None, solver: AnySolver | None, models: Sequence[SplitModel], usual: Signs = "mixed"
) -> Signs:
    """How a layer with activations below zero is explained.

    **Arguments:**

    - `signs`: the way that was asked for, or None.
    - `models`: those it's asked for.
    - `solver`: the solver that was asked for, or None. `SemiNMF` finds concepts of either sign.
    - `usual`: the way if nothing says another.

    **Returns:** the way. Raises `ValueError` for another word, and for concepts of either sign in parts of one sign.
    """
    if signs is None:
        return "mixed" if solver is not None and solver.signed_dictionary else usual
    if not isinstance(signs, str) or signs not in ("apart", "mixed"):
        raise ValueError(f"signs={shown(signs)} is neither 'apart' nor 'mixed'; give one of these, or leave it out")
    if signs == "apart" and solver is not None and solver.signed_dictionary:
        raise ValueError(
            f"signs='apart' finds concepts of positive and negative parts, all at least 0, and solver="
            f"{type(solver).__name__}() finds concepts of either sign; give one of the two"
        )
    for model in models if signs == "mixed" else ():
        if are_apart(model):
            raise ValueError(
                f"signs='mixed' is asked for, and model={model.name} at layer={model.layer!r} has its signs apart "
                "already; give the model that signs_apart was given"
            )
    return signs


def without_negative(parts: Float[np.ndarray, "*place twice"]) -> Float[np.ndarray, "*place channel"] | None:
    """What was put apart, if no activation was below zero; averages over places know it, too. None if any was."""
    positive, negative = np.split(parts, 2, axis=-1)
    return None if negative.any() else positive


def _features_apart(features: Callable[..., Any], *, tokens: bool) -> Callable[..., Any]:
    # Those of another framework may do it there, where their other methods see it too; tokens beside stay whole.
    own = None if tokens else getattr(features, "signs_apart", None)
    if own is not None:
        return own()
    return (Parts if getattr(features, "vjp", None) is None else _PartsWithPullback)(features)


def _head_apart(head: Head) -> Head:
    if isinstance(head, Affine):
        kernel = jnp.asarray(head.kernel)
        return dataclasses.replace(head, kernel=jnp.concatenate([kernel, -kernel]))
    return Difference(head)
