"""Methods whose codes are at least 0: NMF in its variants, sparse coding, FACE, and others' published settings."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..activations import Collected
from ..faithfulness import InMeans, InSums, Unit, faithful_rows
from ..faithfulness.chosen_lambda import fit_along, leading_to, path_judged_on
from ..faithfulness.lambda_path import SETTINGS as FAITHFUL
from ..model import SplitModel
from ..nmf import NNDSVD, PaperAdam, Random, SquaredError, factorize
from ..nmf.options import AnySolver, AnyStart
from ..nmf.settings import check_solver, check_start, usual_objective, usual_solver
from ..outputs import AnyOutputs, MultiClass, Outputs
from ..support.arguments import check_count, flag, instance, one_of, real, text
from ..support.randomness import generator, seed_from
from .bank import AnyInference, Bank, averages_of, maps_of, places_of
from .inference import ByObjective, LeastSquares
from .packages import scikit_learn
from .weighing import ByDirectionalDerivative

if TYPE_CHECKING:
    Faithful = float | Literal["auto"]
    AnyUnit = Unit
else:
    # Whoever gives something else is told so by the classes below.
    Faithful = AnyUnit = Any
_NO_SOLVER: Any = None
_NNDSVD, _IN_SUMS, _MULTI_CLASS = NNDSVD(), InSums(), MultiClass()  # frozen


@dataclasses.dataclass(frozen=True)
class NMF:
    """Non-negative factorization, `face_jax.factorize`; semi-NMF with `solver=SemiNMF()`.

    **Arguments:**

    - `solver`: how; `ADMM()` if None, or `SemiNMF()` where activations are below zero.
    - `start`: from where.
    - `places`: whether every place is a row; averages of crops or pictures are if not.
    - `name`: what tables call it.
    """

    solver: AnySolver = _NO_SOLVER
    start: AnyStart = _NNDSVD
    places: bool = False
    name: str = "NMF"

    def __post_init__(self) -> None:
        if self.solver is not None:
            check_solver(self.solver)
        check_start(self.start)
        flag("places", self.places)
        text("name", self.name, "a name")

    @property
    def learned(self) -> bool:
        """True: as a control, such as λ = 0, it must be beaten in predictions alone."""
        return True

    def started_at_random(self) -> NMF:
        """The same from a random start: the usual one is always the same, and would find the same again."""
        return dataclasses.replace(self, start=Random())

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Factorize."""
        rows = places_of(activations) if self.places else averages_of(activations)
        solver = usual_solver(signed=bool((rows < 0).any())) if self.solver is None else self.solver
        found = factorize(jnp.asarray(rows), rank, solver=solver, start=self.start, key=key)
        return Bank(np.asarray(found.dictionary), self.name)


@dataclasses.dataclass(frozen=True)
class SparseCoding:
    """Non-negative sparse coding of all places of whole pictures: squared error and a price on codes (Hoyer 2002).

    What `face_jax.explain` does by default where concepts may have entries below zero: without the price, any mixture
    of such concepts fits as well.

    **Arguments:**

    - `start`: from where.
    - `name`: what tables call it.
    """

    start: AnyStart = _NNDSVD
    name: str = "sparse coding"

    def __post_init__(self) -> None:
        check_start(self.start)
        text("name", self.name, "a name")

    @property
    def crops(self) -> bool:
        """False: it takes whole pictures."""
        return False

    def started_at_random(self) -> SparseCoding:
        """The same from a random start."""
        return dataclasses.replace(self, start=Random())

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Factorize, with the price that `explain` takes."""
        rows = places_of(activations)
        rank = check_count("rank", rank, "concepts")
        solver, objective = usual_solver(signed=bool((rows < 0).any())), usual_objective(rows, rank, signed=True)
        found = factorize(jnp.asarray(rows), rank, objective=objective, solver=solver, start=self.start, key=key)
        return Bank(np.asarray(found.dictionary), self.name)


@dataclasses.dataclass(frozen=True)
class FACE:
    """FACE: a factorization that also keeps what the classifier predicts, `SquaredError() + λ * Faithfulness(head)`.

    By default as `face_jax.explain(…, faithfulness="auto")` has it: the predictions of whole pictures are kept, and λ
    is chosen on some of them. `FACE.published()` is the paper's.

    **Arguments:**

    - `faithfulness`: λ, or `"auto"`.
    - `unit`: what a number means: `InSums()` as in the formula, `InMeans()` as in the published code.
    - `solver`, `start`: for `factorize`.
    - `of_crops`: whether the predictions of what is factorized are kept, as published, and not whole pictures'.
    - `head`: from activations to logits; a comparison knows it from the model.
    - `pictures`: whole pictures whose predictions are kept; a comparison gives those that are fitted. The activations
        themselves if None.
    - `crop_of`: for each of the activations fitted the number of its picture, so that λ is chosen on pictures that no
        crop is of; all are used if None.
    - `outputs`: what the logits mean.
    - `inference`: the rule that `bank.inference` is; by the objective with its λ if None.
    - `name`: what tables call it.
    """

    faithfulness: Faithful = "auto"
    unit: AnyUnit = _IN_SUMS
    solver: AnySolver = _NO_SOLVER
    start: AnyStart = _NNDSVD
    of_crops: bool = False
    head: Any = None
    pictures: Collected | None = None
    crop_of: Any = None
    outputs: AnyOutputs = _MULTI_CLASS
    inference: AnyInference = None
    name: str = "FACE"

    def __post_init__(self) -> None:
        if isinstance(self.faithfulness, str):
            one_of("faithfulness", self.faithfulness, ("auto",))
        else:
            object.__setattr__(self, "faithfulness", real("faithfulness", self.faithfulness, "weight", least=0))
        instance("unit", self.unit, Unit, "InSums() or InMeans()")
        instance("outputs", self.outputs, Outputs, "MultiClass() or MultiLabel()")
        if self.solver is not None:
            check_solver(self.solver)
        check_start(self.start)
        flag("of_crops", self.of_crops)
        text("name", self.name, "a name")

    @classmethod
    def published(cls, faithfulness: float = 1e-5, **settings: Any) -> FACE:
        """The paper's: Adam from NNDSVD on crops alone, λ in the published code's unit, codes by least squares.

        **Arguments:**

        - `faithfulness`: λ in means: 1e-5 for ImageNet and COCO, 1e5 for CelebA (FACE, section 4.4).
        - `settings`: others of `FACE` in place of these.
        """
        given: dict[str, Any] = {
            "unit": InMeans(), "solver": PaperAdam(), "of_crops": True, "inference": LeastSquares(),
            "name": f"FACE as published, λ = {faithfulness:g}",
        }  # fmt: skip
        return cls(faithfulness, **(given | settings))

    @property
    def learned(self) -> bool:
        """True: as a control, such as λ = 0, it must be beaten in predictions alone."""
        return True

    def started_at_random(self) -> FACE:
        """The same from a random start."""
        return dataclasses.replace(self, start=Random())

    def prepared(self, model: SplitModel, pictures: Collected, crop_of: Any = None) -> FACE:
        """With the model's head and the pictures fitted, where these weren't given."""
        if self.of_crops and model.with_tokens is not None:
            raise ValueError(
                f"{self.name} keeps the predictions of crops, and the head of {model.name} takes tokens of whole "
                "pictures besides; take of_crops=False"
            )
        asked = self.pictures is None and not self.of_crops
        return dataclasses.replace(
            self,
            head=model.head if self.head is None else self.head,
            outputs=model.outputs,
            pictures=pictures if asked else self.pictures,
            crop_of=crop_of if asked else self.crop_of,
        )

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Factorize with the term."""
        if self.head is None:
            raise ValueError(f"{self.name} has head=None; give the classifier's, FACE(head=model.head)")
        maps = maps_of(activations)
        pictures = Collected(maps, np.zeros((len(maps), 1), maps.dtype)) if self.pictures is None else self.pictures
        head = pictures.head(self.head)
        crops = averages_of(maps)
        if self.pictures is None or _same(crops, averages_of(pictures.maps)):
            # Pictures are rows by themselves, and would count twice.
            crops = crops[:0]
        rows, term = faithful_rows(head, crops, pictures.maps, self.outputs)
        term = dataclasses.replace(term, unit=self.unit)
        signed = bool((rows < 0).any())
        solver = usual_solver(signed=signed, **FAITHFUL) if self.solver is None else self.solver
        settings: dict[str, Any] = {"solver": solver, "start": self.start, "key": key}
        if self.faithfulness == "auto":
            path = self._path(crops, pictures, rank, solver, key)
            objective = SquaredError() + path.weight * term
            found = fit_along(leading_to(path), rows, rank, term, **settings)
        else:
            objective = SquaredError() + float(self.faithfulness) * term
            found = factorize(jnp.asarray(rows), rank, objective=objective, **settings)
        # Where the solver has lengths of its own, `A W Wᵀ` is about these.
        scale = found.scale if isinstance(solver, PaperAdam) else jnp.ones_like(found.scale)
        inference = ByObjective(objective) if self.inference is None else self.inference
        return Bank(np.asarray(found.dictionary * scale[:, None]), self.name, inference=inference)

    def _path(self, crops: Any, pictures: Collected, rank: int, solver: Any, key: Key[Array, ""]) -> Any:
        if len(pictures) < 2:
            raise ValueError(
                'faithfulness="auto" chooses λ on some of the pictures, and there is only one; give a number'
            )
        return path_judged_on(
            pictures, self.head, crops, None if self.crop_of is None else np.asarray(self.crop_of), rank,
            shuffled=generator(jax.random.fold_in(key, 1)).permutation(len(pictures)), single=False,
            outputs=self.outputs, unit=self.unit, solver=solver, start=self.start, key=key,
        )  # fmt: skip


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.allclose(first, second))


@dataclasses.dataclass(frozen=True)
class _ScikitNMF:
    """What CRAFT and ICE have in common: scikit-learn's NMF as it comes."""

    max_steps: int = 200
    name: str = "NMF of scikit-learn"
    start: str | None = None

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, "steps")
        text("name", self.name, "a name")
        if self.start is not None:
            one_of("start", self.start, ("random", "nndsvd", "nndsvda", "nndsvdar"))

    def started_at_random(self) -> _ScikitNMF:
        """The same from a random start."""
        return dataclasses.replace(self, start="random")


@dataclasses.dataclass(frozen=True)
class CRAFT(_ScikitNMF):
    """CRAFT's setting: scikit-learn's NMF as it comes, on averages of crops (CRAFT, section 3.1, and its code 0.0.3).

    The crops are whatever is given; `PUBLISHED["craft"]` says which its code takes.

    **Arguments:**

    - `max_steps`: scikit-learn's `max_iter`.
    - `name`: what tables call it.
    - `start`: scikit-learn's `init`; None as it comes, `"random"` for a random one.
    """

    name: str = "CRAFT"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Factorize."""
        return Bank(scikit_nmf(averages_of(activations), rank, self, key).components_, self.name)


@dataclasses.dataclass(frozen=True)
class ICE(_ScikitNMF):
    """ICE's setting: scikit-learn's NMF as it comes, on all places of whole pictures (Zhang et al. 2021, and its code).

    Its own importance is the derivative of the logit along each concept.

    **Arguments:** as for `CRAFT`.
    """

    name: str = "ICE"

    @property
    def crops(self) -> bool:
        """False: it takes whole pictures."""
        return False

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Factorize."""
        found = scikit_nmf(places_of(activations), rank, self, key).components_
        return Bank(found, self.name, importance=ByDirectionalDerivative())


def scikit_nmf(rows: Float[np.ndarray, "row channel"], rank: Any, method: _ScikitNMF, key: Key[Array, ""]) -> Any:
    """Scikit-learn's estimator, fitted: its `components_` are the concepts, and it took `n_iter_` steps."""
    name, steps = method.name, method.max_steps
    rank = check_count("rank", rank, "concepts")
    if (rows < 0).any():
        raise ValueError(
            f"activations have {int((rows < 0).sum())} of {rows.size} entries below zero, the lowest {rows.min():.4g}, "
            f"which {name} can't represent; take NMF(solver=SemiNMF()), or a layer behind a ReLU"
        )
    scikit_learn(name)
    from sklearn import decomposition
    from sklearn.exceptions import ConvergenceWarning

    seed = seed_from(key)
    with warnings.catch_warnings():
        # It's published with so many steps, whether or not they are enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return decomposition.NMF(rank, init=method.start, max_iter=steps, random_state=seed).fit(rows)
