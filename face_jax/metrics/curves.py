"""Insertion and deletion in concept space, their areas, and how high those can get."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..importance.checks import check_asked
from ..model import Head
from ..outputs import AnyOutputs, MultiClass, Outputs
from ..support.arguments import Real, Whole, check_count, instance, native, one_of, real, real_array, shown
from ..support.fields import within
from ..support.precision import full_precision
from ..support.reprs import short_repr
from ..support.scaling import of_order_one


@dataclasses.dataclass(frozen=True)
class Curve:
    """What the classifier says while concepts are put in, or taken out, one after the other.

    **Arguments:**

    - `accuracy`: share of images for which the target is predicted, after 0, 1, …, r concepts.
    - `probability`: mean probability of the target, likewise.
    """

    accuracy: Float[np.ndarray, " step"] = dataclasses.field(metadata=within(0, 1 + 1e-6))
    probability: Float[np.ndarray, " step"] = dataclasses.field(metadata=within(0, 1 + 1e-6))

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """Both curves, with the areas that the papers report and the highest values they can take.

    **Arguments:**

    - `insertion`, `deletion`: the curves, the most important concept first.
    - `c_insertion`: area under the insertion curve (trapezoids over 0…r); at most `1 − 1/2r` when no activation
        at all predicts another class, else at most 1.
    - `c_deletion`: `1/(r+1) · Σₖ (Acc₀ − Accₖ)` (FACE, section 4.2); at most `r/(r+1)`.
    """

    insertion: Curve
    deletion: Curve
    c_insertion: float = dataclasses.field(metadata=within(-1, 1 + 1e-6))
    c_deletion: float = dataclasses.field(metadata=within(-1, 1 + 1e-6))


@full_precision
def fidelity(
    head: Head,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Whole,
    order: Int[np.ndarray, " concept"],
    outputs: AnyOutputs = MultiClass(),  # noqa: B008 (settings: frozen)
) -> Fidelity:
    """Insertion and deletion curves of one class's images.

    **Arguments:**

    - `head`: from activations to logits.
    - `codes`: how much of each concept is at each place of each image.
    - `dictionary`: the concepts.
    - `target`: the class that should be predicted.
    - `order`: concepts, the most important first.
    - `outputs`: what the logits mean, `model.outputs`: `MultiClass()`, or `MultiLabel()` for labels.

    **Returns:** curves and areas. Raises `ValueError` for concepts that don't fit the head and for logits that are NaN,
    `UnknownClassError` for a class that the head doesn't have.

    **Example:**

    >>> codes, dictionary = explanation.codes, explanation.dictionary
    >>> found = fj.metrics.fidelity(model.head, jnp.asarray(codes), jnp.asarray(dictionary), 0, np.arange(4))
    >>> found.insertion.accuracy.shape
    (5,)
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    instance("outputs", outputs, Outputs, "MultiClass() or MultiLabel()")
    target = check_asked(head, codes, dictionary, target)
    codes, dictionary = jnp.asarray(codes), jnp.asarray(dictionary)
    concepts = len(dictionary)
    order = real_array("order", order, "concept")
    if sorted(order.tolist()) != list(range(concepts)):
        raise ValueError(
            f"order={shown(order)} isn't an order of {concepts} concepts; give each of 0 to {concepts - 1} once"
        )
    rank = np.empty(concepts, np.int64)
    rank[order.astype(np.int64)] = np.arange(concepts)
    inserted = rank[None, :] < np.arange(concepts + 1)[:, None]
    masks = np.concatenate([inserted, ~inserted]).astype(codes.dtype)
    accuracy, probability = (
        np.asarray(values)
        for values in _masked(outputs, head, codes, dictionary, jnp.asarray(target), jnp.asarray(masks))
    )
    if np.isnan(probability).any():
        raise ValueError(
            f"head gives NaN for images with {int(np.isnan(probability).sum())} of {len(masks)} choices of concepts; "
            "clip what has a logarithm, a root or a division there"
        )
    half = concepts + 1
    insertion = Curve(accuracy[:half], probability[:half])
    deletion = Curve(accuracy[half:], probability[half:])
    return Fidelity(
        insertion=insertion,
        deletion=deletion,
        c_insertion=c_insertion(insertion.accuracy),
        c_deletion=c_deletion(deletion.accuracy),
    )


def mean_fidelity(parts: Sequence[Fidelity], counts: Sequence[int]) -> Fidelity:
    """The curves of several parts' images together, of which there are so many."""
    insertion, deletion = (
        Curve(*(np.average([getattr(getattr(part, name), what) for part in parts], axis=0, weights=counts)
                for what in ("accuracy", "probability")))
        for name in ("insertion", "deletion")
    )  # fmt: skip
    return Fidelity(insertion, deletion, c_insertion(insertion.accuracy), c_deletion(deletion.accuracy))


@full_precision
def c_insertion(accuracy: Float[np.ndarray, " step"]) -> float:
    """C-Ins, the area under an insertion curve: trapezoids over 0…r, over r (FACE, section 4.2).

    **Arguments:**

    - `accuracy`: after 0, 1, …, r concepts.

    **Example:**

    >>> fj.metrics.c_insertion(np.asarray([0.0, 1.0, 1.0]))
    0.75
    """
    accuracy = _curve(accuracy)
    return float(np.trapezoid(accuracy) / (len(accuracy) - 1))


@full_precision
def c_deletion(accuracy: Float[np.ndarray, " step"], definition: str = "paper") -> float:
    """C-Del, how far accuracy falls while concepts are taken out: `Σₖ (Acc₀ − Accₖ)` over a number near r.

    **Arguments:**

    - `accuracy`: after 0, 1, …, r concepts were taken out.
    - `definition`: whose number that is. `"paper"`, `r + 1` (FACE, section 4.2); `"code"`, `r + 2` (FACE's published
        code, and its evaluation of CRAFT); `"ice"`, `r + 1`, the mean over all points of the curve (FACE's notebook of
        ICE); `"lad"`, `r` (the code of LAD). `deletion_ceiling` has the highest values.

    **Example:**

    >>> fj.metrics.c_deletion(np.asarray([1.0, 0.0, 0.0])), fj.metrics.c_deletion(np.asarray([1.0, 0.0, 0.0]), "code")
    (0.6666666666666666, 0.5)
    """
    accuracy = _curve(accuracy)
    return float((accuracy[0] - accuracy[1:]).sum() / (len(accuracy) - 1 + _beyond(definition)))


def _curve(accuracy: Any) -> Float[np.ndarray, " step"]:
    accuracy = real_array("accuracy", accuracy, "step").astype(np.float64)
    if len(accuracy) < 2:
        raise ValueError(f"accuracy has {len(accuracy)} step; give those after 0, 1, …, r concepts")
    return accuracy


# By how much the number that C-Del is divided by exceeds that of the concepts.
_DELETION = {"paper": 1, "code": 2, "ice": 1, "lad": 0}


def _beyond(definition: Any) -> int:
    return _DELETION[one_of("definition", definition, tuple(_DELETION))]


@full_precision
def insertion_ceiling(concepts: Whole, accuracy_of_nothing: Real = 0.0) -> float:
    """The highest C-Ins: every image right from the first concept on.

    **Example:**

    >>> fj.metrics.insertion_ceiling(4)
    0.875
    """
    concepts = check_count("concepts", concepts, "concepts")
    accuracy_of_nothing = real("accuracy_of_nothing", accuracy_of_nothing, "share", least=0, most=1)
    return 1 - (1 - accuracy_of_nothing) / (2 * concepts)


@full_precision
def deletion_ceiling(concepts: Whole, definition: str = "paper") -> float:
    """The highest C-Del: every image right at first, and none from the first deletion on.

    **Arguments:**

    - `concepts`: how many.
    - `definition`: as for `c_deletion`.

    **Example:**

    >>> fj.metrics.deletion_ceiling(4)
    0.8
    """
    concepts = check_count("concepts", concepts, "concepts")
    return concepts / (concepts + _beyond(definition))


def gini_ceiling(concepts: Whole) -> float:
    """The highest C-Gini: one concept has all the importance.

    **Example:**

    >>> fj.metrics.gini_ceiling(4)
    0.75
    """
    concepts = check_count("concepts", concepts, "concepts")
    return 1 - 1 / concepts


def gini(importance: Float[np.ndarray, " concept"], definition: str = "paper") -> float:
    """C-Gini, how unequally importance is shared (FACE, section 4.2): 0 is evenly; 0 too if there's none.

    `Σᵢ (2i − n − 1) |eᵢ| / (n Σᵢ |eᵢ|)`, the n importances e in ascending order of their sizes, i from 1.

    **Arguments:**

    - `importance`: one number a concept.
    - `definition`: `"paper"`, or `"code"` for FACE's published code, which takes importances with their signs; where
        some are below zero that isn't bounded by the ceiling, and NaN where they add up to 0.

    **Example:**

    >>> round(fj.metrics.gini(np.asarray([1.0, 0.0, 0.0, 0.0])), 2)
    0.75
    """
    importance = real_array("importance", importance, "concept")
    with_signs = one_of("definition", definition, ("paper", "code")) == "code"
    # Only shares matter, and sums of the largest numbers would be infinite.
    sizes = of_order_one(importance.astype(np.float64), 0)
    sizes = np.sort(sizes if with_signs else np.abs(sizes))
    count = len(sizes)
    total = sizes.sum()
    if total == 0:
        return math.nan if sizes.any() else 0.0
    return float(((2 * np.arange(1, count + 1) - count - 1) * sizes).sum() / (count * total))


@functools.partial(jax.jit, static_argnums=0)
def _masked(
    outputs: Outputs,
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
    masks: Float[Array, "mask concept"],
) -> tuple[Float[Array, " mask"], Float[Array, " mask"]]:
    def one(mask: Float[Array, " concept"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        logits = head((codes * mask[None, None, None, :]) @ dictionary)
        right, probability = outputs.has(logits, target), outputs.probability(logits, target)
        return jnp.mean(right.astype(codes.dtype)), jnp.mean(probability)

    return jax.lax.map(one, masks)
