"""The factorization by mini-batches, as a scikit-learn estimator."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from ..linalg.sparse_rows import SparseRows
from ..nmf import ADMM, factorize
from ..nmf.solvers.warmup import spread
from ..nmf.sparse import solve
from ..nmf.sparse_starts import begin
from ..support.arguments import check_count, flag, real
from ..support.precision import full_precision
from .base import Base, Matrix
from .batch_steps import Sums, step
from .fitting import length, on_device, precision
from .nmf import NMF
from .settings import Penalties, loss_of, start_of

_SAMPLE = 4096  # rows that the first components are found in
_WARM, _FIRST_SWEEPS, _SWEEPS = 20, 10, 2


class MiniBatchNMF(Base):
    """Non-negative matrix factorization by mini-batches, with scikit-learn's interface, `partial_fit` among it.

    Each batch improves its codes, then the components, from sums over all batches so far (Mairal, Bach, Ponce & Sapiro
    2010), earlier ones counting less: by exact coordinate descent for the squared error, by multiplicative updates for
    other losses. What `transform` and `fit_transform` return are exact minimizers for the components found.

    **Arguments:**

    - `n_components`, `init`, `beta_loss`, `alpha_W`, `alpha_H`, `l1_ratio`, `random_state`, `verbose`: as for `NMF`.
        The first components are found in up to 4096 rows. With a penalty on one factor alone, length moves into the
        other one from step to step, as in scikit-learn.
    - `batch_size`: samples of a batch. One batch of all samples with `forget_factor=0` is `NMF(solver="mu")`.
    - `tol`: stop when components change by no more than this share in a step; 0 never does.
    - `max_no_improvement`: stop after so many steps that didn't lower the smoothed loss; None never does.
    - `max_iter`: passes over the data.
    - `forget_factor`: what a pass over the data later counts of what batches have added up; from 0 to 1.
    - `fresh_restarts`: whether codes of a batch start from nothing each time, not from where they were.
    - `fresh_restarts_max_iter`: how often they are gone through then.
    - `transform_max_iter`: takes part in scikit-learn's interface; codes are exact, whatever it is.

    **Attributes:** `components_`, `n_components_`, `reconstruction_err_`, `n_iter_`, `n_steps_`, `n_features_in_`.
    """

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        init: Any = None,
        batch_size: Any = 1024,
        beta_loss: Any = "frobenius",
        tol: Any = 1e-4,
        max_no_improvement: Any = 10,
        max_iter: Any = 200,
        alpha_W: Any = 0.0,
        alpha_H: Any = "same",
        l1_ratio: Any = 0.0,
        forget_factor: Any = 0.7,
        fresh_restarts: Any = False,
        fresh_restarts_max_iter: Any = 30,
        transform_max_iter: Any = None,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.init = init
        self.batch_size = batch_size
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.max_iter = max_iter
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.forget_factor = forget_factor
        self.fresh_restarts = fresh_restarts
        self.fresh_restarts_max_iter = fresh_restarts_max_iter
        self.transform_max_iter = transform_max_iter
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> MiniBatchNMF:
        """Find the components of X; arguments as for `fit_transform`."""
        self.fit_transform(X, y, W, H)
        return self

    @full_precision
    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride] (scikit-learn's own takes W and H)
        self, X: Any, y: Any = None, W: Any = None, H: Any = None
    ) -> Any:
        """Find the components of X, and X in terms of them.

        **Arguments:**

        - `X`: `sample × feature`, at least 0.
        - `y`: takes part in scikit-learn's interface.
        - `W`, `H`: where to start, `sample × component` and `component × feature`, with `init="custom"`.

        **Returns:** the codes. Raises `ValueError` for settings that aren't valid.
        """
        del y
        rows, back = self._read(X, reset=True)
        settings = self._settings(rows)
        if settings.size == rows.shape[0] and settings.forget == 0:
            self._as_nmf(rows, W, H)
        else:
            with precision(rows):
                self._go(rows, settings, W, H)
        codes = self._codes(rows)
        self.reconstruction_err_ = length(rows, codes, self.components_, settings.beta)
        return back(codes)

    @full_precision
    def partial_fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> MiniBatchNMF:
        """Go on with a batch that all of X is.

        **Arguments:** as for `fit_transform`; W and H are looked at in the first call only.
        """
        del y
        first = not hasattr(self, "components_")
        rows, _ = self._read(X, reset=first)
        settings = self._settings(rows)
        with precision(rows):
            if first:
                self.components_ = np.asarray(self._begun(rows, W, H)[1])
                self.n_components_, self.n_steps_, self._sums = len(self.components_), 0, None
            components = self.components_.astype(rows.dtype)
            sums = self._sums or Sums.begun(components, settings.beta)
            fresh = _fresh(rows, len(components), settings.beta)
            _, found, _ = step(
                rows, fresh, jnp.asarray(components), sums, beta=settings.beta,
                penalties=Penalties.of(self, *rows.shape), rho=settings.forget, sweeps=settings.restarts,
            )  # fmt: skip
            self.components_, self._sums = np.array(found), sums
        self.n_steps_ += 1
        return self

    def _go(self, rows: Matrix, settings: _Settings, W: Any, H: Any) -> None:
        """Batch after batch, until components or loss stand still."""
        samples = rows.shape[0]
        codes, components = self._begun(rows, W, H)
        visited = self.init == "custom"
        sums, components = Sums.begun(components, settings.beta), jnp.asarray(components)
        starts = range(0, samples, settings.size)
        total, done, smooth, best, worse, stopped = settings.passes * len(starts), 0, None, None, 0, False
        for number in range(total):
            at = starts[number % len(starts)]
            batch = slice(at, min(at + settings.size, samples))
            part, before = rows[batch], components
            fresh = settings.fresh or (number < len(starts) and not visited)
            begun = _fresh(part, len(before), settings.beta) if fresh else codes[batch]
            codes[batch], components, cost = step(
                part, begun, before, sums, beta=settings.beta, penalties=Penalties.of(self, *part.shape),
                rho=settings.forget ** (settings.size / samples),
                sweeps=settings.restarts if settings.fresh else _FIRST_SWEEPS if fresh else _SWEEPS,
            )  # fmt: skip
            done = number + 1
            self._say(f"Minibatch step {done}/{total}: mean batch cost: {cost}", smooth if number else None)
            if number == 0:
                continue
            weight = min(1.0, part.shape[0] / (samples + 1))
            smooth = cost if smooth is None else smooth * (1 - weight) + cost * weight
            change = float(jnp.linalg.norm(components - before) / jnp.maximum(jnp.linalg.norm(components), 1e-30))
            worse, best = (0, smooth) if best is None or smooth < best else (worse + 1, best)
            still = settings.tol > 0 and change <= settings.tol
            if still or (settings.patience is not None and worse >= settings.patience):
                why = "small H change" if still else "lack of improvement in objective function"
                self._say(f"Converged ({why}) at step {done}/{total}")
                stopped = True
                break
        self.components_, self.n_components_ = np.array(components), len(components)
        self.n_steps_, self.n_iter_, self._sums = done, -(-done // len(starts)), sums
        if not stopped and settings.tol > 0:
            warnings.warn(
                f"Maximum number of iterations {self.n_iter_} reached. Increase it to improve convergence.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _begun(self, rows: Matrix, W: Any, H: Any) -> tuple[np.ndarray, np.ndarray]:
        """First codes, and components found in some of the rows."""
        rank = self._rank(rows, H)
        custom = self._custom(rows, W, H, rank)
        if custom:
            return custom[0].copy(), custom[1].copy()
        start = start_of(self, rank, rows.shape)
        key = jax.random.key(check_random_state(self.random_state).randint(2**31 - 1))
        many = max(_SAMPLE, 4 * rank)
        sample = rows if rows.shape[0] <= many else rows[np.sort(spread(rows.shape[0], many))]
        if self.init is None:
            objective = Penalties.of(self, *sample.shape)
            objective = objective.objective() if not objective.one_sided else Penalties((0, 0), (0, 0)).objective()
            solver = ADMM(max_steps=_WARM)
            found = factorize(on_device(sample), rank, objective=objective, solver=solver, start=start, key=key)
            H = found.dictionary * (found.scale[:, None] if objective.penalized else 1)
        elif scipy.sparse.issparse(sample):
            sparse = SparseRows(sample, sample.dtype)
            H = begin(start, sparse, rank, signed=False, key=key, solve=solve)[1]
        else:
            H = start(jnp.asarray(sample), rank, signed=False, key=key)[1]
        H = np.array(H)
        if loss_of(self.beta_loss) != 2:
            # Multiplied, a zero would stay one.
            H = np.where(H > 0, H, H.dtype.type(max(H.mean(), 1e-12) / 100))
        return np.zeros((rows.shape[0], rank), rows.dtype), H

    def _as_nmf(self, rows: Matrix, W: Any, H: Any) -> None:
        names = set(NMF().get_params()) & set(self.get_params())
        alone = NMF(**{name: getattr(self, name) for name in names}, solver="mu").fit(rows, W=W, H=H)
        self.components_, self.n_components_ = alone.components_, alone.n_components_
        self.n_iter_ = self.n_steps_ = alone.n_iter_

    def _settings(self, rows: Matrix) -> _Settings:
        beta = loss_of(self.beta_loss)
        if beta != 2 and scipy.sparse.issparse(rows):
            raise ValueError(
                f"beta_loss={self.beta_loss!r} isn't offered for sparse X; give 'frobenius', or X.toarray()"
            )
        if beta <= 0 and rows.min() == 0:
            raise ValueError(
                "When beta_loss <= 0 and X contains zeros, the solver may diverge. Please add small values to X, or "
                "use a positive beta_loss."
            )
        patience = self.max_no_improvement
        return _Settings(
            beta=beta,
            size=min(check_count("batch_size", self.batch_size, "samples"), rows.shape[0]),
            tol=real("tol", self.tol, "tolerance", least=0),
            patience=None if patience is None else check_count("max_no_improvement", patience, "steps"),
            passes=check_count("max_iter", self.max_iter, "passes"),
            forget=real("forget_factor", self.forget_factor, "share", least=0, most=1),
            fresh=flag("fresh_restarts", self.fresh_restarts),
            restarts=check_count("fresh_restarts_max_iter", self.fresh_restarts_max_iter, "sweeps"),
        )

    def _say(self, words: str, smooth: float | None = None) -> None:
        if self.verbose:
            print(words + ("" if smooth is None else f", ewa cost: {smooth}"))


@dataclasses.dataclass(frozen=True)
class _Settings:
    beta: float
    size: int
    tol: float
    patience: int | None
    passes: int
    forget: float
    fresh: bool
    restarts: int


def _fresh(rows: Matrix, rank: int, beta: float) -> np.ndarray:
    """Codes to start from: nothing; what multiplicative updates can leave for other losses."""
    value = 0.0 if beta == 2 else float(np.sqrt(rows.mean() / rank))
    return np.full((rows.shape[0], rank), value, rows.dtype)
