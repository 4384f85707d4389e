"""Heads that need more of each picture than the maps: a transformer's class token, its registers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..support.precision import full_precision


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Beside:
    """A head with the tokens that each of some pictures has beside its maps, kept as they are.

    Concepts are of a transformer's patches. Its class token and registers lie on no place of the picture: when
    activations are rebuilt from concepts, each picture keeps its own.

    **Arguments:**

    - `head`: from maps (`image y x channel`) and tokens to logits.
    - `kept`: the tokens of the pictures whose maps the head will be given, in the same order.

    **Example:**

    >>> head = fj.heads.Beside(lambda maps, kept: maps.mean((1, 2)) + kept.mean(1), jnp.ones((2, 1, 5)))
    >>> head(jnp.zeros((2, 4, 4, 5))).shape, head[:1].kept.shape
    ((2, 5), (1, 1, 5))
    """

    head: Any
    kept: Float[Array, "image token channel"]

    @property
    def affine(self) -> bool:
        """Never: logits aren't a function of averages alone."""
        return False

    @full_precision
    def __call__(self, maps: Float[Array, "..."]) -> Float[Array, "image class"]:
        """Logits of maps of these pictures, or of any number of maps of one picture, if it has the tokens of one alone.

        Raises `ValueError` for another number of maps.
        """
        pictures = self.kept.shape[0]
        if maps.ndim == 4 and pictures == 1 and maps.shape[0] != 1:
            return self.head(maps, jnp.broadcast_to(self.kept, (maps.shape[0], *self.kept.shape[1:])))
        if maps.ndim != 4 or maps.shape[0] != pictures:
            raise ValueError(
                f"maps has shape {maps.shape} and kept has the tokens of {pictures} pictures; give the maps of these "
                "pictures, image y x channel, or take the tokens of those that the maps are of: head[index]"
            )
        return self.head(maps, self.kept)

    def __getitem__(self, index: Any) -> Beside:
        """The head with the tokens of some of the pictures."""
        return Beside(self.head, self.kept[index])

    def __repr__(self) -> str:
        return f"Beside({self.head!r}, kept=... of {self.kept.shape[0]} pictures)"


def beside(head: Any, kept: Float[np.ndarray, "image token channel"] | Array | None) -> Any:
    """The head with tokens beside its maps, or as it is where it takes maps alone."""
    return head if kept is None else Beside(head, jnp.asarray(kept))


def of_pictures(head: Any, index: Any) -> Any:
    """The head for some of its pictures: what is kept beside their maps is chosen with them."""
    return head[index] if isinstance(head, Beside) else head
