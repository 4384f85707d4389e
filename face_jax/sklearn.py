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
from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data

from .nmf import (
    ADMM,
    HALS,
    NNDSVD,
    RESULTS,
    Given,
    MultiplicativeUpdate,
    NNDSVDa,
    NNDSVDar,
    PaperAdam,
    Random,
    Solver,
    SquaredError,
    Start,
    Warmup,
    encode,
    factorize,
)
from .nmf.options import AnySolver, AnyStart
from .support.arguments import check_count, flag, instance, one_of, real, shown

# What scikit-learn's words for solvers and starts mean here.
_SOLVERS: dict[str, Any] = {"cd": HALS(), "mu": MultiplicativeUpdate()}
_STARTS: dict[str, Any] = {"random": Random(), "nndsvd": NNDSVD(), "nndsvda": NNDSVDa(), "nndsvdar": NNDSVDar()}


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Non-negative matrix factorization `X ≈ transform(X) @ components_`, with scikit-learn's interface.

    For pipelines and grid searches. A program written for `sklearn.decomposition.NMF` needs no change but the import:
    it finds factors of the same objective, whose local minimum may be another one, as it may be after an update of
    scikit-learn. What isn't offered is refused by its name and never passed over: `beta_loss` other than "frobenius",
    `shuffle=True`, a penalty on one factor alone (`alpha_H=0` beside `alpha_W`), and sparse matrices. Codes are always
    exact non-negative least squares, also those that `fit_transform` returns.
    The arithmetic is face_jax's: float32 in, float32 out; float64 is computed in float64 as well.

    **Arguments:**

    - `n_components`: how many; all features' number if None or "auto", or that of `H` with `init="custom"`.
    - `init`: "random", "nndsvd", "nndsvda", "nndsvdar", or "custom" for `W` and `H` given to `fit` or `fit_transform`.
    - `solver`: "cd" (coordinate descent: `HALS()`), "mu" (`MultiplicativeUpdate()`), or a face_jax solver; `ADMM()` if
        None. With `SemiNMF()`, X and `components_` may have entries below zero, and codes are at least 0. Its `rtol`
        and `max_steps` are replaced by `tol` and `max_iter` if these aren't None.
    - `start`: a face_jax start such as `Random()`, in place of `init`; `Warmup()` if both are None.
    - `beta_loss`: "frobenius", or 2.
    - `tol`: scaled KKT residual at which it stops; scikit-learn's `tol` is another measure.
    - `max_iter`: passes over the data.
    - `alpha_W`, `alpha_H`, `l1_ratio`: penalties, as in scikit-learn: `alpha_W` is multiplied with the features'
        number, `alpha_H` ("same": `alpha_W`) with the samples'.
    - `random_state`: for the start.
    - `verbose`: takes part in scikit-learn's interface; nothing is printed.
    - `shuffle`: False: coordinates are visited in their order.

    **Attributes:** `components_`, `n_components_`, `reconstruction_err_` (Frobenius), `n_iter_`, `n_features_in_`,
    `result_` (how it ended), `stats_`.
    """

    # scikit-learn's rule: whatever is given is kept, and looked at in `fit`; hence no types here.
    def __init__(
        self,
        n_components: Any = "auto",
        *,
        init: Any = None,
        solver: AnySolver | None = None,
        start: AnyStart | None = None,
        beta_loss: Any = "frobenius",
        tol: Any = 1e-4,
        max_iter: Any = 500,
        alpha_W: Any = 0.0,
        alpha_H: Any = "same",
        l1_ratio: Any = 0.0,
        random_state: Any = None,
        verbose: Any = 0,
        shuffle: Any = False,
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

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> NMF:
        """Find the components of X; arguments as for `fit_transform`."""
        self.fit_transform(X, y, W, H)
        return self

    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride] (scikit-learn's own takes W and H)
        self, X: Any, y: Any = None, W: Any = None, H: Any = None
    ) -> Float[np.ndarray, "sample component"]:
        """Find the components of X, and X in terms of them.

        **Arguments:**

        - `X`: `sample × feature`, at least 0 except with `SemiNMF()`.
        - `y`: takes part in scikit-learn's interface.
        - `W`, `H`: where to start, `sample × component` and `component × feature`, with `init="custom"`.

        **Returns:** the codes. Raises `ValueError` for settings that aren't valid or aren't offered.
        """
        del y
        X = self._checked(X, reset=True)
        rank = self._rank(X, H)
        given = self._given(X, W, H, rank)
        objective, solver, start = self._objective(*X.shape), self._solver(), given or self._start()
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with _precision(X):
            solution = factorize(
                jnp.asarray(X), rank, objective=objective, solver=solver, start=start, key=jax.random.key(seed)
            )
            # With penalties the length of a component is part of the answer.
            scale = solution.scale if self.alpha_W or self.alpha_H not in ("same", 0) else jnp.ones_like(solution.scale)
            self.components_ = np.asarray(solution.dictionary * scale[:, None])
            # The one inference rule, for the samples fitted on as for new ones.
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
    def _signed(self) -> bool:
        return bool(getattr(self.solver, "signed_dictionary", False))

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = not self._signed
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Float[np.ndarray, "sample feature"]:
        if np.ma.is_masked(X):
            raise ValueError(
                "X has masked entries, whose values mean nothing; fill them, as X.filled(0) does, or give "
                "face_jax.factorize weights of 0 there"
            )
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=reset)
        if not self._signed:
            check_non_negative(X, "NMF (input X)")
        return X

    def _rank(self, X: Float[np.ndarray, "sample feature"], H: Any) -> int:
        auto = isinstance(self.n_components, str) and self.n_components == "auto"
        if auto and H is not None:
            return len(np.atleast_1d(H))
        return (
            X.shape[1]
            if auto or self.n_components is None
            else check_count("n_components", self.n_components, "components")
        )

    def _given(self, X: Float[np.ndarray, "sample feature"], W: Any, H: Any, rank: int) -> Given | None:
        """The factors to start from with `init="custom"`."""
        custom = isinstance(self.init, str) and self.init == "custom"
        if not custom and (W is not None or H is not None):
            raise ValueError(
                'W and H are where init="custom" starts, and init is another; set it, or leave W and H out'
            )
        if not custom:
            return None
        if W is None or H is None:
            raise ValueError('init="custom" starts from W and H; give both to fit or fit_transform, or another init')
        factors = []
        for name, value, shape in (("W", W, (X.shape[0], rank)), ("H", H, (rank, X.shape[1]))):
            factor = check_array(value, dtype=X.dtype.name, input_name=name)
            if name == "W" or not self._signed:
                check_non_negative(factor, f"NMF (input {name})")
            if factor.shape != shape:
                raise ValueError(f"{name} has shape {factor.shape}; X and n_components={rank} need {shape}")
            factors.append(factor)
        with _precision(X):
            return Given(*map(jnp.asarray, factors))

    def _start(self) -> Any:
        if self.start is not None and self.init is not None:
            raise ValueError(f"init={self.init!r} and start={shown(self.start)} are both given; leave one out")
        if self.start is not None:
            return instance("start", self.start, Start, "Random() or Warmup()")
        return Warmup() if self.init is None else _STARTS[one_of("init", self.init, (*_STARTS, "custom"))]

    def _solver(self) -> Solver | PaperAdam:
        if not (isinstance(self.beta_loss, (str, int, float)) and self.beta_loss in ("frobenius", 2)):
            raise ValueError(
                f"beta_loss={shown(self.beta_loss)} isn't offered here; give 'frobenius', or take "
                "sklearn.decomposition.NMF for this loss"
            )
        if flag("shuffle", self.shuffle):
            raise ValueError("shuffle=True isn't offered here: coordinates are visited in their order; leave it out")
        if isinstance(self.solver, str):
            solver = _SOLVERS[one_of("solver", self.solver, tuple(_SOLVERS))]
        else:
            kinds = (Solver, PaperAdam)
            solver = (
                ADMM() if self.solver is None else instance("solver", self.solver, kinds, "HALS(), or 'cd', or 'mu'")
            )
        # The published algorithm has a tolerance of another kind.
        changes = (
            {}
            if self.tol is None or isinstance(solver, PaperAdam)
            else {"rtol": real("tol", self.tol, "tolerance", least=0)}
        )
        if self.max_iter is not None:
            changes["max_steps"] = check_count("max_iter", self.max_iter, "passes")
        return dataclasses.replace(solver, **changes)

    def _penalties(self, samples: int, features: int) -> tuple[tuple[float, float], tuple[float, float]]:
        alpha_w = real("alpha_W", self.alpha_W, "penalty", least=0)
        same = isinstance(self.alpha_H, str) and self.alpha_H == "same"
        alpha_h = alpha_w if same else real("alpha_H", self.alpha_H, "penalty, nor 'same'", least=0)
        ratio = real("l1_ratio", self.l1_ratio, "share", least=0, most=1)
        if (alpha_w > 0) != (alpha_h > 0):
            raise ValueError(
                f"alpha_W={alpha_w:g} and alpha_H={alpha_h:g} penalize one factor alone, whose length would all move "
                "into the other; give both, or alpha_H='same'"
            )
        codes, components = features * alpha_w, samples * alpha_h
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
