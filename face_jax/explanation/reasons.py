"""Why a classifier says this of a picture and not that: what each concept adds to the difference of two logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..attribution import upsampled_codes
from ..heads.beside import beside
from ..importance.differences import DifferenceParts, difference_parts
from ..model import SplitModel, photographs_for
from ..nmf.encoding import encode_maps
from ..pictures.photographs import Photograph, network_input
from ..support.arguments import Seed, Whole, enough, key_of, whole
from ..support.classes import Target as Class
from ..support.classes import UnknownClassError, class_index
from ..support.reprs import short_repr

# The sum of the parts may miss the difference by so much of the logits' size.
_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Why:
    """Why a classifier says one class of a picture rather than another.

    **Arguments:**

    - `photograph`: the picture.
    - `target`, `instead_of`: the two classes' numbers, and `names` theirs.
    - `probability`: of both in this picture, as the model gives them.
    - `predicted`: the class whose logit is the largest.
    - `parts`: what each concept, what they leave out and no activations at all add to `logit[target] −
        logit[instead_of]`; their sum is the difference.
    - `deciding`: the concepts (from 0) that add or take most, most first.
    - `maps`: where each of them is in the picture: its codes, enlarged to the network's input.
    """

    photograph: Photograph
    target: int
    instead_of: int
    names: tuple[str, str]
    probability: tuple[float, float]
    predicted: int
    parts: DifferenceParts
    deciding: tuple[int, ...]
    maps: Float[np.ndarray, "deciding height width"]

    __repr__ = short_repr

    def table(self) -> dict[str, Any]:
        """All of it in plain numbers and words, without the maps; concepts by the numbers that reports give them."""
        parts = self.parts
        return {
            "photograph": self.photograph.name,
            "target": {"index": self.target, "class": self.names[0], "probability": self.probability[0]},
            "instead_of": {"index": self.instead_of, "class": self.names[1], "probability": self.probability[1]},
            "difference": parts.difference,
            "exact": parts.exact,
            "concepts": [
                {"number": at + 1, "adds": float(adds), "standard_error": float(error)}
                for at, (adds, error) in enumerate(zip(parts.concepts, parts.error, strict=False))
            ],
            "left_out": {"adds": parts.left_out, "standard_error": float(parts.error[-1])},
            "nothing": parts.nothing,
            "sum": parts.total,
            "deciding": [at + 1 for at in self.deciding],
        }


def why(
    model: SplitModel,
    dictionary: Float[np.ndarray, "concept channel"],
    image: Any,
    target: Class,
    instead_of: Class | None,
    *,
    permutations: Whole,
    most: Whole,
    key: Seed,
) -> Why:
    """`Explanation.why` of any bank of concepts of a model."""
    key = key_of(key)
    permutations, most = enough("permutations", permutations, 4), whole("most", most, "concepts")
    first = class_index(model.classes, target)
    found = photographs_for(model, image)
    if len(found) != 1:
        raise ValueError(f"image holds {len(found)} photographs; give one, and call it for each")
    if len(model.classes) < 2:
        raise ValueError(f"instead_of needs another class, and {model.name} has one; ask for its importance instead")
    second = None if instead_of is None else _other("instead_of", model, instead_of, first)
    (photograph,) = found
    given = jnp.asarray(network_input(photograph.pixels(model.preprocess.reads), model.preprocess)[None])
    activations, kept = (model.features(given), None) if model.with_tokens is None else model.with_tokens(given)
    head = beside(model.head, kept)
    logits = np.asarray(head(activations))
    if second is None:
        if not model.outputs.exclusive:
            raise ValueError("instead_of is needed where classes are labels, each by itself; name one")
        second = next(at for at in np.argsort(-logits[0], kind="stable").tolist() if at != first)
    maps = np.asarray(activations)
    codes = encode_maps(maps, dictionary)
    parts = difference_parts(head, maps[0], codes[0], dictionary, first, second, permutations=permutations, key=key)
    missed = abs(parts.total - parts.difference)
    if not missed <= _ROUNDING * max(1.0, float(np.abs(logits[0]).max())):
        raise ArithmeticError(
            f"the parts of the difference add up to {parts.total:.6g}, and the model gives {parts.difference:.6g}: the "
            "head of this model isn't a function of the activations alone, or its numbers leave its precision"
        )
    size = np.abs(parts.concepts)
    deciding = tuple(at for at in np.argsort(-size, kind="stable")[:most].tolist() if size[at] > 0)
    enlarged = upsampled_codes(jnp.asarray(codes[..., list(deciding)]), model.preprocess.size)[0]
    probability = tuple(float(model.outputs.probability(logits, at)[0]) for at in (first, second))
    return Why(
        photograph, first, second, (model.classes[first], model.classes[second]), probability,  # pyright: ignore[reportArgumentType]
        int(logits[0].argmax()), parts, deciding, np.moveaxis(enlarged, -1, 0),
    )  # fmt: skip


def _other(name: str, model: SplitModel, given: Class, first: int) -> int:
    try:
        second = class_index(model.classes, given)
    except UnknownClassError as error:
        raise UnknownClassError(str(error).replace("target=", f"{name}=", 1)) from error
    if second == first:
        raise ValueError(
            f"{name}={model.classes[second]!r} is the class that is asked about; give another one, or name the class "
            "itself as target"
        )
    return second
