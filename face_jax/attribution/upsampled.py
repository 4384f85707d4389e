"""The cheap concept map: codes on the grid, enlarged."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..nmf.encoding import encode_maps
from ..support.arguments import Count, index_or_none, real_array, several, shown, whole
from .method import Asked, CheckedMethod, at_least, parts

_LONGEST = 2**15  # pixels of a picture's side


def upsampled_codes(
    codes: Float[Array, "image y x concept"], size: int | tuple[int, int]
) -> Float[np.ndarray, "image height width concept"]:
    """Codes at the places of a feature map, enlarged bilinearly to the size of a picture.

    It says at which place of the map a concept is, no finer; what a place sees of the picture can be far larger
    than its share of the grid. `concept_gradients` says which pixels the code depends on.

    **Arguments:**

    - `codes`: how much of each concept is at each place.
    - `size`: the map's height and width in pixels, or both in one number.

    **Returns:** one map a concept and image.

    **Example:**

    >>> fj.attribution.upsampled_codes(jnp.asarray(explanation.codes[:1]), 16).shape
    (1, 16, 16, 4)
    """
    codes = jnp.asarray(real_array("codes", codes, "image × y × x × concept", finite=False))
    sides = (size, size) if index_or_none(size) is not None else several("size", size, "lengths, or one number")
    if len(sides) != 2:
        raise ValueError(f"size={shown(size)} isn't a height and a width; give two numbers, or one for both")
    height, width = (whole("size", side, "pixels", least=1, most=_LONGEST) for side in sides)
    return np.moveaxis(enlarged(jnp.moveaxis(codes, -1, 0), height, width), 0, -1)


def enlarged(maps: Float[Array, "some image y x"], height: int, width: int) -> Float[np.ndarray, "some image h w"]:
    """Maps on a layer's grid, enlarged bilinearly."""
    return np.asarray(jax.image.resize(maps, (*maps.shape[:2], height, width), "bilinear"))


@dataclasses.dataclass(frozen=True)
class Codes(CheckedMethod):
    """The codes at the layer's places, enlarged: no attribution method, but where the layer itself has the concept.

    Costs one forward pass. What a place sees of the picture can be far larger than its share of the grid.

    **Arguments:**

    - `batch`: pictures that go through the network together.
    """

    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("batch", self.batch, 1)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, never negative. Places' codes, so `pooled` says nothing here."""
        pictures = asked.pictures
        found = []
        for part in parts(len(pictures), self.batch):
            maps = np.asarray(asked.model.features(pictures[part]))
            codes = encode_maps(maps, np.asarray(asked.dictionary))[..., asked.concepts]
            found.append(enlarged(jnp.asarray(np.moveaxis(codes, -1, 0)), pictures.shape[1], pictures.shape[2]))
        return np.concatenate(found, axis=1).astype(pictures.dtype, copy=False)
