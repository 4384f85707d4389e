"""The strongest concepts of one photograph together, as the page shows them: paint, outlines, numbers and a key."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..attribution import upsampled_codes
from ..explanation.record import Explanation
from ..model import Head
from ..pictures.showing import view_of
from . import pictures
from .coloured import AREA, apart, coloured_pixels, shown_concepts

# A concept with less than this share of what all do in a photograph would cover what matters there.
_LEAST, _MOST = 0.05, 4
# The picture is drawn finer than the network sees it: it's larger on the page.
_SIDE = 448


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One concept of the key; its number and its outline are drawn at `label` and along `outline`."""

    number: int
    colour: str
    adds: float
    share: float
    peak: tuple[int, int]
    label: tuple[int, int]
    outline: str


def together(explanation: Explanation, number: int) -> dict[str, Any]:
    """A photograph of the explanation's with its strongest concepts: those that change the class score most there.

    **Returns:** the photograph and the painted one as addresses, their height and width in pixels, an entry for each
    concept shown, and the share of the others.
    """
    preprocess = explanation.model.preprocess
    finer = max(1, round(_SIDE / max(preprocess.shape[:2])))
    pixels = view_of(explanation.photographs[number], preprocess, finer)
    codes = jnp.asarray(explanation.codes[number : number + 1])
    maps = np.moveaxis(upsampled_codes(codes, pixels.shape[:2])[0], -1, 0)
    adds = added_in(explanation, number)
    size = np.abs(adds)
    most = int(np.clip((size >= _LEAST * size.sum()).sum(), 1, _MOST))
    numbers = [concept.number for concept in explanation.concepts]
    shown = shown_concepts(maps, numbers, strengths=size, most=most)
    places = apart([one.peak for one in shown], pixels.shape)
    entries = [
        _Entry(
            number=one.number,
            colour=one.colour,
            adds=float(adds[one.number - 1]),
            share=one.share,
            peak=(one.peak[1], one.peak[0]),
            label=(round(place[1]), round(place[0])),
            outline=outline(one.strength),
        )
        for one, place in zip(shown, places, strict=True)
    ]
    return {
        "photograph": pictures.data_uri(pixels),
        "painted": pictures.data_uri(coloured_pixels(pixels, shown)),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "entries": entries,
        "rest": max(0.0, 1.0 - sum(entry.share for entry in entries)),
    }


def added_in(explanation: Explanation, number: int) -> Float[np.ndarray, " concept"]:
    """What the class score of one of the explanation's photographs loses without each concept."""
    codes, target = jnp.asarray(explanation.codes[number : number + 1]), explanation.target.index
    # The head of one picture, which has many variants of its maps here.
    head = explanation.pictures.collected[number : number + 1].head(explanation.model.head_for(target))
    return np.asarray(_added(head, codes, jnp.asarray(explanation.dictionary), jnp.asarray(target)))


@jax.jit
def _added(
    head: Head,
    codes: Float[Array, "1 y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
) -> Float[Array, " concept"]:
    """What the class score loses without each concept, the others as they are."""
    count = dictionary.shape[0]
    present = jnp.concatenate([jnp.ones((1, count), bool), ~jnp.eye(count, dtype=bool)]).astype(codes.dtype)
    score = head((codes * present[:, None, None, :]) @ dictionary)[:, target]
    return score[0] - score[1:]


def outline(strength: Float[np.ndarray, "y x"], most: int = 80) -> str:
    """The border of where a concept is at least half as strong as at its peak of 1, as an SVG path of few points."""
    from contourpy import contour_generator

    pieces = []
    lines: Any = contour_generator(z=strength).lines(AREA)
    for line in lines:
        # A point a few pixels is as smooth as one a pixel, and takes less room.
        points = np.concatenate([line[: -1 : max(1, len(line) // most)], line[-1:]])
        pieces.append("M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for x, y in points))
    return "".join(pieces)
