"""FACE's term of the objective: what the classifier says of the rebuilt activations is what it said of the original."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..heads import Beside
from ..heads.affine import affine_map
from ..linalg.row_shards import by_shard, row_shards
from ..nmf.objective import Local, Term
from .checks import check, check_finite, check_settings, weights_as_array
from .lambda_units import InSums, Unit
from .losses import ForwardKL, Loss
from .prepared import Kept, Logits, Prepared, Unkept

Codes = Float[Array, "row concept"]
Dictionary = Float[Array, "concept channel"]
if TYPE_CHECKING:
    Weights = Float[Array, " image"] | Float[np.ndarray, " image"] | Sequence[float] | None
else:
    # Whoever gives something else is told so by the checks.
    Weights = Any
_FORWARD_KL, _IN_SUMS = ForwardKL(), InSums()  # both without state
_TOGETHER = 1024  # rows whose predictions are looked at together where they aren't kept


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Faithfulness(Term):
    """`Σ loss(head(A), head(U Wᵀ))` over the images: rebuilt activations keep the classifier's prediction.

    `SquaredError() + λ * Faithfulness(head)` is FACE's objective (eq. 2 of arXiv 2510.11675). Rows are pooled crops
    or images, one prediction each; or places of maps, all places of an image one after the other. For a head that
    is affine after pooling the work is done on `concept × class` matrices and each factor's problem is convex (with
    every loss but `ReverseKL`); any other head is linearized where it's used.

    **Arguments:**

    - `head`: from activations to logits, a pure JAX function or a pytree that can be called. Numbers that are
        differentiated or traced have to be a pytree's leaves, such as `jax.tree_util.Partial(function, kernel)` or
        `Affine(kernel, bias)`; what a function closes over is constant. Give the same function again and again: a new
        one is compiled anew.
    - `loss`: `ForwardKL()`, `ReverseKL()`, `SquaredLogits()`, or `SigmoidKL()` for labels (`MultiLabel`).
    - `unit`: what λ means: `InSums()` as in the formula, `InMeans()` as in the published code.
    - `weights`: each image's factor, at least 0; 0 leaves its prediction out. Ones if None.
    - `grid`: height and width of the maps that the rows are places of. None: the head takes rows as they are, as
        `Affine(places=...)` does.
    - `keep_predictions`: whether the original logits are kept, `image × class`. If not, they are computed again
        wherever a block of rows needs them: slower by a product of rows, channels and classes each time, and no
        memory grows with rows × classes.
    """

    head: Any
    loss: Loss = _FORWARD_KL
    unit: Unit = _IN_SUMS
    weights: Weights = None
    grid: tuple[int, int] | None = dataclasses.field(default=None, metadata={"static": True})
    keep_predictions: bool = dataclasses.field(default=True, metadata={"static": True})

    def __post_init__(self) -> None:
        if self.head is None:
            raise ValueError(
                "head=None: faithfulness compares a classifier's predictions; give the head, such as model.head or "
                "face_jax.heads.Affine(kernel, bias)"
            )
        if callable(self.head) and jax.tree.leaves([self.head]) == [self.head]:
            if hasattr(self.head, "affine"):
                raise ValueError(
                    f"head is a {type(self.head).__name__}, whose numbers JAX can't pass to programs; make it a pytree "
                    "with jax.tree_util.register_dataclass, or a flax.nnx.Module"
                )
            # A plain function has no leaves; jit has to know that.
            object.__setattr__(self, "head", jax.tree_util.Partial(self.head))
        check_settings(self)
        object.__setattr__(self, "weights", weights_as_array(self.weights))

    def __repr__(self) -> str:
        # Without the head's and the images' numbers, which can be millions.
        weighted = "" if self.weights is None else ", weights=..."
        grid = "" if self.grid is None else f", grid={self.grid}"
        return f"Faithfulness({type(self.head).__name__}(...), loss={self.loss}, unit={self.unit}{weighted}{grid})"

    @property
    def affine(self) -> bool:
        """Whether the head is known to be affine after pooling."""
        return bool(getattr(self.head, "affine", False))

    @property
    def places(self) -> int:
        """Rows of one image."""
        return int(getattr(self.head, "places", 1)) if self.grid is None else math.prod(self.grid)

    @property
    def scale_free(self) -> bool:
        """True: the head sees the factors' product."""
        return True

    @property
    def convex_in_codes(self) -> bool:
        """Whether the head is affine and the loss convex in the logits."""
        return self.affine and self.loss.convex

    def rows_together(self, rows: int) -> int:
        """The rows of one image."""
        del rows
        return self.places

    def counted(self, prepared: Prepared, counts: Float[Array, " image"]) -> Prepared:
        """The images' weights multiplied."""
        return dataclasses.replace(prepared, weights=prepared.weights * counts)

    def of_groups(self, groups: Int[np.ndarray, " some"], total: int) -> Faithfulness:
        """The term for some of the images: with their weights, and their tokens if the head has such beside it.

        Raises `ValueError` for another number of weights, or of images with tokens, than there are images.
        """
        weights, head = self.weights, self.head
        if weights is not None:
            if np.shape(weights) != (total,):
                raise ValueError(
                    f"weights has shape {np.shape(weights)}, but there are {total} images of {self.places} rows; give "
                    "one weight an image"
                )
            weights = np.asarray(weights)[groups]
        if isinstance(head, Beside):
            if len(head.kept) != total:
                raise ValueError(f"head has the tokens of {len(head.kept)} images, and there are {total}; give as many")
            head = head[groups]
        return dataclasses.replace(self, head=head, weights=weights, keep_predictions=True)

    def check(self, activations: Float[Array, "row channel"]) -> None:
        """Raise `ValueError` unless head, weights and activations fit together."""
        check(self, activations)

    def check_prepared(self, prepared: Prepared | Unkept) -> None:
        """Raise `ValueError` if the original predictions are NaN."""
        check_finite(prepared.finite, "activations")

    # `Unkept` if they aren't; who reads types would have to tell the two apart where only the first can be.
    def prepare(self, activations: Float[Array, "row channel"]) -> Prepared | Any:
        """The original predictions if they are kept, and the weights in the formula's unit."""
        rows, channels = activations.shape
        images = rows // self.places
        scale = self.unit.scale(rows, channels, images)
        weights = jnp.full((images,), scale, activations.dtype)
        if self.weights is not None:
            weights = weights * jnp.asarray(self.weights, activations.dtype)
        if self.keep_predictions:
            return Prepared(self.loss.target(self.logits(activations)), weights, self._kept)
        shards = row_shards(images)
        mine = images // shards
        size = min(mine, max(1, _TOGETHER // self.places))

        def finite(activations: Array, kept: Kept) -> Bool[Array, " image"]:
            def look(block: Array, found: Bool[Array, " image"]) -> Bool[Array, " image"]:
                # The last block is moved back so that all are equally long.
                start = jnp.minimum(block * size, mine - size)
                rows = jax.lax.dynamic_slice_in_dim(activations, start * self.places, size * self.places)
                some = None if kept is None else jax.lax.dynamic_slice_in_dim(kept, start, size)
                finite = jnp.isfinite(self.logits(rows, some)).all(axis=1)
                return jax.lax.dynamic_update_slice_in_dim(found, finite, start, axis=0)

            return jax.lax.fori_loop(0, -(-mine // size), look, jnp.ones(mine, bool))

        if shards == 1:
            return Unkept(finite(activations, self._kept), weights, self._kept)
        # Each device looks at its own images.
        kept = None if self._kept is None else by_shard(self._kept, shards)
        return Unkept(jax.vmap(finite)(by_shard(activations, shards), kept).reshape(-1), weights, self._kept)

    def recalled(self, prepared: Prepared | Unkept, activations: Float[Array, "row channel"]) -> Prepared:
        """With the original predictions of these rows."""
        if isinstance(prepared, Prepared):
            return prepared
        target = self.loss.target(self.logits(activations, prepared.kept))
        return Prepared(target, prepared.weights, prepared.kept)

    @property
    def _kept(self) -> Kept:
        return self.head.kept if isinstance(self.head, Beside) else None

    def logits(self, activations: Float[Array, "row channel"], kept: Kept = None) -> Float[Array, "..."]:
        """What the head says of rows, as its own type gives it; `kept` are the tokens of these rows' images alone."""
        if self.affine:
            kernel, bias = self.kernel(activations.shape[1], activations.dtype)
            return self.pool(activations) @ kernel + bias[None]
        return self._network(activations, kept)

    def kernel(self, channels: int, dtype: Any) -> tuple[Float[Array, "channel class"], Float[Array, " class"]]:
        """The affine map behind the pooling, read off unless the head says it."""
        return affine_map(self.head, channels, dtype)

    def pool(self, rows: Float[Array, "row concept"]) -> Float[Array, "image concept"]:
        """Averages over each image's rows."""
        return rows if self.places == 1 else jnp.mean(rows.reshape(-1, self.places, rows.shape[-1]), axis=1)

    def value(self, prepared: Prepared, codes: Codes, dictionary: Dictionary) -> Float[Array, ""]:
        """The weighted sum over the images."""
        return jnp.sum(self.values(prepared, codes, dictionary))

    def values(self, prepared: Prepared, codes: Codes, dictionary: Dictionary) -> Float[Array, " image"]:
        """The weighted loss of each image."""
        return prepared.weights * self.loss.values(prepared.target, self.rebuilt(codes, dictionary, prepared.kept))

    def rebuilt(self, codes: Codes, dictionary: Dictionary, kept: Kept = None) -> Logits:
        """What the head says of `codes @ dictionary`; `kept` as for `logits`."""
        if self.affine:
            kernel, bias = self.kernel(dictionary.shape[1], codes.dtype)
            return self.pool(codes) @ (dictionary @ kernel) + bias[None]
        return self._network(codes @ dictionary, kept)

    def gradient(self, prepared: Prepared, codes: Codes, dictionary: Dictionary) -> tuple[Codes, Dictionary]:
        """Gradients with respect to codes and dictionary."""
        if not self.affine:
            return jax.grad(self.value, argnums=(1, 2))(prepared, codes, dictionary)
        return (
            self.local_codes(prepared, codes, dictionary).slope,
            self.local_dictionary(prepared, codes, dictionary).slope,
        )

    def local_codes(self, prepared: Prepared, codes: Codes, dictionary: Dictionary) -> Local:
        """The quadratic model in the codes."""
        if not self.affine:
            return self._linearized(prepared, lambda u: self._network(u @ dictionary, prepared.kept), codes)
        kernel, bias = self.kernel(dictionary.shape[1], codes.dtype)
        seen = dictionary @ kernel
        logits = self.pool(codes) @ seen + bias[None]
        curve = self.loss.curvature(prepared.target, logits)
        weights = prepared.weights[:, None]

        def back(slopes: Logits) -> Codes:
            per_image = (weights * slopes) @ seen.T
            if self.places == 1:
                return per_image
            return jnp.repeat(per_image / self.places, self.places, axis=0)

        like = self.loss.mean_curvature(prepared.target, logits, seen) * (jnp.mean(prepared.weights) / self.places)
        return Local(back(self.loss.slope(prepared.target, logits)), lambda v: back(curve(self.pool(v) @ seen)), like)

    def local_dictionary(self, prepared: Prepared, codes: Codes, dictionary: Dictionary) -> Local:
        """The quadratic model in the dictionary."""
        if not self.affine:
            return self._linearized(prepared, lambda w: self._network(codes @ w, prepared.kept), dictionary)
        kernel, bias = self.kernel(dictionary.shape[1], codes.dtype)
        pooled = self.pool(codes)
        logits = pooled @ (dictionary @ kernel) + bias[None]
        curve = self.loss.curvature(prepared.target, logits)
        weighted = pooled * prepared.weights[:, None]

        def back(slopes: Logits) -> Dictionary:
            return (weighted.T @ slopes) @ kernel.T

        return Local(back(self.loss.slope(prepared.target, logits)), lambda v: back(curve(pooled @ (v @ kernel))))

    def local_both(
        self, prepared: Prepared, codes: Codes, dictionary: Dictionary
    ) -> Callable[[Array, Array], tuple[Array, Array]]:
        """Gauss–Newton products in both factors together."""
        logits, push = jax.linearize(lambda u, w: self.rebuilt(u, w, prepared.kept), codes, dictionary)
        pull = jax.linear_transpose(push, codes, dictionary)
        curve = self.loss.curvature(prepared.target, logits)
        weights = prepared.weights[:, None]
        return lambda v, x: pull(weights * curve(push(v, x)))

    def _linearized(self, prepared: Prepared, predict: Callable[[Array], Logits], factor: Array) -> Local:
        """Gauss–Newton: the loss's curvature seen through the head's derivative."""
        logits, push = jax.linearize(predict, factor)
        pull = jax.linear_transpose(push, factor)
        curve = self.loss.curvature(prepared.target, logits)
        weights = prepared.weights[:, None]
        slope = pull(weights * self.loss.slope(prepared.target, logits))[0]
        return Local(slope, lambda v: pull(weights * curve(push(v)))[0])

    def _network(self, rows: Float[Array, "row channel"], kept: Kept) -> Float[Array, "..."]:
        return self.said(rows, kept).astype(rows.dtype)

    def said(self, rows: Float[Array, "row channel"], kept: Kept = None) -> Any:
        """What the head returns for rows, or for the maps that they are places of; `kept` as for `logits`."""
        head = self.head if kept is None else Beside(self.head.head, kept)
        return head(rows if self.grid is None else rows.reshape(-1, *self.grid, rows.shape[-1]))


def check_weighed(term: Any, activations: Any, name: str) -> None:
    """What `check` refuses, and `ValueError` for another kind of term, or for one that weighs no image."""
    if not isinstance(term, Faithfulness):
        raise ValueError(f"term is a {type(term).__name__}; give a Faithfulness, such as Faithfulness(model.head)")
    check(term, activations, name)
    if term.weights is not None and not (np.asarray(term.weights) > 0).any():
        raise ValueError(f"the weights of all images of {name} are 0; give some image a weight above 0")
