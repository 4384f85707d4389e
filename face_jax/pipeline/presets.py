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
from ..methods import CRAFT, FACE, ICE, NMF, PUBLISHED, Published
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
from ..support.arguments import shown
from .fitting import Fitted

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
        return isinstance(self.method, ICE) or (isinstance(self.method, NMF) and self.method.places)

    @property
    def by_scikit(self) -> bool:
        """Whether scikit-learn fits."""
        return isinstance(self.method, (CRAFT, ICE))

    @property
    def solver(self) -> AnySolver | None:
        """Ours, or one that stands for scikit-learn's, whose concepts are at least 0 too."""
        return HALS() if self.by_scikit else self.method.solver

    @property
    def start(self) -> AnyStart | None:
        """Where the factorization begins."""
        return None if self.by_scikit else self.method.start

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
    if not isinstance(method, (FACE, NMF, CRAFT, ICE)):
        raise ValueError(
            f"preset={name!r} has method={type(method).__name__}, whose concepts an explanation can't hold; give FACE, "
            "CRAFT, ICE or NMF, or compare it by face_jax.compare_methods"
        )
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
    if own:
        instead += [f"{name}={value!r}" for name, value in own.items()]
        if isinstance(method, (CRAFT, ICE)):
            method = NMF(places=isinstance(method, ICE), name=method.name)
        method = dataclasses.replace(method, **own)
    return Preset(dataclasses.replace(preset, method=method, **changes), tuple(instead), crops)


def fit_by_scikit(
    method: Any,
    rows: Float[np.ndarray, "row channel"],
    crops: Float[np.ndarray, "crop channel"],
    rank: int,
    key: Key[Array, ""],
) -> Fitted:
    """CRAFT's and ICE's factorization, with what ours would say of it.

    **Arguments:**

    - `method`: one of them.
    - `rows`: what is factorized.
    - `crops`: averages of crops, whose codes the explanation has.
    - `rank`, `key`: as for the method.
    """
    found = scikit_nmf(rows, rank, method, key)
    activations = jnp.asarray(rows)
    known = jnp.asarray(found.components_, activations.dtype)
    # Codes by the rule that both papers have for photographs.
    columns, dictionary, _ = normalized(encode(activations, known).T, known)
    residual = kkt_residual(activations, columns.T, dictionary).scaled
    value = jnp.sum((activations - columns.T @ dictionary) ** 2) / 2
    ended = RESULTS.max_steps_reached if found.n_iter_ >= method.max_steps else RESULTS.settled
    code = RESULTS.successful if float(residual) <= _CONVERGED else ended
    solution = Solution(
        codes=columns.T,
        dictionary=dictionary,
        scale=jnp.ones(rank, activations.dtype),
        result=Result(measured(jnp.asarray(code.value, jnp.int32), value)),
        stats=Stats(
            objective=value[None],
            residual=residual[None],
            steps=jnp.asarray(found.n_iter_, jnp.int32),
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
        method=repr(method),
        of_places=rows is not crops,
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
