"""A photograph with an explanation's concepts in colour: `Explanation.picture`."""

from __future__ import annotations

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..attribution import Method
from ..choices import Whole, check_count, path_of
from ..explanation import Explanation
from ..importance import gradient_times_code
from ..photographs import photographs, visible
from .coloured import coloured_figure


def picture_of(
    explanation: Explanation,
    image: Any,
    path: str | pathlib.Path | None,
    *,
    method: str | Method,
    most: Whole,
    title: str,
    key: Key[Array, ""] | None,
) -> Any:
    """What `Explanation.picture` says.

    **Returns:** a `matplotlib.figure.Figure`.
    """
    path = None if path is None else path_of("path", path, "a file for the picture")
    most = check_count("most", most, "concepts")
    found = photographs(image)
    if len(found) != 1:
        raise ValueError(f"image holds {len(found)} photographs; give one, and call it for each")
    (photograph,) = found
    pixels = visible(photograph.pixels(), explanation.model.preprocess)
    maps = explanation.maps(photograph, method=method, key=key)[:, 0]
    codes = jnp.asarray(explanation.encode(photograph))
    dictionary = jnp.asarray(explanation.dictionary)
    adds = gradient_times_code(explanation.model.head, codes, dictionary, explanation.target).contribution[0]
    numbers = [concept.number for concept in explanation.concepts]
    legend = "share of what changes\nthe class's logit"
    figure = coloured_figure(pixels, maps, numbers, strengths=np.abs(adds), most=most, title=title, legend=legend)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, facecolor="white")
    return figure
