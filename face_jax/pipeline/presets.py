"""Papers' settings in `explain`: what is taken where nothing else is given, how they fit, weigh and score."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..activation_checks import SignedActivationsError
from ..activations import Cropping
from ..faithfulness import Faithfulness
from ..faithfulness.losses import loss_for
from ..methods import (
    CRAFT,
    FACE,
    ICA,
    ICE,
    NMF,
    PCA,
    PUBLISHED,
    Bank,
    Method,
    Published,
    RobustPCA,
    SparseAutoencoder,
)
from ..methods.factorizations import scikit_nmf
from ..metrics import Score, c_deletion, deletion_ceiling
from ..model import SplitModel
from ..nmf import HALS, NNDSVD, RESULTS, Result, Solution, SquaredError, Stats, encode, kkt_residual
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..nmf.results import measured
from ..nmf.settings import usual_solver
from ..nmf.solution import count_dead, count_duplicated, normalized
from ..outputs import Outputs
from ..pictures.crop_rules import WholePictures
from ..pictures.preprocess import Preprocess
from ..support.arguments import instance, shown
from .fitting import Fitted
from .material import Material
from .selection import units

# A solution whose scaled KKT residual is below this counts as converged, as `ADMM()` has it.
_CONVERGED = 1e-4


@dataclasses.dataclass(frozen=True)
class Preset:
    """A paper's settings, with what was given beside them.

    **Arguments:**

    - `paper`: the settings as they are used.
    - `instead`: what was given beside the preset, in words, and is taken instead.
    - `crops`: the rule for crops that was given; the paper's if None.
    """

    paper: Published
    instead: tuple[str, ...]
    crops: Any

    @property
    def method(self) -> Any:
        """What fits."""
        return self.paper.method

    @property
    def of_places(self) -> bool:
        """Whether every place of whole pictures is a row."""
        return not getattr(self.method, "crops", True) or (isinstance(self.method, NMF) and self.method.places)

    @property
    def by_method(self) -> bool:
        """Whether the method's own `fit` fits: scikit-learn's, or one of the user's own."""
        return not isinstance(self.method, (FACE, NMF))

    @property
    def solver(self) -> AnySolver | None:
        """Ours, or one that stands for the method's own, whose concepts are at least 0 too."""
        return HALS() if self.by_method else self.method.solver

    @property
    def start(self) -> AnyStart | None:
        """Where the factorization begins."""
        return None if self.by_method else self.method.start

    @property
    def faithfulness(self) -> Literal["auto"] | None:
        """Whether λ is chosen as without a preset; else the method has its own term, or none."""
        return "auto" if isinstance(self.method, FACE) and self.method.faithfulness == "auto" else None

    def objective(self, head: Any, outputs: Outputs) -> AnyObjective | None:
        """What is minimized: FACE's term on the crops beside the squared error; None if that is left to λ's choice."""
        if self.faithfulness == "auto":
            return None
        if not isinstance(self.method, FACE) or self.method.faithfulness == 0:
            return SquaredError()
        # "auto" was left to λ's choice above.
        weight: Any = self.method.faithfulness
        return SquaredError() + weight * Faithfulness(head, loss_for(outputs), unit=self.method.unit)

    def cropping(self, preprocess: Preprocess) -> Cropping:
        """Which crops are taken; whole pictures are one crop each."""
        if self.crops is not None:
            return self.crops
        found = self.paper.crops_of(preprocess)
        return WholePictures(preprocess) if found is None else found

    def check(self, model: SplitModel) -> None:
        """Raises `ValueError` for a model that the paper's method isn't for."""
        if isinstance(self.method, FACE) and not model.head.affine:
            raise ValueError(
                f"preset={self.paper.name!r} keeps the predictions of averaged crops, and the head behind layer="
                f"{model.layer!r} of {model.name} doesn't average first; choose a layer with an affine head (face-jax "
                "layers lists them), or leave preset out, whose concepts keep those of whole photographs"
            )

    def check_photographs(self, count: int) -> None:
        """Raises `ValueError` for a single photograph."""
        if count < 2:
            raise ValueError(
                f"preset={self.paper.name!r} is for photographs of a class, and only one is predicted so; give more, "
                "at best 20 or more, or leave preset out"
            )

    @contextlib.contextmanager
    def refusing_signs(self) -> Iterator[None]:
        """Says it of the preset where activations below zero are refused."""
        try:
            yield
        except SignedActivationsError as error:
            raise SignedActivationsError(
                f"preset={self.paper.name!r} finds concepts of at least 0 ({self.method.name}), and the layer has "
                "activations below zero; give signs='apart' beside it, for positive and negative parts as channels of "
                "their own, or a layer behind a ReLU, or leave preset out"
            ) from error


def preset_of(
    preset: Any, *, rank: Any, crops: Any, faithfulness: Any, objective: Any, solver: Any, start: Any
) -> Preset | None:
    """The preset that was asked for, with what was given beside it; None if none was.

    **Arguments:**

    - `preset`: a name, a `Published`, or None.
    - the others: as they were given to `explain`, checked where they are used.

    **Returns:** the preset. Raises `ValueError` for another word, and for what can't be had beside it.
    """
    if preset is None:
        return None
    names = ", ".join(map(repr, PUBLISHED))
    if isinstance(preset, str) and preset in PUBLISHED:
        preset = PUBLISHED[preset]
    if not isinstance(preset, Published):
        raise ValueError(
            f"preset={shown(preset)} isn't a paper's settings; give one of {names}, or a face_jax.methods.Published"
        )
    method, name = preset.method, preset.name
    if isinstance(method, type) or not isinstance(method, Method):
        raise ValueError(
            f"preset={name!r} has method={shown(method)}, which isn't a method; give an object with a name and "
            "fit(activations, rank, key), such as methods.NMF()"
        )
    # Before any work; of others it's known when they have been fitted.
    for kinds, reason in _KNOWN.items():
        if isinstance(method, kinds):
            raise _held_by_none(name, method, reason)
    if objective is not None:
        raise ValueError(f"preset={name!r} and objective are both given, and each says what is minimized; give one")
    instead, changes = [], {}
    if rank is not None:
        instead.append(f"rank={rank}")
        changes["rank"] = rank
    if crops is not None:
        instead.append(f"crops={crops!r}")
    if not (isinstance(faithfulness, str) and faithfulness == "usual"):
        given = f"faithfulness={faithfulness!r}"
        if isinstance(method, FACE):
            method = dataclasses.replace(method, faithfulness=0.0 if faithfulness is None else faithfulness)
            instead.append(given)
        elif faithfulness is not None:
            raise ValueError(
                f"preset={name!r} has no faithfulness term, and {given} is given; leave one of them out, or give "
                "preset='face'"
            )
    own = {name: value for name, value in (("solver", solver), ("start", start)) if value is not None}
    if own and not isinstance(method, (FACE, NMF, CRAFT, ICE)):
        raise ValueError(
            f"preset={name!r} has a method of its own ({method.name}), and {' and '.join(own)} of a factorization "
            "beside it; leave that out, or give a preset with FACE, NMF, CRAFT or ICE"
        )
    if own:
        instead += [f"{name}={value!r}" for name, value in own.items()]
        if isinstance(method, (CRAFT, ICE)):
            method = NMF(places=isinstance(method, ICE), name=method.name)
        changed: Any = method
        method = dataclasses.replace(changed, **own)
    return Preset(dataclasses.replace(preset, method=method, **changes), tuple(instead), crops)


def fit_by_method(
    preset: Preset,
    model: SplitModel,
    material: Material,
    rank: int,
    key: Key[Array, ""],
) -> Fitted:
    """What a method's own `fit` finds, with what ours would say of it: scikit-learn's of CRAFT and ICE, or the user's.

    **Arguments:**

    - `preset`: with the method.
    - `model`, `material`: what it's fitted on; averages of crops, or whole maps of the photographs.
    - `rank`, `key`: as for the method.

    **Returns:** the concepts, at unit length. Raises `ValueError` for a bank that an explanation can't hold: with an
    offset, codes or concepts below zero, or of another shape.
    """
    method, crops = preset.method, material.pictures.crop_activations
    rows = material.every_place if preset.of_places else crops
    if isinstance(method, (CRAFT, ICE)):
        found = scikit_nmf(rows, rank, method, key)
        dictionary, steps, said = found.components_, found.n_iter_, ""
        ended = RESULTS.max_steps_reached if steps >= method.max_steps else RESULTS.settled
    else:
        dictionary, steps, ended = _bank_of(preset, model, material, rank, key), 0, RESULTS.settled
        said = f"{method.name} ended by its own rule; the scaled KKT residual is that of the squared error."
    activations = jnp.asarray(rows)
    known = jnp.asarray(dictionary, activations.dtype)
    # Codes by the rule that the papers have for photographs.
    columns, dictionary, _ = normalized(encode(activations, known).T, known)
    residual = kkt_residual(activations, columns.T, dictionary).scaled
    value = jnp.sum((activations - columns.T @ dictionary) ** 2) / 2
    code = RESULTS.successful if float(residual) <= _CONVERGED else ended
    solution = Solution(
        codes=columns.T,
        dictionary=dictionary,
        scale=jnp.ones(rank, activations.dtype),
        result=Result(measured(jnp.asarray(code.value, jnp.int32), value)),
        stats=Stats(
            objective=value[None],
            residual=residual[None],
            steps=jnp.asarray(steps, jnp.int32),
            restarts=jnp.zeros((), jnp.int32),
            final_objective=value,
            final_residual=residual,
            dead=count_dead(columns),
            duplicated=count_duplicated(dictionary),
        ),
    )
    codes = np.asarray(encode(jnp.asarray(crops), dictionary))
    return Fitted(
        rows,
        SquaredError(),
        usual_solver(signed=False),
        NNDSVD(),
        solution,
        codes,
        None,
        method=repr(method) if type(method).__repr__ is not object.__repr__ else type(method).__qualname__,
        said=said,
        of_places=preset.of_places,
    )


def _bank_of(
    preset: Preset, model: SplitModel, material: Material, rank: int, key: Key[Array, ""]
) -> Float[np.ndarray, "concept channel"]:
    """The concepts of a method of the user's own, as it's fitted in comparisons, if an explanation can hold them."""
    method, name = preset.method, preset.paper.name
    given = material.every_map if preset.of_places else material.pictures.crop_activations[:, None, None, :]
    if hasattr(method, "prepared"):
        pictures = units(material.fitted, np.arange(len(material.fitted)), affine=model.head.affine)
        order = np.argsort(material.index)
        # Numbers of pictures count those fitted.
        of_crops = order[np.searchsorted(material.index, material.crop_of, sorter=order)]
        method = method.prepared(model, pictures, np.arange(len(pictures)) if preset.of_places else of_crops)
    bank = method.fit(given, rank, key)
    instance(f"{preset.method.name}.fit's result", bank, Bank, "methods.Bank(dictionary, name)")
    if bank.dictionary.shape != (rank, given.shape[-1]):
        raise ValueError(
            f"{preset.method.name} gives a dictionary of shape {bank.dictionary.shape}; give {(rank, given.shape[-1])}"
        )
    reasons = {
        _OFFSET: bank.offset is not None,
        _SIGNED: bank.signed_codes,
        _BELOW: bool((bank.dictionary < 0).any()),
    }  # fmt: skip
    for reason, there in reasons.items():
        if there:
            raise _held_by_none(name, preset.method, reason)
    return bank.dictionary


_OFFSET = "has an offset, and an explanation rebuilds activations from concepts alone"
_SIGNED = "has codes of either sign, and an explanation's codes say how much of a concept there is"
_BELOW = "has concepts with entries below zero, and the layer's activations are at least 0"
_KNOWN = {(PCA, ICA, RobustPCA, SparseAutoencoder): _OFFSET}


def _held_by_none(preset: str, method: Any, reason: str) -> ValueError:
    return ValueError(
        f"preset={preset!r} has method={type(method).__name__}, whose concepts an explanation can't hold: its bank "
        f"{reason}; give a method such as FACE, NMF or KMeans, or compare it by face_jax.compare_methods"
    )


def note_on(preset: Preset, score: Score) -> str:
    """Which preset it is, in what it differs from the default, and what was given beside it."""
    paper = preset.paper
    accuracy, rank = score.fidelity.deletion.accuracy, len(score.fidelity.deletion.accuracy) - 1
    instead = f" Given beside it, and taken in its place: {', '.join(preset.instead)}." if preset.instead else ""
    return (
        f"These are the settings of preset {paper.name}{f', {paper.source}' if paper.source else ''}"
        f"{f': {paper.differs}' if paper.differs else ''}.{instead} Concepts are in the order of its own measure of "
        "importance, which insertion and deletion go by; the controls are encoded and ordered by its rules, too. It "
        "scored the photographs that it had fitted, and here others are scored. By its own definition C-Del is "
        f"{c_deletion(accuracy, paper.deletion):.3f}, at most {deletion_ceiling(rank, paper.deletion):.3f}."
    )
