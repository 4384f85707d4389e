"""A photograph with an explanation's concepts in colour."""

from __future__ import annotations

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..attribution import Method
from ..explanation.record import Explanation
from ..heads.beside import beside
from ..importance import gradient_times_code
from ..model import photographs_for
from ..nmf.encoding import encode_maps
from ..pictures.photographs import network_input
from ..pictures.showing import view_of
from ..support.arguments import Seed, Whole, check_count, instance, key_of, path_of
from .coloured import coloured_figure


def picture(
    explanation: Explanation,
    image: Any,
    path: str | pathlib.Path | None = None,
    *,
    method: str | Method = "codes",
    most: Whole = 4,
    title: str = "",
    key: Seed = None,
) -> Any:
    """A photograph beside itself with its strongest concepts in colour, numbered, with a legend (CRAFT, figure 1).

    Strong is what changes the class's logit most there, by `|gradient × code|`. Each concept has the colour that it
    has in the report.

    **Arguments:**

    - `explanation`: whose concepts are shown.
    - `image`: one photograph: anything that `face_jax.photographs` takes.
    - `path`: where to save it (`.png`, `.svg`, `.pdf`), if anywhere; its folder is made if need be.
    - `method`: where concepts are, as for `Explanation.maps`.
    - `most`: at most that many concepts.
    - `title`: above the picture.
    - `key`: for methods that draw at random.

    **Returns:** a `matplotlib.figure.Figure`. Raises `ValueError` for several photographs.

    **Example:**

    >>> figure = fj.picture(explanation, images[0], folder / "first.png", most=2)
    >>> (folder / "first.png").exists()
    True
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    key = key_of(key)
    path = None if path is None else path_of("path", path, "a file for the picture")
    most = check_count("most", most, "concepts")
    found = photographs_for(explanation.model, image)
    if len(found) != 1:
        raise ValueError(f"image holds {len(found)} photographs; give one, and call it for each")
    (photograph,) = found
    pixels = view_of(photograph, explanation.model.preprocess)
    maps = explanation.maps(photograph, method=method, key=key)[:, 0]
    model, target = explanation.model, explanation.target.index
    head = model.head_for(target)
    given = jnp.asarray(network_input(photograph.pixels(model.preprocess.reads), model.preprocess)[None])
    if model.with_tokens is None:
        activations = model.features(given)
    else:
        activations, kept = model.with_tokens(given)
        head = beside(head, kept)
    codes = jnp.asarray(encode_maps(np.asarray(activations), explanation.dictionary))
    adds = gradient_times_code(head, codes, jnp.asarray(explanation.dictionary), target).contribution[0]
    numbers = [concept.number for concept in explanation.concepts]
    noun = "class" if explanation.model.outputs.exclusive else "label"
    legend = f"share of what changes\nthe {noun}'s logit"
    figure = coloured_figure(pixels, maps, numbers, strengths=np.abs(adds), most=most, title=title, legend=legend)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130, facecolor="white")
    return figure
