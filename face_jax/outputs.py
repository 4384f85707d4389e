"""What a classifier's logits mean: which prediction they make, how probable it is, how far two of them are apart."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Bool, Float

from .support.arguments import float_or_none, real, several, shown

Logits = Float[np.ndarray, "image class"]
if TYPE_CHECKING:
    Threshold = float | Sequence[float]
else:
    # Whoever gives something else is told so by the class below.
    Threshold = Any


class Outputs(abc.ABC):
    """What logits mean: `MultiClass()`, `Binary()` or `MultiLabel()`. Everything that speaks of predictions asks it."""

    @property
    def exclusive(self) -> bool:
        """Whether each picture is of one class."""
        return True

    @abc.abstractmethod
    def predicted(self, logits: Logits) -> Bool[np.ndarray, "image class"]:
        """Which classes are predicted for each picture."""

    @abc.abstractmethod
    def has(self, logits: Any, target: Any) -> Any:
        """For which pictures a class is predicted; NumPy's arrays or JAX's, also inside programs."""

    @abc.abstractmethod
    def probability(self, logits: Any, target: Any) -> Any:
        """The probability of a class in each picture; NumPy's arrays or JAX's, also inside programs."""

    @abc.abstractmethod
    def agreement(self, original: Logits, rebuilt: Logits) -> Bool[np.ndarray, " image"] | Float[np.ndarray, " image"]:
        """How far two predictions of each picture are the same."""

    @abc.abstractmethod
    def becomes(self, original: Logits, rebuilt: Logits) -> list[int]:
        """The classes that predictions change to, once for each picture."""

    @abc.abstractmethod
    def divergence(
        self, original: Logits, rebuilt: Logits
    ) -> tuple[Float[np.ndarray, " image"], Float[np.ndarray, " image"]]:
        """`KL(p ‖ q)` in nats and the L1 distance of each picture's predictions, in float64."""

    def check(self, classes: Sequence[Any]) -> None:  # noqa: B027 (most have nothing to check)
        """Raises `ValueError` where they don't fit a model's classes."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MultiClass(Outputs):
    """Exclusive classes: each picture is of one of them, that of the largest logit; probabilities are their softmax.

    - Predictions agree where the largest logit is the same class's.
    - The divergence is `KL(p ‖ q)` of the softmax, the distance `Σ|p − q|`; `ForwardKL` keeps predictions.
    """

    def predicted(self, logits: Logits) -> Bool[np.ndarray, "image class"]:
        """One class a picture."""
        return logits.argmax(-1)[:, None] == np.arange(logits.shape[1])[None]

    def has(self, logits: Any, target: Any) -> Any:
        """Where the class's logit is the largest."""
        return logits.argmax(-1) == target

    def probability(self, logits: Any, target: Any) -> Any:
        """The class's softmax."""
        softmax = jax.nn.softmax if isinstance(logits, jax.Array) else scipy.special.softmax
        return softmax(logits, axis=-1)[:, target]

    def agreement(self, original: Logits, rebuilt: Logits) -> Bool[np.ndarray, " image"]:
        """Whether it's the same class."""
        return original.argmax(-1) == rebuilt.argmax(-1)

    def becomes(self, original: Logits, rebuilt: Logits) -> list[int]:
        """The classes of those that aren't in the same one."""
        return rebuilt.argmax(-1)[~self.agreement(original, rebuilt)].tolist()

    def divergence(
        self, original: Logits, rebuilt: Logits
    ) -> tuple[Float[np.ndarray, " image"], Float[np.ndarray, " image"]]:
        """Those of the softmax."""
        log_p, log_q = (scipy.special.log_softmax(logits.astype(np.float64), axis=-1) for logits in (original, rebuilt))
        p = np.exp(log_p)
        return np.maximum((p * (log_p - log_q)).sum(-1), 0), np.abs(p - np.exp(log_q)).sum(-1)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Binary(MultiClass):
    """Two exclusive classes of a network with one logit z, as the logits `[0, z]`: no and yes.

    Their softmax is z's sigmoid. Predictions and divergences are those of `MultiClass`, the latter Bernoulli's. What
    decides for the first class is `−z`, of which its importance is.
    """


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MultiLabel(Outputs):
    """Several labels, each by itself: predicted where its probability, the sigmoid of its logit, is above a threshold.

    - Predictions agree as far as labels stay on their side of the threshold: a share of the labels (one minus the
        Hamming loss).
    - The divergence is the sum over the labels of Bernoulli's `KL(p ‖ q)`, which `SigmoidKL` keeps small. The distance
        is that of the label that moves most, `2 max|p − q|` (yes and no counted, from 0 to 2). No label's distance is
        above the bounds that the sum's divergence gives.

    **Arguments:**

    - `threshold`: on the probability, above 0 and below 1; one for all labels, or one for each. A label is predicted
        above it: at one half, where its logit is above 0.

    Raises `ValueError` for thresholds that aren't valid.
    """

    threshold: Threshold = 0.5

    def __post_init__(self) -> None:
        given: Any = self.threshold
        if float_or_none(given) is not None:
            found: Any = real("threshold", given, "probability", above=0, below=1)
        else:
            items = several("threshold", given, "probabilities, one for each label")
            if not items:
                raise ValueError("threshold is empty; give one probability for all labels, or one for each")
            found = tuple(real("threshold", item, "probability", above=0, below=1) for item in items)
        object.__setattr__(self, "threshold", found)

    @property
    def exclusive(self) -> bool:
        """False."""
        return False

    def cuts(self, classes: int) -> Float[np.ndarray, " class"]:
        """The logits above which labels are predicted."""
        self.check(range(classes))
        thresholds = self.threshold if isinstance(self.threshold, Sequence) else (self.threshold,) * classes
        return np.asarray([math.log(each / (1 - each)) for each in thresholds])

    def check(self, classes: Sequence[Any]) -> None:
        """Raises `ValueError` for more or fewer thresholds than labels."""
        if isinstance(self.threshold, Sequence) and len(self.threshold) != len(classes):
            raise ValueError(
                f"threshold has {len(self.threshold)} probabilities for {len(classes)} labels; give one for each "
                "label, or a single number for all"
            )

    def predicted(self, logits: Logits) -> Bool[np.ndarray, "image class"]:
        """Any number of labels a picture."""
        return logits > self.cuts(logits.shape[1])[None]

    def has(self, logits: Any, target: Any) -> Any:
        """Where the label's logit is above that of its threshold."""
        cuts = self.cuts(logits.shape[1])
        if isinstance(logits, jax.Array):
            return logits[:, target] > jnp.asarray(cuts, logits.dtype)[target]
        return logits[:, target] > cuts[target]

    def probability(self, logits: Any, target: Any) -> Any:
        """The sigmoid of the label's logit."""
        if isinstance(logits, jax.Array):
            return jax.nn.sigmoid(logits[:, target])
        # SciPy has no half precision of JAX's.
        return scipy.special.expit(logits[:, target].astype(np.float64))

    def agreement(self, original: Logits, rebuilt: Logits) -> Float[np.ndarray, " image"]:
        """The share of labels that stay on their side."""
        return (self.predicted(original) == self.predicted(rebuilt)).mean(axis=-1)

    def becomes(self, original: Logits, rebuilt: Logits) -> list[int]:
        """The labels that are predicted or not as they weren't, once for each picture where that is so."""
        return np.nonzero(self.predicted(original) != self.predicted(rebuilt))[1].tolist()

    def divergence(
        self, original: Logits, rebuilt: Logits
    ) -> tuple[Float[np.ndarray, " image"], Float[np.ndarray, " image"]]:
        """The sum of the labels' divergences, and the largest of their distances."""
        first, second = original.astype(np.float64), rebuilt.astype(np.float64)
        p, q = scipy.special.expit(first), scipy.special.expit(second)
        # log σ(z) and log(1 − σ(z)), which stay finite where the probability rounds to 0 or 1.
        yes, no = (
            scipy.special.log_expit(sign * first) - scipy.special.log_expit(sign * second) for sign in (1.0, -1.0)
        )
        kl = p * yes + scipy.special.expit(-first) * no
        return np.maximum(kl, 0).sum(-1), 2 * np.abs(p - q).max(axis=-1)


if TYPE_CHECKING:
    AnyOutputs = Outputs
    MultiLabelled = bool | MultiLabel | None
else:
    # Whoever gives something else is told so by what takes it.
    AnyOutputs = MultiLabelled = Any


def outputs_of(multi_label: Any, logits: int) -> Outputs:
    """What `multi_label` means for a network with so many logits.

    **Arguments:**

    - `multi_label`: True, False, None (one logit is binary, several are exclusive classes), or `MultiLabel(…)` with
        thresholds.
    - `logits`: how many there are.

    **Returns:** what the logits mean. Raises `ValueError` for anything else.
    """
    check_multi_label(multi_label)
    if isinstance(multi_label, MultiLabel):
        return multi_label
    if multi_label:
        return MultiLabel()
    return Binary() if logits == 1 else MultiClass()


def check_multi_label(multi_label: Any) -> None:
    """Raises `ValueError` for what `multi_label` can't be."""
    if multi_label is None or isinstance(multi_label, bool | np.bool_ | MultiLabel):
        return
    raise ValueError(
        f"multi_label={shown(multi_label)} is neither True nor False; give True where each logit is a label by itself, "
        "MultiLabel(threshold=…) for another threshold than one half, or None to have it told from the network"
    )
