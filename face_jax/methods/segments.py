"""ACE: superpixels of photographs, clustered (Ghorbani et al. 2019)."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

from ..activations import Collected, Crops, collect_crops, pooled
from ..model import SplitModel, check_model, photographs_for
from ..pictures.photographs import Photograph
from ..support.arguments import Count, Real, Whole, check_count, real, several, text
from ..support.randomness import generator
from .bank import Bank, averages_of, check_few
from .decompositions import clustered
from .inference import NearestConcept
from .packages import scikit_image, scikit_learn
from .weighing import ByVectors

# What ACE paints around a superpixel: the mean colour of ImageNet, of 255.
_GREY = 117
# Superpixels of larger photographs are found in every so manieth pixel.
_WIDEST = 400
# ACE: superpixels of a smaller share of the picture are left out, and those that are another one to a larger share.
_SMALLEST, _SAME = 0.001, 0.5


@dataclasses.dataclass(frozen=True)
class ACE:
    """ACE's concepts: clusters of activations, of superpixels where these are what is given.

    `superpixels(model, photographs)` makes them, and `fit` takes their averaged activations; given crops instead, it
    clusters those. Its own scoring is TCAV: of each cluster the segments nearest to its mean are told from as many
    others by a linear classifier, and a concept's score is the share of pictures whose logit rises along the
    classifier's normal. ACE takes random photographs for the others; here they are segments of other clusters.

    ACE has no rule to rebuild activations, so that insertion and deletion have to be defined for it, and FACE, which
    reports them, doesn't say how. Here, by its own inference, each place is replaced by the nearest cluster's mean;
    taking a concept out leaves nothing at its places. By the inference of all methods places are non-negative sums of
    the means. Tables say which it was.

    **Arguments:**

    - `members`: segments nearest to a cluster's mean that its vector is trained on.
    - `name`: what tables call it.
    """

    members: Count = 40
    name: str = "ACE"

    def __post_init__(self) -> None:
        check_count("members", self.members, "segments")
        text("name", self.name, "a name")

    def check_rank(self, rank: Any, shape: tuple[int, ...]) -> int:
        """The rank; raises `ValueError` for more than activations of the shape allow."""
        return check_few(rank, shape, of=self.name, channels=False)

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Cluster, and train a vector for each cluster."""
        rows = averages_of(activations)
        rank = self.check_rank(rank, np.shape(activations))
        means, distances = clustered(rows, rank, key, self.name)
        vectors = _vectors(rows, means, distances, self.members, generator(key))
        return Bank(means, self.name, inference=NearestConcept(), importance=ByVectors(vectors))


def _vectors(
    rows: Float[np.ndarray, "row channel"],
    means: Float[np.ndarray, "concept channel"],
    distances: Float[np.ndarray, "row concept"],
    members: int,
    random: np.random.Generator,
) -> Float[np.ndarray, "concept channel"]:
    """Normals of linear classifiers between each cluster's members and as many others."""
    scikit_learn("ACE")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    own, found = distances.argmin(axis=1), np.zeros(means.shape)
    unit = float(np.abs(rows).max()) or 1.0
    for concept in range(len(means)):
        inside, outside = np.flatnonzero(own == concept), np.flatnonzero(own != concept)
        if not len(inside) or not len(outside):
            # A single cluster has no others: towards its mean.
            found[concept] = means[concept]
            continue
        inside = inside[np.argsort(distances[inside, concept], kind="stable")][:members]
        outside = random.permutation(outside)[: max(len(inside), 1)]
        labels = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            trained = LogisticRegression(max_iter=200).fit(rows[np.concatenate([inside, outside])] / unit, labels)
        found[concept] = trained.coef_[0]
    return found


def superpixels(
    model: SplitModel,
    images: Any,
    *,
    segments: Sequence[int] = (15, 50, 80),
    compactness: Real = 20.0,
    smoothing: Real = 1.0,
    batch: Whole = 32,
) -> tuple[Collected, Any]:
    """Activations of the superpixels of photographs, each alone on grey and as large as the network's input.

    ACE's: SLIC at several numbers of segments, those left out that are mostly another one; what is around a segment in
    its bounding box is painted grey.

    **Arguments:**

    - `model`: the split classifier, with an input of three colours.
    - `images`: photographs, as `face_jax.photographs` takes them.
    - `segments`: how many superpixels a photograph is divided into, about; one number for each time.
    - `compactness`, `smoothing`: of SLIC.
    - `batch`: pictures that go through the network together.

    **Returns:** averaged activations (`maps` of one place) and logits of the superpixels; and which photograph each is
    of. Raises `ImportError` where scikit-image is missing, and `ValueError` for photographs without any superpixel.

    **Example:**

    >>> found, photograph = fj.methods.superpixels(model, images[:2], segments=(4,))
    >>> found.maps.shape[1:3], len(found) == len(photograph)
    ((1, 1), True)
    """
    check_model(model)
    asked = [check_count("segments", each, "segments") for each in several("segments", segments, "numbers of segments")]
    compactness = real("compactness", compactness, "compactness", above=0)
    smoothing, batch = real("smoothing", smoothing, "width", least=0), check_count("batch", batch, "pictures")
    if model.preprocess.reads not in (1, 3):
        raise ValueError(f"{model.name} reads {model.preprocess.reads} channels; superpixels are of 1 or 3 colours")
    scikit_image("ACE")
    pieces, boxes, photograph = [], [], []
    for number, picture in enumerate(photographs_for(model, images)):
        pixels = picture.pixels(model.preprocess.reads)
        for mask in _masks(pixels, asked, compactness, smoothing):
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
            piece = np.where(mask[..., None], pixels, np.uint8(_GREY))[top:bottom, left:right]
            pieces.append(Photograph(f"{picture.name}, segment {len(pieces)}", np.ascontiguousarray(piece)))
            boxes.append((0, 0, bottom - top, right - left))
            photograph.append(number)
    if not pieces:
        raise ValueError("images have no superpixels; give photographs with more than one colour, or more segments")
    crops = Crops(np.arange(len(pieces)), np.asarray(boxes, np.int64))
    return collect_crops(model, pieces, crops, keep=pooled, batch=batch), np.asarray(photograph)


def _masks(
    pixels: UInt8[np.ndarray, "y x channel"], segments: list[int], compactness: float, smoothing: float
) -> list[Bool[np.ndarray, "y x"]]:
    """Superpixels that aren't mostly another one."""
    from skimage.segmentation import slic

    step = -(-max(pixels.shape[:2]) // _WIDEST)
    small, found = pixels[::step, ::step] / 255.0, []
    grey = small.shape[-1] == 1
    for count in segments:
        given: dict[str, Any] = {"compactness": compactness, "sigma": smoothing, "start_label": 0}
        image = small[..., 0] if grey else small
        labels = slic(image, n_segments=count, channel_axis=None if grey else -1, **given)
        new = []
        for label in range(int(labels.max()) + 1):
            mask = labels == label
            if mask.mean() <= _SMALLEST:
                continue
            if all((mask & other).sum() <= _SAME * (mask | other).sum() for other in found):
                new.append(mask)
        found += new
    height, width = pixels.shape[:2]
    return [mask.repeat(step, axis=0).repeat(step, axis=1)[:height, :width] for mask in found]
