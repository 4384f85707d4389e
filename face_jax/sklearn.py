"""The factorization as a scikit-learn estimator."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from .factorize import ADMM, RESULTS, Solver, SquaredError, Warmup, encode, factorize


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Non-negative matrix factorization `X ≈ transform(X) @ components_`, with scikit-learn's interface.

    For pipelines and grid searches; a change of the import brings a program over from `sklearn.decomposition.NMF`.
    The arithmetic is face_jax's: float32 in, float32 out; float64 is computed in float64 as well.

    **Arguments:**

    - `n_components`: how many; all features' number if None or "auto".
    - `solver`: a face_jax solver such as `HALS()`; `ADMM()` if None. Its `rtol` and `max_steps` are replaced by
        `tol` and `max_iter` if these are given.
    - `start`: a face_jax start such as `Random()`; `Warmup()` if None.
    - `tol`: scaled KKT residual at which it stops.
    - `max_iter`: passes over the data.
    - `alpha_W`, `alpha_H`, `l1_ratio`: penalties, as in scikit-learn: `alpha_W` is multiplied with the features'
        number, `alpha_H` ("same": `alpha_W`) with the samples'.
    - `random_state`: for the start.
    - `verbose`: takes part in scikit-learn's interface; nothing is printed.

    **Attributes:** `components_`, `n_components_`, `reconstruction_err_` (Frobenius), `n_iter_`, `n_features_in_`,
    `result_` (how it ended), `stats_`.
    """

    # scikit-learn's rule: whatever is given is kept, and looked at in `fit`; hence no types here.
    def __init__(
        self,
        n_components: Any = "auto",
        *,
        solver: Any = None,
        start: Any = None,
        tol: Any = 1e-4,
        max_iter: Any = 500,
        alpha_W: Any = 0.0,
        alpha_H: Any = "same",
        l1_ratio: Any = 0.0,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.solver = solver
        self.start = start
        self.tol = tol
        self.max_iter = max_iter
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> NMF:
        """Find the components of X."""
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Float[np.ndarray, "sample component"]:
        """Find the components of X, and X in terms of them."""
        del y, params
        X = self._checked(X, reset=True)
        rank: Any = X.shape[1] if self.n_components in (None, "auto") else self.n_components
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with _precision(X):
            solution = factorize(
                jnp.asarray(X),
                rank,
                objective=self._objective(*X.shape),
                solver=self._solver(),
                start=Warmup() if self.start is None else self.start,
                key=jax.random.key(seed),
            )
            # With penalties the length of a component is part of the answer.
            scale = solution.scale if self.alpha_W or self.alpha_H not in ("same", 0) else jnp.ones_like(solution.scale)
            self.components_ = np.asarray(solution.dictionary * scale[:, None])
            # The one inference rule, for the samples fitted on as for new ones.
            objective = self._objective(*X.shape)
            codes = np.asarray(encode(jnp.asarray(X), jnp.asarray(self.components_), objective=objective))
        self.n_components_ = rank
        self.n_iter_ = int(solution.stats.steps)
        self.result_, self.stats_ = solution.result, solution.stats
        self.reconstruction_err_ = _length(X - codes @ self.components_)
        if solution.result == RESULTS.max_steps_reached:
            warnings.warn(
                f"stopped after max_iter={self.n_iter_} steps with a scaled KKT residual of "
                f"{float(solution.stats.final_residual):.1e} > tol; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return codes

    def transform(self, X: Any) -> Float[np.ndarray, "sample component"]:
        """X in terms of the components found: exact non-negative least squares."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)
        with _precision(X):
            components = jnp.asarray(self.components_.astype(X.dtype))
            return np.asarray(encode(jnp.asarray(X), components, objective=self._objective(*X.shape)))

    def inverse_transform(self, X: Any) -> Float[np.ndarray, "sample feature"]:
        """Samples from their components."""
        check_is_fitted(self)
        return np.asarray(X) @ self.components_

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Float[np.ndarray, "sample feature"]:
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        check_non_negative(X, "NMF (input X)")
        return X

    def _solver(self) -> Solver:
        solver: Any = ADMM() if self.solver is None else self.solver
        changes = {"rtol": self.tol, "max_steps": self.max_iter}
        return dataclasses.replace(solver, **{name: value for name, value in changes.items() if value is not None})

    def _penalties(self, samples: int, features: int) -> tuple[tuple[float, float], tuple[float, float]]:
        alpha_h = self.alpha_W if self.alpha_H == "same" else float(self.alpha_H)
        codes, components = features * self.alpha_W, samples * alpha_h
        ratio = self.l1_ratio
        return (codes * ratio, codes * (1 - ratio)), (components * ratio, components * (1 - ratio))

    def _objective(self, samples: int, features: int) -> SquaredError:
        (l1_codes, l2_codes), (l1_components, l2_components) = self._penalties(samples, features)
        return SquaredError(
            l1_codes=l1_codes, l2_codes=l2_codes, l1_dictionary=l1_components, l2_dictionary=l2_components
        )


def _length(rest: Float[np.ndarray, "sample feature"]) -> float:
    """Its Frobenius norm, by a power of two before squares leave the range."""
    exponent = int(np.frexp(np.abs(rest).max())[1])
    return float(np.ldexp(np.float64(np.linalg.norm(np.ldexp(rest, -exponent))), exponent))


def _precision(X: Float[np.ndarray, "sample feature"]) -> Any:
    """Float64 data is computed in float64, whatever JAX is set to."""
    return jax.enable_x64(X.dtype == np.float64 or jax.config.read("jax_enable_x64"))
