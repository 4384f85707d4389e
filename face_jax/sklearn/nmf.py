"""The factorization as a scikit-learn estimator."""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from ..nmf import RESULTS, Given, NNDSVDar, Random, Solver, Warmup, rank_scan
from ..nmf.matching import agreements
from ..nmf.options import AnySolver, AnyStart
from ..nmf.rank_choice import SETTINGS
from ..support.arguments import check_count
from ..support.precision import full_precision
from .base import Base, Matrix, factor
from .fitting import factorized, length, objective_of, observed, precision, sample_weights
from .settings import CROSS_VALIDATED, Penalties, check_shared, loss_for, loss_of, random_of, solver_of, start_of
from .shuffled import ShuffledHALS
from .telling import tell

_RANKS = (2, 3, 4, 6, 8, 11, 16, 23, 32)


class NMF(Base):
    """Non-negative matrix factorization `X ≈ transform(X) @ components_`, with scikit-learn's interface.

    For pipelines and grid searches. A program written for `sklearn.decomposition.NMF` needs no change but the import:
    it finds factors of the same objective, whose local minimum may be another one, as it may be after an update of
    scikit-learn. Codes are minimizers for the components found, also those that `fit_transform` returns: for β from 1
    to 2 exact ones (non-negative least squares for β = 2), so that `transform` agrees with it. For other β a sample
    may have several minima, of which `transform` takes the lowest that is reached from three starts, and
    `fit_transform` from its fit's codes as well: its objective is never above the fit's, and `transform` may give
    another one. The arithmetic is face_jax's: float32 in, float32 out; float64 is computed in float64 as well. X may
    be an array of NumPy, JAX, torch or CuPy, a sparse matrix (SciPy's, or JAX's BCOO), which is never made dense, or
    whatever else scikit-learn reads; codes and reconstructions go out as X came in, codes of sparse matrices as
    NumPy's. Dense arrays of JAX, torch and CuPy stay on their device, checks and results too (DLPack); `components_`,
    W, H and weights of samples are NumPy's. Where JAX doesn't have that device, they go by the host.

    **Arguments:**

    - `n_components`: how many; all features' number if None or "auto", or that of `H` with `init="custom"`;
        "cross-validated" takes the smallest of some numbers up to 32 whose squared error on entries left out is within
        a standard error of the lowest (`face_jax.rank_scan` with the solver given; for dense X and β = 2; it leaves
        penalties and weights of samples out, and warns of that).
    - `init`: "random", "nndsvd", "nndsvda", "nndsvdar", or "custom" for `W` and `H` given to `fit` or `fit_transform`.
    - `solver`: "cd" (coordinate descent: `HALS()`), "mu" (`MultiplicativeUpdate()`), or a face_jax solver; `ADMM()` if
        None. With `SemiNMF()`, X and `components_` may have entries below zero, and codes are at least 0. Its `rtol`
        and `max_steps` are replaced by `tol` and `max_iter` if these aren't None.
    - `start`: a face_jax start such as `Random()`, in place of `init`; if both are None, `Warmup()`, or
        `Random()` for β between 0 and 1 where X has zeros.
    - `beta_loss`: "frobenius" (2), "kullback-leibler" (1), "itakura-saito" (0), or another number β; from 0 down X has
        to be above 0. Sparse X takes the first two, which need only sums over unstored zeros, and any with
        `missing="unstored"`.
    - `tol`: scaled KKT residual at which it stops; scikit-learn's `tol` is another measure.
    - `max_iter`: passes over the data.
    - `alpha_W`, `alpha_H`, `l1_ratio`: penalties, as in scikit-learn: `alpha_W` is multiplied with the features'
        number, `alpha_H` ("same": `alpha_W`) with the samples'. With a penalty on one factor alone the problem has a
        minimum only if the other one's length is bounded, so that its components have unit length there.
    - `random_state`: for the start, and for the order with `shuffle`.
    - `verbose`: print what scikit-learn prints, behind the last pass.
    - `shuffle`: whether "cd" visits coordinates in an order drawn anew in each sweep; other solvers have no order. With
        missing values, or a penalty on one factor alone, it isn't offered.
    - `n_init`: how many starts; the best by the objective, with the codes that are given for it, is kept. The first is
        the usual one, the others are random.
    - `missing`: "ignore" takes NaN in X for what wasn't observed, in `fit` and `transform`: it has no part in what is
        minimized, and `inverse_transform(transform(X))` fills it in; unstored entries of sparse X are zeros beside it.
        "unstored" takes the unstored entries of sparse X for what wasn't observed; a zero that was is stored. NaN is
        refused if None.

    **Attributes:** `components_`, `n_components_`, `reconstruction_err_` (`√(2 D)`: Frobenius), `n_iter_`,
    `n_features_in_`, `result_` (how it ended), `stats_`; with several starts `stability_` (mean cosine between
    components of two starts, matched one to one: 1 if all found the same); with "cross-validated" `rank_scan_`.
    """

    # scikit-learn's rule: whatever is given is kept, and looked at in `fit`; hence no types here.
    def __init__(
        self,
        n_components: Any = "auto",
        *,
        init: Any = None,
        solver: AnySolver | str | None = None,
        start: AnyStart | None = None,
        beta_loss: Any = "frobenius",
        tol: Any = 1e-4,
        max_iter: Any = 200,
        alpha_W: Any = 0.0,
        alpha_H: Any = "same",
        l1_ratio: Any = 0.0,
        random_state: Any = None,
        verbose: Any = 0,
        shuffle: Any = False,
        n_init: Any = 1,
        missing: Any = None,
    ) -> None:
        self.n_components = n_components
        self.init = init
        self.solver = solver
        self.start = start
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.random_state = random_state
        self.verbose = verbose
        self.shuffle = shuffle
        self.n_init = n_init
        self.missing = missing

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None, sample_weight: Any = None) -> NMF:
        """Find the components of X; arguments as for `fit_transform`."""
        self.fit_transform(X, y, W, H, sample_weight)
        return self

    @full_precision
    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride] (scikit-learn's own takes W and H)
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, sample_weight: Any = None
    ) -> Any:
        """Find the components of X, and X in terms of them.

        **Arguments:**

        - `X`: `sample × feature`, at least 0 except with `SemiNMF()`.
        - `y`: takes part in scikit-learn's interface.
        - `W`, `H`: where to start, `sample × component` and `component × feature`, with `init="custom"`.
        - `sample_weight`: how much each sample counts; 0 leaves it out of the fit.

        **Returns:** the codes. Raises `ValueError` for settings that aren't valid or aren't offered.
        """
        del y
        rows, back = self._read(X, reset=True)
        codes = self._find(rows, W, H, sample_weight)
        self.reconstruction_err_ = length(rows, codes, self.components_, loss_of(self.beta_loss), self._missing)
        return back(codes)

    def encoded(self, X: Any, H: Any) -> tuple[Any, np.ndarray]:
        """Codes of X for components that the user has, which become the estimator's.

        **Arguments:**

        - `X`: `sample × feature`.
        - `H`: `component × feature`.

        **Returns:** both. Raises `ValueError` for components that don't fit.
        """
        rows, back = self._read(X, reset=True)
        self._checked(rows)
        auto = self.n_components is None or self.n_components == "auto"
        given = np.shape(H)[0] if np.ndim(H) else 0
        rank = given if auto else check_count("n_components", self.n_components, "components")
        shape = (rank, rows.shape[1])
        self.components_ = factor("H", H, rows, shape, rank, signed=self._signed, nothing=True)
        return back(self._codes(rows)), self.components_

    def _find(self, rows: Matrix, W: Any, H: Any, sample_weight: Any) -> Any:
        """Everything that a fit leaves behind but the codes' error; the codes."""
        beta, weights = self._checked(rows), sample_weights(rows, sample_weight)
        seed = random_of(self).randint(2**31 - 1)
        rank = self._chosen(rows, seed, beta, weights) if self._by_scan else self._rank(rows, H)
        penalties = Penalties.of(self, *rows.shape)
        # Between β = 0 and 1 a product that is 0 beside a sample's 0 stays so.
        values = rows.data if scipy.sparse.issparse(rows) else rows
        start = start_of(self, rank, rows.shape, sticky=0 < beta < 1 and not values.all())
        solver = solver_of(self, seed)
        alone = penalties.one_sided or observed(rows, self._missing) is not None
        if isinstance(solver, ShuffledHALS) and alone:
            what = "a penalty on one factor alone" if penalties.one_sided else "missing values"
            raise ValueError(f"shuffle=True isn't offered beside {what}; give shuffle=False")
        custom = self._custom(rows, W, H, rank)
        since = time.perf_counter()
        with precision(rows):
            first = Given(*map(jnp.asarray, custom)) if custom else start
            starts = self._starts(first)
            keys = [jax.random.key(seed + number) for number in range(len(starts))]
            found = factorized(rows, rank, penalties, weights, solver, starts, keys, beta=beta, missing=self._missing)
        # By the components that are kept, and codes as they are given for them.
        codes = [self._codes(rows, one.codes, one.components) for one in found]
        number = 0
        if len(found) > 1:
            values = [
                objective_of(rows, each, one.components, penalties, weights, beta, self._missing)
                for each, one in zip(codes, found, strict=True)
            ]
            number = int(np.argmin(np.where(np.isfinite(values), values, np.inf)))
            self.stability_ = float(agreements([one.directions for one in found], either_sign=False).mean())
        best = found[number]
        self.components_, self.n_components_, self.n_iter_ = best.components, rank, best.steps
        self.result_, self.stats_ = best.result, best.stats
        tell(self, best, time.perf_counter() - since)
        if best.result == RESULTS.max_steps_reached and self.tol != 0:
            warnings.warn(
                f"Maximum number of iterations {self.n_iter_} reached. Increase it to improve convergence. "
                f"(max_iter={self.n_iter_}; the scaled KKT residual is {best.residual:.1e} > tol.)",
                ConvergenceWarning,
                stacklevel=3,
            )
        return codes[number]

    def _checked(self, rows: Matrix) -> float:
        """β; raises `ValueError` for what isn't valid, and for a loss that this solver, or these rows, can't have."""
        check_shared(self)
        check_count("n_init", self.n_init, "starts")
        solver_of(self, 0)
        beta = loss_for(self.beta_loss, rows, self._missing)
        if beta != 2 and isinstance(self.solver, str) and self.solver == "cd":
            raise ValueError(
                f"Invalid beta_loss parameter: solver 'cd' does not handle beta_loss = {self.beta_loss!r}; give "
                "solver='mu' or None"
            )
        return beta

    def _starts(self, first: Any) -> list[Any]:
        """As many as wanted, the usual one first."""
        count = check_count("n_init", self.n_init, "starts")
        if count == 1:
            return [first]
        if isinstance(first, Given):
            raise ValueError(f'n_init={count} starts would all be init="custom"; give n_init=1, or another init')
        return [first, *[first if isinstance(first, Random | NNDSVDar) else Warmup(Random())] * (count - 1)]

    def _chosen(self, rows: Matrix, seed: int, beta: float, weights: Any) -> int:
        """The rank that cross-validation suggests, by the squared error of the solver's fits."""
        if beta != 2:
            raise ValueError(
                f"n_components={CROSS_VALIDATED!r} compares squared errors, and beta_loss={self.beta_loss!r} isn't; "
                "give a number"
            )
        if weights is not None or Penalties.of(self, *rows.shape).some:
            what = "counts each sample once" if weights is not None else "leaves the penalties out"
            warnings.warn(
                f"n_components={CROSS_VALIDATED!r} {what} where it compares numbers", UserWarning, stacklevel=4
            )
        if scipy.sparse.issparse(rows):
            raise ValueError(
                f"n_components={CROSS_VALIDATED!r} leaves out entries of a dense X, and this is sparse; give a number, "
                "or X.toarray()"
            )
        most = min(rows.shape)
        ranks = [rank for rank in _RANKS if rank <= most] or [1]
        with precision(rows):
            self.rank_scan_ = rank_scan(
                jnp.asarray(rows), ranks, key=seed, observed=observed(rows, self._missing), solver=self._of_scan(seed)
            )
        return self.rank_scan_.suggested

    def _of_scan(self, seed: int) -> Any:
        """The estimator's solver, as coarse as is enough to compare numbers; None for the usual one."""
        solver = solver_of(self, seed)
        return _coarse(solver) if isinstance(solver, Solver) else None

    @property
    def _by_scan(self) -> bool:
        return isinstance(self.n_components, str) and self.n_components == CROSS_VALIDATED


def _coarse(solver: Any) -> Any:
    """A solver that is as exact as comparing numbers of concepts needs it."""
    return dataclasses.replace(solver, **SETTINGS)
