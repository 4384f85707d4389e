"""Methods that others have: components that are principal, robust or independent, and means of clusters."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float, Key

from ..support.arguments import Count, Number, check_count, flag, real, text
from ..support.randomness import seed_from
from .bank import Bank, averages_of, check_few, places_of
from .inference import NearestConcept
from .packages import scikit_learn


@dataclasses.dataclass(frozen=True)
class _OfRows:
    """What these have in common: averages of crops or pictures are their rows, or every place is."""

    places: bool = False
    name: str = "rows"
    # Whether there can be no more concepts than channels.
    _of_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        flag("places", self.places)

    def check_rank(self, rank: Any, shape: tuple[int, ...]) -> int:
        """The rank; raises `ValueError` for more than activations of the shape allow."""
        return check_few(rank, shape, of=self.name, places=self.places, channels=self._of_channels)

    def rows(self, activations: Any) -> Float[np.ndarray, "row channel"]:
        """The rows."""
        return places_of(activations) if self.places else averages_of(activations)


@dataclasses.dataclass(frozen=True)
class PCA(_OfRows):
    """Principal components about the mean, scikit-learn's; codes of either sign.

    **Arguments:**

    - `places`: whether every place is a row; averages of crops or pictures are if not.
    - `name`: what tables call it.
    """

    name: str = "PCA"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """The directions of the largest variance."""
        rows = self.rows(activations)
        rank = self.check_rank(rank, np.shape(activations))
        scikit_learn(self.name)
        from sklearn import decomposition

        found = decomposition.PCA(rank, svd_solver="full").fit(rows)
        return Bank(np.asarray(found.components_), self.name, offset=found.mean_, signed_codes=True)


@dataclasses.dataclass(frozen=True)
class ICA(_OfRows):
    """Independent components about the mean, scikit-learn's FastICA; codes of either sign.

    Concepts are the columns of its mixing matrix, so that codes of unit variance rebuild the activations.

    **Arguments:**

    - `places`, `name`: as for `PCA`.
    - `max_steps`: of the fixed point; what it has by then is taken.
    """

    name: str = "ICA"
    max_steps: Count = 500

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """The directions along which activations are least like normal numbers."""
        rows = self.rows(activations)
        rank = self.check_rank(rank, np.shape(activations))
        steps = check_count("max_steps", self.max_steps, "steps")
        scikit_learn(self.name)
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        seed = seed_from(key)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = FastICA(rank, whiten="unit-variance", max_iter=steps, random_state=seed).fit(rows)
        return Bank(np.asarray(found.mixing_).T, self.name, offset=found.mean_, signed_codes=True)


@dataclasses.dataclass(frozen=True)
class KMeans(_OfRows):
    """Means of clusters, scikit-learn's k-means with ten starts.

    By its own inference each place is the nearest mean. By that of all methods, places are sums of means.

    **Arguments:**

    - `places`, `name`: as for `PCA`.
    """

    name: str = "k-means"
    _of_channels: ClassVar[bool] = False

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Cluster."""
        rows = self.rows(activations)
        rank = self.check_rank(rank, np.shape(activations))
        return Bank(clustered(rows, rank, key, self.name)[0], self.name, inference=NearestConcept())


def clustered(
    rows: Float[np.ndarray, "row channel"], rank: int, key: Key[Array, ""], name: str
) -> tuple[Float[np.ndarray, "concept channel"], Float[np.ndarray, "row concept"]]:
    """Means of clusters, and the distance of each row from each."""
    scikit_learn(name)
    from sklearn.cluster import KMeans as Clusters
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different rows than clusters: some means are then the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        seed = seed_from(key)
        found = Clusters(rank, n_init=10, random_state=seed).fit(rows)  # pyright: ignore[reportArgumentType]
    return found.cluster_centers_, found.transform(rows)


@dataclasses.dataclass(frozen=True)
class RobustPCA(_OfRows):
    """Principal components of what is left when sparse outliers are taken out (Candès et al. 2011).

        min ‖L‖_* + λ ‖S‖₁  with  A = L + S

    by the inexact augmented Lagrangian (Lin, Chen & Ma 2010); concepts are the principal components of L. CRAFT
    compares with "RCA" and doesn't say what it is; this is what robust component analysis usually means.

    **Arguments:**

    - `places`, `name`: as for `PCA`.
    - `weight`: λ; `1 / √max(rows, channels)` if None.
    - `rtol`: it stops where `‖A − L − S‖ ≤ rtol ‖A‖`.
    - `max_steps`: singular value decompositions at most.
    """

    name: str = "robust PCA"
    weight: Any = None
    rtol: Number = 1e-6
    max_steps: Count = 200

    def __post_init__(self) -> None:
        flag("places", self.places)
        if self.weight is not None:
            real("weight", self.weight, "weight", above=0)
        real("rtol", self.rtol, "tolerance", above=0)
        check_count("max_steps", self.max_steps, "steps")
        text("name", self.name, "a name")

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Take outliers out, then the directions of the largest variance."""
        rows = self.rows(activations)
        rank = self.check_rank(rank, np.shape(activations))
        low = without_outliers(rows, self.weight, self.rtol, self.max_steps)[0]
        mean = low.mean(axis=0)
        directions = np.linalg.svd(low - mean, full_matrices=False)[2][:rank]
        # A sign that doesn't depend on the machine: the largest entry is positive.
        largest = directions[np.arange(rank), np.abs(directions).argmax(axis=1)]
        directions = directions * np.sign(largest)[:, None]
        return Bank(directions.astype(rows.dtype), self.name, offset=mean, signed_codes=True)


def without_outliers(
    rows: Float[np.ndarray, "row channel"], weight: float | None, rtol: float, max_steps: int
) -> tuple[Float[np.ndarray, "row channel"], Float[np.ndarray, "row channel"]]:
    """A part of low rank and a sparse one, which add up to the rows."""
    rows = rows.astype(np.float64)
    total, steepest = np.linalg.norm(rows), np.linalg.norm(rows, 2)
    sparse = np.zeros_like(rows)
    if total == 0:
        return rows, sparse
    weight = 1 / np.sqrt(max(rows.shape)) if weight is None else weight
    dual = rows / max(steepest, np.abs(rows).max() / weight)
    low, step = rows, 1.25 / steepest
    most = step * 1e7
    for _ in range(max_steps):
        left, values, right = np.linalg.svd(rows - sparse + dual / step, full_matrices=False)
        low = (left * np.maximum(values - 1 / step, 0)) @ right
        rest = rows - low + dual / step
        sparse = np.sign(rest) * np.maximum(np.abs(rest) - weight / step, 0)
        missed = rows - low - sparse
        dual = dual + step * missed
        step = min(1.5 * step, most)
        if np.linalg.norm(missed) <= rtol * total:
            break
    return low, sparse
