"""The pointing game: whether a concept's map is highest where the concept was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ..activations import Crops
from ..model import Preprocess, Transform
from ..pictures.crop_and_resize import pair_of, place_of
from ..support.arguments import check_count, instance, real, real_array, several, shown, whole
from ..support.precision import full_precision
from ..support.reprs import short_repr


@dataclasses.dataclass(frozen=True)
class PointingCases:
    """Concepts and the boxes in which they were found to be strongest.

    **Arguments:**

    - `concept`: each case's concept, counted from 0.
    - `image`: its photograph.
    - `box`: `(top, left, bottom, right)` in the pixels of the network's input.
    """

    concept: Int[np.ndarray, " case"]
    image: Int[np.ndarray, " case"]
    box: Int[np.ndarray, "case 4"]

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.concept)


@dataclasses.dataclass(frozen=True)
class Pointing:
    """How often maps point into their boxes.

    **Arguments:**

    - `hits`: of each case, 1 if the map's maximum is in the box, else 0; if several pixels share the maximum, the
        share of them that is in the box.
    - `chances`: of each case, the box's share of the picture, which is what a random pixel hits.
    - `middles`: of each case, 1 if the middle of the picture is in the box: things in photographs are in the middle,
        and a map that always points there knows nothing of concepts.
    """

    hits: Float[np.ndarray, " case"]
    chances: Float[np.ndarray, " case"]
    middles: Float[np.ndarray, " case"]

    __repr__ = short_repr

    @property
    def rate(self) -> float:
        """The share of the cases that hit."""
        return float(self.hits.mean())

    @property
    def chance(self) -> float:
        """The rate of a pixel drawn at random."""
        return float(self.chances.mean())

    @property
    def middle(self) -> float:
        """The rate of the picture's middle: what a map must beat that is to know more than where photographers aim."""
        return float(self.middles.mean())

    def off_middle(self) -> Pointing:
        """The cases that can't be hit by pointing to the middle. Raises `ValueError` if there are none."""
        off = self.middles == 0
        if not off.any():
            raise ValueError(f"all {len(off)} boxes hold the picture's middle, so none is left; give more cases")
        return Pointing(self.hits[off], self.chances[off], self.middles[off])

    @property
    def standard_error(self) -> float:
        """Of the rate over chance, as if cases were independent; NaN for a single one."""
        if len(self.hits) < 2:
            return float("nan")
        return float((self.hits - self.chances).std(ddof=1) / np.sqrt(len(self.hits)))


@full_precision
def pointing_cases(
    strongest: Sequence[Sequence[int]],
    crops: Crops,
    shapes: Sequence[tuple[int, int]],
    preprocess: Preprocess,
    *,
    most: int = 8,
    visible: float = 0.75,
) -> PointingCases:
    """The boxes of concepts' own strongest crops, on the pixels that the network sees of the whole photographs.

    Crops lie anywhere in a photograph, of which the network's input shows the middle; a crop that is hardly in it is
    left out, the others are cut to it. The maps are made from whole photographs and the crops were seen enlarged and
    alone, so that a map may well miss: but both come from the same network, and a hit says that its map agrees with
    its own judgement of crops, not that a person would.

    **Arguments:**

    - `strongest`: each concept's strongest crops, strongest first (`Concept.strongest`).
    - `crops`: where they lie, in the photographs' own pixels.
    - `shapes`: each photograph's height and width.
    - `preprocess`: how photographs become network input.
    - `most`: crops of each concept.
    - `visible`: the share of a crop that must be in the network's input.

    **Returns:** the cases, concept by concept. Raises `ValueError` for crops and photographs that there aren't.

    **Example:**

    >>> strongest = [concept.strongest for concept in explanation.concepts]
    >>> shapes = [photograph.pixels().shape[:2] for photograph in explanation.photographs]
    >>> cases = fj.metrics.pointing_cases(strongest, explanation.pictures.crops, shapes, model.preprocess)
    >>> cases.box.shape[1]
    4
    """
    instance("crops", crops, Crops, "explanation.crops")
    instance("preprocess", preprocess, (Preprocess, Transform), "model.preprocess")
    most, visible = check_count("most", most, "crops"), real("visible", visible, "share", least=0, most=1)
    chosen = [
        [whole("strongest", crop, "crops", most=len(crops.image) - 1) for crop in several("strongest", best, "crops")]
        for best in several("strongest", strongest, "lists of crops")
    ]
    sizes = [
        tuple(check_count("shapes", side, "pixels") for side in several("shapes", shape, "heights and widths"))
        for shape in several("shapes", shapes, "heights and widths")
    ]
    if any(len(shape) != 2 for shape in sizes) or len(sizes) <= np.max(crops.image, initial=-1):
        raise ValueError(f"shapes={shown(shapes)} isn't each photograph's height and width; give photograph × 2")
    concept, image, box = [], [], []
    for number, best in enumerate(chosen):
        for crop in best[:most]:
            photograph = int(crops.image[crop])
            height, width = sizes[photograph]
            place = _on_input(crops.box[crop].astype(np.float64), (height, width), preprocess)
            cut = np.clip(place, 0, pair_of(preprocess.size) * 2)
            area = np.prod(place[2:] - place[:2])
            if np.prod(cut[2:] - cut[:2]) < visible * area:
                continue
            pixels = np.round(cut).astype(np.int64)
            if (pixels[2:] > pixels[:2]).all():
                concept.append(number)
                image.append(photograph)
                box.append(pixels)
    return PointingCases(
        np.asarray(concept, np.int64), np.asarray(image, np.int64), np.asarray(box, np.int64).reshape(-1, 4)
    )


@full_precision
def pointing_game(maps: Float[np.ndarray, "case y x"], boxes: Int[np.ndarray, "box 4"]) -> Pointing:
    """Whether each map's maximum lies inside its box (Zhang et al. 2018), beside the chance of it.

    **Arguments:**

    - `maps`: one map a case.
    - `boxes`: `(top, left, bottom, right)` in the map's pixels; bottom and right are just outside.

    **Returns:** hits and chances. Raises `ValueError` for boxes that are empty or reach out of the maps, and for NaN.

    **Example:**

    >>> maps = np.zeros((1, 4, 4))
    >>> maps[0, 1, 1] = 1
    >>> fj.metrics.pointing_game(maps, np.asarray([[0, 0, 2, 2]])).hits.tolist()
    [1.0]
    """
    maps, boxes = real_array("maps", maps, "case × y × x", finite=False), real_array("boxes", boxes, "box × 4")
    if boxes.shape[1] != 4:
        raise ValueError(f"boxes has shape {boxes.shape}; give (top, left, bottom, right) for each")
    height, width = maps.shape[1:]
    if len(maps) != len(boxes) or not len(maps):
        raise ValueError(f"maps has {len(maps)} cases and boxes {len(boxes)}; give one box for each map, at least one")
    wrong = (boxes[:, :2] < 0).any(1) | (boxes[:, 2] > height) | (boxes[:, 3] > width)
    wrong |= (boxes[:, 2:] <= boxes[:, :2]).any(1)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"boxes[{first}]={boxes[first].tolist()} is empty or reaches out of maps of {height} × {width}; "
            "give (top, left, bottom, right) in the map's pixels"
        )
    if np.isnan(maps).any():
        raise ValueError(f"maps[{int(np.isnan(maps).any((1, 2)).argmax())}] has NaN; give finite maps")
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    hits = np.asarray(
        [
            one[top:bottom, left:right].sum() / one.sum()
            for one, (top, left, bottom, right) in zip(highest, boxes.tolist(), strict=True)
        ]
    )
    chances = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / (height * width)
    middle = np.asarray([(height - 1) / 2, (width - 1) / 2])
    middles = ((boxes[:, :2] <= middle) & (middle < boxes[:, 2:])).all(axis=1)
    return Pointing(hits, chances, np.asarray(middles, np.float64))


def _on_input(box: Float[np.ndarray, " 4"], shape: tuple[int, int], preprocess: Preprocess) -> Float[np.ndarray, " 4"]:
    """A box of a photograph in the pixels of what the network sees of it."""
    place = place_of(shape, preprocess)
    scale = np.asarray([place.resized[0] / shape[0], place.resized[1] / shape[1]])
    return (box.reshape(2, 2) * scale - np.asarray(place.corner)).reshape(4)
