"""`score_bank`: everything that's measured of one bank of concepts, whichever method made it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import metrics
from ..activations import Collected
from ..heads import shifted
from ..heads.affine import affine_map
from ..methods import Bank, BySobol, Inference, LeastSquares, NonNegativeLeastSquares, Projection, Weighing
from ..metrics import CodeSparsity, Completeness, Score, SurrogateCheck
from ..metrics.predictions import logits_of
from ..model import SplitModel, check_model
from ..pipeline.ranking import looked_at
from ..support.arguments import Seed, flag, function, key_of, real_array
from ..support.classes import Target as Class
from ..support.classes import class_index
from ..support.precision import full_precision
from ..support.reprs import short_repr
from .pictures import as_scored, in_both, pictures_of

if TYPE_CHECKING:
    Weights = Weighing | Float[np.ndarray, " concept"]
    Rule = Inference | None
    Averaged = bool | None
else:
    # Whoever gives something else is told so by the checks below.
    Weights = Rule = Averaged = Any
# Dictionaries drawn at random that the surrogate is compared with.
_DRAWS = 5


@dataclasses.dataclass(frozen=True)
class BankScore:
    """How a bank does on pictures that it was not fitted on.

    **Arguments:**

    - `score`: what reports have of an explanation, by the same definitions.
    - `mean_squared_error`: `‖A − Â‖² / (n p)`.
    - `accuracy`: share of pictures for which the target is predicted from rebuilt activations.
    - `projected_accuracy`: the same from `A W Wᵀ`, what FACE's published code calls the accuracy after NMF.
    - `original_accuracy`, `accuracy_of_nothing`: from the activations themselves, and from the bank's offset alone.
    - `sparsity`: of the codes.
    - `completeness`: errors of the logits, and bounds.
    - `surrogate`: SURF's linear surrogate, over all classes: presence is the codes' sum over places, and a concept
        weighs the logits' derivative along it in the pictures fitted.
    - `surrogate_from_offset`: the same beside the logits of the offset alone, without which heads' biases and means
        count as errors.
    - `importance`: of the concepts, by which they were inserted and deleted.
    - `images`: how many were scored on.
    """

    score: Score
    mean_squared_error: float
    accuracy: float
    projected_accuracy: float
    original_accuracy: float
    accuracy_of_nothing: float
    sparsity: CodeSparsity
    completeness: Completeness
    surrogate: SurrogateCheck
    surrogate_from_offset: SurrogateCheck
    importance: Float[np.ndarray, " concept"]
    images: int

    __repr__ = short_repr

    def table(self) -> dict[str, float]:
        """All numbers by name, those with a ceiling beside it."""
        score, concepts = self.score, len(self.importance)
        deletion = score.fidelity.deletion.accuracy
        surrogates = {"surrogate": self.surrogate, "surrogate_from_offset": self.surrogate_from_offset}
        return {
            "relative_error": score.relative_error,
            "mean_squared_error": self.mean_squared_error,
            "kl": score.kl,
            "l1": score.l1,
            "agreement": score.agreement,
            "accuracy": self.accuracy,
            "projected_accuracy": self.projected_accuracy,
            "original_accuracy": self.original_accuracy,
            "accuracy_of_nothing": self.accuracy_of_nothing,
            "c_insertion": score.fidelity.c_insertion,
            "c_insertion_ceiling": metrics.insertion_ceiling(concepts, min(self.accuracy_of_nothing, 1.0)),
            **{
                f"c_deletion{mark}": value(deletion)
                for mark, value in {
                    "": metrics.c_deletion,
                    "_code": lambda curve: metrics.c_deletion(curve, "code"),
                    "_lad": lambda curve: metrics.c_deletion(curve, "lad"),
                }.items()
            },
            "c_deletion_ceiling": metrics.deletion_ceiling(concepts),
            "c_gini": score.gini,
            "c_gini_ceiling": metrics.gini_ceiling(concepts),
            "non_zero_codes": self.sparsity.non_zero,
            "hoyer": self.sparsity.hoyer,
            "fidelity_error": self.completeness.fidelity_error,
            "fidelity_bound": self.completeness.bound,
            "additivity_error": self.completeness.additivity_error,
            **{
                f"{name}_{mark}": value
                for name, check in surrogates.items()
                for mark, value in {
                    "mae": check.own.mae,
                    "emd": check.own.emd,
                    "mae_random_concepts": check.random_concepts.mae,
                    "mae_random_weights": check.random_weights.mae,
                }.items()
            },
        }


@full_precision
def score_bank(
    model: SplitModel,
    pictures: Any,
    bank: Bank | Float[np.ndarray, "concept channel"],
    *,
    target: Class,
    fitted: Any = None,
    importance: Weights = BySobol(),  # noqa: B008 (settings: frozen)
    inference: Rule = None,
    averaged: Averaged = None,
    key: Seed = None,
) -> BankScore:
    """Everything that's measured of a bank, on pictures that it was not fitted on.

    **Arguments:**

    - `model`: the split classifier.
    - `pictures`: what to score on: photographs, of which those are kept that the model puts in the class, or
        `Collected` activations, as they are (such as `explanation.pictures.collected[explanation.pictures.held_out]`).
    - `bank`: a `methods.Bank`, or a dictionary whose codes are at least 0.
    - `target`: the class, by name or number.
    - `fitted`: pictures that the bank was fitted on, likewise; importance is measured in them. None in them may be
        scored on.
    - `importance`: the measure, `bank.importance` for the method's own; or numbers, one a concept, found elsewhere.
    - `inference`: the rule for codes, `bank.inference` for the method's own. None: the rule that all methods have in
        common, non-negative least squares, or least squares where codes have signs.
    - `averaged`: whether pictures are averaged over their places before they are encoded. None: where the head averages
        first, as `explain` does it.
    - `key`: for whatever is drawn, or a seed.

    **Returns:** the scores. Raises `ValueError` for pictures that are among those fitted, and for arguments that don't
    fit together; `UnknownClassError` for a class that the model doesn't have.

    **Example:**

    >>> pictures = explanation.pictures
    >>> fitted, held_out = (pictures.collected[index] for index in (pictures.fitted, pictures.held_out))
    >>> found = fj.score_bank(model, held_out, explanation.dictionary, target="warm", fitted=fitted)
    >>> np.isclose(found.score.kl, explanation.scores.own.kl, rtol=1e-4)
    np.True_
    """
    check_model(model)
    bank = bank if isinstance(bank, Bank) else Bank(real_array("bank", bank, "concept × channel"), "dictionary")
    number, key = class_index(model.classes, target), key_of(key)
    averaged = bool(model.head.affine) if averaged is None else flag("averaged", averaged)
    if averaged and not model.head.affine:
        raise ValueError(
            f"averaged=True, and the head of {model.name} behind layer={model.layer!r} doesn't average first; leave it "
            "out"
        )
    if inference is not None:
        function("inference", inference, "a rule such as methods.LeastSquares(), or None for the rule of all methods")
    scored = pictures_of(model, pictures, number, "pictures")
    seen = None if fitted is None else pictures_of(model, fitted, number, "fitted")
    weighs = callable(importance)
    if weighs:
        function("importance", importance, "a measure such as methods.BySobol(), or one number a concept")
    if seen is None and weighs:
        raise ValueError(
            "fitted=None, and importance is to be measured in pictures that aren't scored on; give those that the bank "
            "was fitted on, or importance as one number a concept"
        )
    if seen is not None and (both := in_both(seen, scored)):
        raise ValueError(f"{both} of {len(scored)} pictures are among those fitted; score on others")
    scored = as_scored(scored, averaged=averaged)
    seen = None if seen is None else as_scored(seen, averaged=averaged)
    head = shifted(model.head, bank.offset)
    if seen is not None:
        seen = seen[looked_at(model, len(seen))]
    if weighs:
        assert seen is not None
        weights = _weights(model, importance, bank, seen, inference, number, key)
    else:
        weights = real_array("importance", importance, "concept")
    if len(weights) != len(bank):
        raise ValueError(f"importance has {len(weights)} numbers for {len(bank)} concepts; give one for each")
    maps, own = _without(scored.maps, bank), scored.head(head)
    codes = bank.encode(scored.maps, inference, head=own)
    dictionary = bank.dictionary.astype(maps.dtype)
    score = metrics.score(
        bank.name, model.head, scored, dictionary, number, weights, model.outputs, codes=codes, offset=bank.offset
    )
    projected = logits_of(own, (maps @ dictionary.T) @ dictionary)
    nothing = logits_of(own, np.zeros_like(maps))
    surrogate, from_offset = _surrogates(
        model, bank, scored, scored if seen is None else seen, inference, codes, nothing.mean(axis=0), key
    )
    return BankScore(
        score=score,
        mean_squared_error=metrics.mean_squared_error(scored.maps, bank.decode(codes).astype(maps.dtype)),
        accuracy=float(score.fidelity.deletion.accuracy[0]),
        projected_accuracy=float(model.outputs.has(projected, number).mean()),
        original_accuracy=float(model.outputs.has(scored.logits, number).mean()),
        accuracy_of_nothing=float(model.outputs.has(nothing, number).mean()),
        sparsity=metrics.code_sparsity(codes),
        completeness=metrics.completeness_bounds(own, maps, codes, dictionary, number),
        surrogate=surrogate,
        surrogate_from_offset=from_offset,
        importance=weights,
        images=len(scored),
    )


def _weights(
    model: SplitModel, importance: Any, bank: Bank, seen: Collected, inference: Any, target: int, key: Any
) -> Float[np.ndarray, " concept"]:
    head = seen.head(shifted(model.head_for(target), bank.offset))
    # Rules for codes ask for predictions, which the other class's logit isn't.
    codes = bank.encode(seen.maps, inference, head=seen.head(shifted(model.head, bank.offset)))
    dictionary = bank.dictionary.astype(codes.dtype)
    found = importance(head, _without(seen.maps, bank), codes, dictionary, target, key)
    return real_array("importance", found, "concept")


def _without(maps: Float[np.ndarray, "image y x channel"], bank: Bank) -> Float[np.ndarray, "image y x channel"]:
    return maps if bank.offset is None else maps - bank.offset.astype(maps.dtype)


def _surrogates(
    model: SplitModel,
    bank: Bank,
    scored: Collected,
    seen: Collected,
    inference: Any,
    codes: Float[np.ndarray, "image y x concept"],
    nothing: Float[np.ndarray, " class"],
    key: Any,
) -> tuple[SurrogateCheck, SurrogateCheck]:
    """SURF's surrogate without and with the logits of the offset."""
    signed = bank.signed_codes or bool((bank.dictionary < 0).any())
    drawn = []
    for each in jax.random.split(jax.random.fold_in(key, 1), _DRAWS):
        random = metrics.random_dictionary(bank.dictionary.shape[1], len(bank), key=each, signed=signed)
        drawn.append(dataclasses.replace(bank, dictionary=random.astype(bank.dictionary.dtype)))
    # A trained encoder has nothing to say of other concepts.
    rule = inference if isinstance(inference, (LeastSquares, NonNegativeLeastSquares, Projection)) else None
    presences = [codes, *(each.encode(scored.maps, rule) for each in drawn)]
    summed = np.stack([each.sum(axis=(1, 2)) for each in presences])
    slopes = np.stack([_slopes(model, each, seen) for each in (bank, *drawn)])
    given = (scored.logits, summed[0], slopes[0], summed[1:], slopes[1:])
    return (
        metrics.surrogate_check(*given, outputs=model.outputs, key=key),
        metrics.surrogate_check(*given, nothing=nothing, outputs=model.outputs, key=key),
    )


def _slopes(model: SplitModel, bank: Bank, seen: Collected) -> Float[np.ndarray, "concept class"]:
    """What each logit gains by a concept's code at one place, averaged over places and pictures."""
    places = seen.maps.shape[1] * seen.maps.shape[2]
    dictionary = bank.dictionary.astype(seen.maps.dtype)
    if model.head.affine:
        kernel = np.asarray(affine_map(model.head, dictionary.shape[1], dictionary.dtype)[0])
        return dictionary @ kernel / places
    return np.asarray(_along(seen.head(model.head), jnp.asarray(seen.maps), jnp.asarray(dictionary))) / places


@jax.jit
def _along(
    head: Any, maps: Float[Array, "image y x channel"], dictionary: Float[Array, "concept channel"]
) -> Float[Array, "concept class"]:
    def one(concept: Float[Array, " channel"]) -> Float[Array, " class"]:
        return jnp.mean(jax.jvp(head, (maps,), (jnp.broadcast_to(concept, maps.shape),))[1], axis=0)

    return jax.lax.map(one, dictionary)
