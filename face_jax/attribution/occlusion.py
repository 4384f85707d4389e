"""What a concept loses when a patch of the picture is hidden."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..support.arguments import Count
from .baseline import Baseline
from .method import Asked, CheckedMethod, at_least, parts
from .perturbed import perturbed_codes, picture_codes


@dataclasses.dataclass(frozen=True)
class Occlusion(CheckedMethod):
    """The mean, over the patches that cover a pixel, of `U_k(X) − U_k(X with the patch hidden)` (Zeiler & Fergus 2014).

    Patches are squares at regular steps; the last ones lie flush with the edges, so that every pixel is covered.

    **Arguments:**

    - `patch`: a patch's side, in pixels.
    - `stride`: from one patch to the next, in pixels; at most `patch`.
    - `baseline`: network input that hides: a number, a colour, pictures, or a function of the pictures such as
        `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    patch: Count = 32
    stride: Count = 16
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("patch", self.patch, 1)
        at_least("stride", self.stride, 1)
        at_least("batch", self.batch, 1)
        if self.stride > self.patch:
            raise ValueError(
                f"stride={self.stride} leaves pixels between patches of {self.patch}; give at most {self.patch}"
            )

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, of either sign. Nothing is random."""
        pictures = asked.pictures
        chosen = asked.concepts
        height, width = pictures.shape[1:3]
        if self.patch > min(height, width):
            raise ValueError(
                f"patch={self.patch} is larger than images of {height} × {width}; give at most {min(height, width)}"
            )
        starts = [self._starts(length) for length in (height, width)]
        slices = parts(len(pictures), self.batch)
        whole = np.concatenate([picture_codes(asked, pictures[part]) for part in slices])[:, chosen]
        lost, cover = np.zeros((len(chosen), len(pictures), height, width), whole.dtype), np.zeros((height, width))
        for _, masks, codes in perturbed_codes(
            asked,
            self.baseline,
            count=len(starts[0]) * len(starts[1]),
            masks=lambda part: jnp.asarray(self._masks(part, starts, (height, width)), pictures.dtype),
            batch=self.batch,
        ):
            hidden = 1 - np.asarray(masks, whole.dtype)
            lost += np.einsum("nmk,myx->knyx", whole[:, None] - codes[..., chosen], hidden, optimize=True)
            cover += hidden.sum(0)
        return (lost / cover).astype(pictures.dtype)

    def _starts(self, length: int) -> Int[np.ndarray, " start"]:
        """Where patches begin along one side."""
        return np.unique(np.append(np.arange(0, length - self.patch + 1, self.stride), length - self.patch))

    def _masks(
        self, part: slice, starts: list[Int[np.ndarray, " _"]], shape: tuple[int, int]
    ) -> Bool[np.ndarray, "patch height width"]:
        """1 everywhere but in one patch, for each patch of a part of them: all are gigabytes where steps are small."""
        numbers = np.divmod(np.arange(part.start, part.stop), len(starts[1]))
        rows, columns = (
            (np.arange(length) >= first[number][:, None]) & (np.arange(length) < first[number][:, None] + self.patch)
            for length, first, number in zip(shape, starts, numbers, strict=True)
        )
        return ~(rows[:, :, None] & columns[:, None, :])
