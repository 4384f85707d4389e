"""What the estimators' settings mean: scikit-learn's words for starts and solvers, penalties, losses."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.utils import check_random_state

from ..nmf import ADMM, HALS, NNDSVD, MultiplicativeUpdate, NNDSVDa, NNDSVDar, PaperAdam, Random, Solver, Start, Warmup
from ..nmf.beta_divergence import BetaDivergence
from ..nmf.objective import Objective
from ..support.arguments import check_count, flag, float_or_none, instance, one_of, real, shown, whole
from .arrays import namespace
from .shuffled import ShuffledHALS

SOLVERS: dict[str, Any] = {"cd": HALS(), "mu": MultiplicativeUpdate()}
STARTS: dict[str, Any] = {"random": Random(), "nndsvd": NNDSVD(), "nndsvda": NNDSVDa(), "nndsvdar": NNDSVDar()}
LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}
CROSS_VALIDATED = "cross-validated"
IGNORE, UNSTORED = "ignore", "unstored"


def missing_of(value: Any) -> str | None:
    """The word that says what stands for values that weren't observed; None if all were."""
    return None if value is None else one_of("missing", value, (IGNORE, UNSTORED))


@dataclasses.dataclass(frozen=True)
class Penalties:
    """Of both factors, as the core counts them.

    **Arguments:**

    - `codes`, `components`: the linear and the square one of each.
    """

    codes: tuple[float, float]
    components: tuple[float, float]

    @staticmethod
    def of(estimator: Any, samples: int, features: int) -> Penalties:
        """scikit-learn's, which grow with the number of features and of samples."""
        alpha_w = real("alpha_W", estimator.alpha_W, "penalty", least=0)
        same = isinstance(estimator.alpha_H, str) and estimator.alpha_H == "same"
        alpha_h = alpha_w if same else real("alpha_H", estimator.alpha_H, "penalty, nor 'same'", least=0)
        ratio = real("l1_ratio", estimator.l1_ratio, "share", least=0, most=1)
        codes, components = features * alpha_w, samples * alpha_h
        return Penalties((codes * ratio, codes * (1 - ratio)), (components * ratio, components * (1 - ratio)))

    @property
    def some(self) -> bool:
        """Whether there are any."""
        return any(self.codes) or any(self.components)

    @property
    def one_sided(self) -> bool:
        """Whether one factor alone has some."""
        return any(self.codes) != any(self.components)

    def objective(self, beta: float = 2.0, row_weights: Any = None) -> Objective:
        """The loss with them."""
        (l1_codes, l2_codes), (l1_dictionary, l2_dictionary) = self.codes, self.components
        return BetaDivergence(
            beta, row_weights=row_weights, l1_codes=l1_codes, l2_codes=l2_codes,
            l1_dictionary=l1_dictionary, l2_dictionary=l2_dictionary,
        ).fit  # fmt: skip

    def of_codes(self, beta: float = 2.0) -> Objective:
        """The loss with the penalties on codes, which is all that inference has to do with."""
        return BetaDivergence(beta, l1_codes=self.codes[0], l2_codes=self.codes[1]).fit


def check_shared(estimator: Any) -> None:
    """Raises `ValueError` for settings of both estimators that a fit might never look at otherwise."""
    if not isinstance(estimator.verbose, bool | np.bool_):
        whole("verbose", estimator.verbose, "levels, nor a truth value")
    if estimator.init is not None:
        one_of("init", estimator.init, (*STARTS, "custom"))
    random_of(estimator)


def random_of(estimator: Any) -> np.random.RandomState:
    """Random numbers from `random_state`."""
    try:
        return check_random_state(estimator.random_state)
    except ValueError:
        raise ValueError(
            f"random_state={shown(estimator.random_state)} isn't a seed; give a whole number from 0 on, a "
            "np.random.RandomState, or None"
        ) from None


def loss_for(value: Any, rows: Any, missing: str | None) -> float:
    """β; raises `ValueError` for what these rows, dense or sparse, can't have."""
    beta = loss_of(value)
    sparse = scipy.sparse.issparse(rows)
    if sparse and missing != UNSTORED and beta not in (1, 2):
        why = "and is infinite at 0" if beta <= 0 else "as Σ y^β over them takes the product at every entry"
        raise ValueError(
            f"beta_loss={value!r} takes each unstored zero of a sparse X by itself, {why}; give 'frobenius' or "
            "'kullback-leibler', which need only sums over them, or missing='unstored' if they weren't observed, or "
            "X.toarray()"
        )
    values = rows.data if sparse else rows
    if beta <= 0 and values.size and not namespace(values).nanmin(values) > 0:
        raise ValueError(
            "When beta_loss <= 0 and X contains zeros, the solver may diverge. Please add small values to X, or "
            "use a positive beta_loss."
        )
    return beta


def loss_of(value: Any) -> float:
    """β of `beta_loss`; raises `ValueError` for what isn't one."""
    if isinstance(value, str):
        return LOSSES[one_of("beta_loss", value, tuple(LOSSES))]
    found = float_or_none(value)
    if found is None or found != found or abs(found) == float("inf"):
        raise ValueError(f"beta_loss={shown(value)} isn't a loss; give {', '.join(map(repr, LOSSES))}, or a number")
    return found


def solver_of(estimator: Any, seed: int) -> Solver | PaperAdam:
    """The rule, with the estimator's tolerance and number of steps."""
    shuffle = flag("shuffle", estimator.shuffle)
    if isinstance(estimator.solver, str):
        solver = SOLVERS[one_of("solver", estimator.solver, tuple(SOLVERS))]
        if shuffle and estimator.solver == "cd":
            solver = ShuffledHALS(seed=seed)
    else:
        kinds = (Solver, PaperAdam)
        words = "HALS(), or 'cd', or 'mu'"
        solver = ADMM() if estimator.solver is None else instance("solver", estimator.solver, kinds, words)
    # The published algorithm has a tolerance of another kind.
    changes: dict[str, Any] = {}
    if estimator.tol is not None:
        tol = real("tol", estimator.tol, "tolerance", least=0)
        changes = {} if isinstance(solver, PaperAdam) else {"rtol": tol}
    if estimator.max_iter is not None:
        changes["max_steps"] = check_count("max_iter", estimator.max_iter, "passes")
    return dataclasses.replace(solver, **changes)


def start_of(estimator: Any, rank: int, shape: tuple[int, int], *, sticky: bool = False) -> Any:
    """Where it starts, without zeros if those would be `sticky`; None with `init="custom"`.

    Raises `ValueError` for two of them, and for one that can't be.
    """
    init, start = estimator.init, getattr(estimator, "start", None)
    if start is not None and init is not None:
        raise ValueError(f"init={init!r} and start={shown(start)} are both given; leave one out")
    if start is not None:
        return instance("start", start, Start, "Random() or Warmup()")
    if init is None:
        return Random() if sticky else Warmup()
    if one_of("init", init, (*STARTS, "custom")) == "custom":
        return None
    if init != "random" and rank > min(shape):
        raise ValueError(
            f"init = '{init}' can only be used when n_components <= min(n_samples, n_features), and these are {rank} "
            f"and {min(shape)}; give init='random', or None"
        )
    return STARTS[init]
