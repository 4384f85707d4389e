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

from ..linalg.sparse_rows import SparseRows
from ..nmf import ADMM, SquaredError, factorize
from ..nmf.solvers.warmup import spread
from ..nmf.sparse import solve
from ..nmf.sparse_starts import begin
from ..nmf.stored_entries import stored_entries, visible
from ..support.arguments import check_count, flag, real
from ..support.precision import full_precision
from .base import Base, Matrix
from .batch_steps import Sums, multiplied, step
from .fitting import length, observed, on_device, precision, sample_weights
from .nmf import NMF
from .settings import Penalties, check_shared, loss_for, loss_of, random_of, start_of

_SAMPLE = 4096  # rows that the first components are found in
_WARM, _FIRST_SWEEPS, _SWEEPS = 20, 10, 2


class MiniBatchNMF(Base):
    """Non-negative matrix factorization by mini-batches, with scikit-learn's interface, `partial_fit` among it.

    Each batch improves its codes, then the components, from sums over all batches so far (Mairal, Bach, Ponce & Sapiro
    2010), earlier ones counting less: by exact coordinate descent for the squared error, by multiplicative updates for
    other losses. What `transform` and `fit_transform` return are minimizers for the components found, as of `NMF`.
    Batches go by the host, whatever arrays they are; `transform` leaves X on its device, as `NMF` does.

    **Arguments:**

    - `n_components`, `init`, `beta_loss`, `alpha_W`, `alpha_H`, `l1_ratio`, `random_state`, `verbose`: as for `NMF`.
        The first components are found in up to 4096 rows. With a penalty on one factor alone, length moves into the
        other one from step to step, as in scikit-learn.
    - `batch_size`: samples of a batch. One batch of all samples with `forget_factor=0` is `NMF(solver="mu")`.
    - `tol`: stop when components change by no more than this share in a step; 0 never does.
    - `max_no_improvement`: stop after so many steps that didn't lower the smoothed loss; None never does.
    - `max_iter`: passes over the data.
    - `forget_factor`: what a pass over the data later counts of what batches have added up; from 0 to 1. With
        `partial_fit` the data are the first batch, as in scikit-learn: of `n` samples, each step counts the ones before
        by `forget_factor ** (min(batch_size, n) / n)`, also in steps behind it.
    - `fresh_restarts`: whether codes of a batch start from nothing each time, not from where they were.
    - `fresh_restarts_max_iter`: how often they are gone through then.
    - `transform_max_iter`: takes part in scikit-learn's interface; codes are minimizers, whatever it is.
    - `missing`: as for `NMF`; batches go by multiplicative updates with it, whatever the loss.

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
        missing: Any = None,
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
        self.missing = missing

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None, sample_weight: Any = None) -> MiniBatchNMF:
        """Find the components of X; arguments as for `fit_transform`."""
        self.fit_transform(X, y, W, H, sample_weight)
        return self

    @full_precision
    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride] (scikit-learn's own takes W and H)
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, sample_weight: Any = None
    ) -> Any:
        """Find the components of X, and X in terms of them.

        **Arguments:**

        - `X`: `sample × feature`, at least 0.
        - `y`: takes part in scikit-learn's interface.
        - `W`, `H`: where to start, `sample × component` and `component × feature`, with `init="custom"`.
        - `sample_weight`: how much each sample counts; 0 leaves it out of the fit.

        **Returns:** the codes. Raises `ValueError` for settings that aren't valid.
        """
        del y
        rows, back = self._read(X, reset=True, stays=False)
        settings, weights = self._settings(rows), sample_weights(rows, sample_weight)
        # What a fit before this one has added up isn't its own.
        self._sums, self._rho = None, settings.rho
        if settings.size == rows.shape[0] and settings.rho == 0:
            codes = self._as_nmf(rows, W, H, weights)
        else:
            with precision(rows):
                begun = self._go(rows, settings, W, H, weights)
            codes = self._codes(rows, begun)
        self.reconstruction_err_ = length(rows, codes, self.components_, settings.beta, self._missing)
        return back(codes)

    @full_precision
    def partial_fit(
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, sample_weight: Any = None
    ) -> MiniBatchNMF:
        """Go on with a batch that all of X is.

        **Arguments:** as for `fit_transform`; W and H are looked at in the first call only.
        """
        del y
        first = not hasattr(self, "components_")
        rows, _ = self._read(X, reset=first, whole=False, stays=False)
        settings, weights = self._settings(rows), sample_weights(rows, sample_weight)
        with precision(rows):
            if first:
                self.components_ = np.asarray(self._begun(rows, W, H)[1])
                self.n_components_, self.n_steps_ = len(self.components_), 0
                self._sums, self._rho = None, settings.rho
            components = self.components_.astype(rows.dtype)
            missing = self._missing
            kind = multiplied(settings.beta, missing)
            sums = self._sums.of(components.dtype) if self._sums else Sums.begun(components, multiplied=kind)
            fresh = _fresh(rows, len(components), settings.beta, missing)
            _, found, _ = step(
                rows, fresh, jnp.asarray(components), sums, beta=settings.beta,
                penalties=Penalties.of(self, *rows.shape), rho=self._rho, sweeps=settings.restarts,
                weights=weights, missing=missing,
            )  # fmt: skip
            self.components_, self._sums = np.array(found), sums
        self.n_steps_ += 1
        return self

    def _go(self, rows: Matrix, settings: _Settings, W: Any, H: Any, weights: Any) -> np.ndarray:
        """Batch after batch, until components or loss stand still; the codes that it ends with."""
        samples = rows.shape[0]
        codes, components = self._begun(rows, W, H)
        visited = self.init == "custom"
        missing = self._missing
        sums = Sums.begun(components, multiplied=multiplied(settings.beta, missing))
        components = jnp.asarray(components)
        starts = range(0, samples, settings.size)
        total, done, smooth, best, worse, stopped = settings.passes * len(starts), 0, None, None, 0, False
        for number in range(total):
            at = starts[number % len(starts)]
            batch = slice(at, min(at + settings.size, samples))
            part, before = rows[batch], components
            fresh = settings.fresh or (number < len(starts) and not visited)
            begun = _fresh(part, len(before), settings.beta, missing) if fresh else codes[batch]
            codes[batch], components, cost = step(
                part, begun, before, sums, beta=settings.beta, penalties=Penalties.of(self, *part.shape),
                rho=settings.rho,
                sweeps=settings.restarts if settings.fresh else _FIRST_SWEEPS if fresh else _SWEEPS,
                weights=None if weights is None else weights[batch], missing=missing,
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
        return codes

    def _begun(self, rows: Matrix, W: Any, H: Any) -> tuple[np.ndarray, np.ndarray]:
        """First codes, and components found in some of the rows."""
        rank = self._rank(rows, H)
        custom = self._custom(rows, W, H, rank)
        if custom:
            return custom[0].copy(), custom[1].copy()
        start = start_of(self, rank, rows.shape)
        key = jax.random.key(random_of(self).randint(2**31 - 1))
        many = max(_SAMPLE, 4 * rank)
        sample = rows if rows.shape[0] <= many else rows[np.sort(spread(rows.shape[0], many))]
        missing = self._missing
        if missing is not None:
            sample = _filled(sample, missing)
        if isinstance(sample, SparseRows):
            H = begin(start, sample, rank, signed=False, key=key, solve=solve)[1]
        elif self.init is None:
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
        if multiplied(loss_of(self.beta_loss), missing):
            # Multiplied, a zero would stay one.
            H = np.where(H > 0, H, H.dtype.type(max(H.mean(), 1e-12) / 100))
        return np.zeros((rows.shape[0], rank), rows.dtype), H

    def _as_nmf(self, rows: Matrix, W: Any, H: Any, weights: Any) -> np.ndarray:
        names = set(NMF().get_params()) & set(self.get_params())
        alone = NMF(**{name: getattr(self, name) for name in names}, solver="mu")
        codes = alone.fit_transform(rows, W=W, H=H, sample_weight=weights)
        self.components_, self.n_components_ = alone.components_, alone.n_components_
        self.n_iter_ = self.n_steps_ = alone.n_iter_
        return codes

    def _settings(self, rows: Matrix) -> _Settings:
        beta = loss_for(self.beta_loss, rows, self._missing)
        patience = self.max_no_improvement
        check_shared(self)
        if self.transform_max_iter is not None:
            check_count("transform_max_iter", self.transform_max_iter, "passes")
        size = min(check_count("batch_size", self.batch_size, "samples"), rows.shape[0])
        forget = real("forget_factor", self.forget_factor, "share", least=0, most=1)
        return _Settings(
            beta=beta,
            size=size,
            tol=real("tol", self.tol, "tolerance", least=0),
            patience=None if patience is None else check_count("max_no_improvement", patience, "steps"),
            passes=check_count("max_iter", self.max_iter, "passes"),
            rho=forget ** (size / rows.shape[0]),
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
    rho: float
    fresh: bool
    restarts: int


def _fresh(rows: Matrix, rank: int, beta: float, missing: str | None) -> np.ndarray:
    """Codes to start from: nothing; what multiplicative updates can leave for them."""
    value = 0.0
    if multiplied(beta, missing):
        values = rows.data if missing is not None and scipy.sparse.issparse(rows) else rows
        mean = float(values.mean() if missing is None else np.nan_to_num(np.mean(values[~np.isnan(values)])))
        value = float(np.sqrt(mean / rank))
    return np.full((rows.shape[0], rank), value, rows.dtype)


def _filled(rows: Matrix, missing: str) -> Any:
    """What the first components are found in: values that weren't observed are the mean of their feature's others."""
    seen = observed(rows, missing)
    if scipy.sparse.issparse(rows):
        sparse = SparseRows(rows, rows.dtype)
        return sparse if seen is None else visible(stored_entries("X", sparse, SquaredError(), seen), sparse)
    if seen is None:
        return rows
    count, total = seen.sum(axis=0), np.where(seen, rows, 0).sum(axis=0)
    return np.where(seen, rows, (total / np.maximum(count, 1)).astype(rows.dtype)[None])
