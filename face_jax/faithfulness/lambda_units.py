"""Units of λ: the paper's formula (sums), or the published code (means)."""

from __future__ import annotations

import abc
import dataclasses

import jax


class Unit(abc.ABC):
    """How a loss per image is scaled before λ weighs it against `½ ‖A − U Wᵀ‖²`."""

    @abc.abstractmethod
    def scale(self, rows: int, channels: int, images: int) -> float:
        """What the sum of the images' losses is multiplied with."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class InSums(Unit):
    """λ as in the formula: `½ ‖A − U Wᵀ‖² + λ Σ loss` (FACE, eq. 2), sums over rows and images."""

    def scale(self, rows: int, channels: int, images: int) -> float:
        """1."""
        del rows, channels, images
        return 1.0


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class InMeans(Unit):
    """λ as in the published code: mean squared error plus λ times the mean loss of an image.

    Multiplied by half the number of entries this is the formula with `λ · p/2` for pooled rows (p channels), and
    with `places` times that for maps. The papers' values (1e-5 for ImageNet, 1e5 for CelebA) are in this unit.
    """

    def scale(self, rows: int, channels: int, images: int) -> float:
        """`p/2`, for maps times the places of one."""
        return channels * (rows / images) / 2
