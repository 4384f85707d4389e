"""What both estimators share: how data comes in, how results go out, and inference."""

from __future__ import annotations

import warnings
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data

from ..nmf import encode
from ..nmf.validate import value_range
from ..support.arguments import check_count
from ..support.precision import full_precision
from .arrays import Taken, namespace, on_host, taken
from .fitting import observed, on_device, precision
from .settings import CROSS_VALIDATED, IGNORE, UNSTORED, Penalties, loss_of, missing_of

Matrix = Any  # NumPy's, JAX's on the device that X is on, or a sparse one of SciPy


class Base(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """An estimator that has `components_` and codes samples in terms of them."""

    n_components: Any
    init: Any
    beta_loss: Any
    components_: Float[np.ndarray, "component feature"]

    @full_precision
    def transform(self, X: Any) -> Any:
        """X in terms of the components found: where each sample's loss is lowest, whatever `max_iter` is.

        For β from 1 to 2, the squared error among them, that's the minimum, to rounding. For other losses a sample may
        have several minima: it's the lowest that is reached from three starts, and from the fit's own codes besides in
        `fit_transform`.

        **Arguments:**

        - `X`: `sample × feature`, as for `fit`.

        **Returns:** the codes, in X's own kind of array.
        """
        check_is_fitted(self)
        rows, back = self._read(X, reset=False)
        return back(self._codes(rows))

    def inverse_transform(self, X: Any) -> Any:
        """Samples from their components, in X's own kind of array.

        **Arguments:**

        - `X`: `sample × component`, dense or sparse.
        """
        check_is_fitted(self)
        found = taken("X", X)
        if isinstance(found.values, jax.Array):
            codes = found.values
            with precision(codes):
                return found.back(codes @ jnp.asarray(self.components_, jnp.promote_types(codes.dtype, jnp.float32)))
        values = found.values if scipy.sparse.issparse(found.values) else np.asarray(found.values)
        return found.back(np.asarray(values @ self.components_))

    @property
    def _signed(self) -> bool:
        return bool(getattr(getattr(self, "solver", None), "signed_dictionary", False))

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    @property
    def _n_components(self) -> int:
        """As scikit-learn's estimator has it for its own use."""
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = not self._signed
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = getattr(self, "missing", None) == IGNORE
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _read(self, X: Any, *, reset: bool, whole: bool = True, stays: bool = True) -> tuple[Matrix, Any]:
        """X, checked, and what makes results arrays of its kind.

        **Arguments:**

        - `reset`: whether it's what is fitted.
        - `whole`: whether it's more than a batch.
        - `stays`: whether it may be an array of JAX on X's own device.
        """
        if np.ma.is_masked(X):
            raise ValueError(
                "X has masked entries, whose values mean nothing; fill them, as X.filled(0) does, or give "
                "face_jax.factorize weights of 0 there"
            )
        found: Taken = taken("X", X)
        given: Any = found.values
        there = isinstance(given, jax.Array)
        if there and not stays:
            there, given = False, np.asarray(given)
        rows: Any = validate_data(
            self, cast(Any, _outline(given) if there else given), accept_sparse=("csr", "csc"),
            dtype=[np.float64, np.float32], reset=reset, ensure_all_finite="allow-nan",
        )  # fmt: skip
        if there:
            rows = _in_dtype(given, rows.dtype)
        values = rows.data if scipy.sparse.issparse(rows) else rows
        self._refuse_nan(values)
        if self._missing:
            self._check_missing(rows, reset=reset and whole)
        if not self._signed:
            filled = namespace(values).nan_to_num(values) if self._missing else values
            if filled.size:
                least = np.full((1, 1), value_range(filled)[0]) if there else filled
                check_non_negative(least, f"{type(self).__name__} (input X)")
        return rows.tocsr() if self._missing == UNSTORED else dense_if_full(rows), found.back

    @property
    def _missing(self) -> str | None:
        """What stands for what wasn't observed: NaN ("ignore"), or unstored entries; None if all was."""
        return missing_of(getattr(self, "missing", None))

    def _refuse_nan(self, values: Any) -> None:
        """Raises `ValueError` for NaN that doesn't stand for what wasn't observed, in the words of these estimators."""
        if self._missing == IGNORE:
            return
        if isinstance(values, jax.Array) and not np.isnan(value_range(values)[0]):
            return  # by the program that looks for what's below zero
        gone = namespace(values).isnan(values)
        if not gone.any():
            return
        known = self._missing == UNSTORED
        remedy = "don't store what wasn't observed" if known else "give missing='ignore' if these weren't observed"
        raise ValueError(f"Input X contains NaN, {int(gone.sum())} of {gone.size} entries; {remedy}, or fill them in")

    def _check_missing(self, rows: Matrix, *, reset: bool) -> None:
        sparse = scipy.sparse.issparse(rows)
        if not sparse and self._missing == UNSTORED:
            raise ValueError(
                "missing='unstored' is for sparse X, and this one is dense; give missing='ignore' where NaN wasn't "
                "observed, or a sparse matrix that stores what was"
            )
        if not reset:
            return
        if not sparse:
            seen = np.asarray(~namespace(rows).isnan(rows).all(axis=0))
        elif self._missing == UNSTORED:
            seen = np.bincount(rows.tocoo().col, minlength=rows.shape[1]) > 0
        else:
            gone = np.bincount(rows.tocoo().col, np.isnan(rows.tocoo().data), minlength=rows.shape[1])
            seen = gone < rows.shape[0]
        if not seen.all():
            remedy = "np.unique(X.tocoo().col)" if sparse else "~np.isnan(X).all(axis=0)"
            raise ValueError(
                f"X has {int((~seen).sum())} features without any value, the first {int(np.argmin(seen))}; leave them "
                f"out, as X[:, {remedy}] does"
            )

    def _codes(self, rows: Matrix, begun: Any = None, components: np.ndarray | None = None) -> Any:
        """The one inference rule, for the samples fitted on, which begin at the fit's codes, as for new ones."""
        components = (self.components_ if components is None else components).astype(rows.dtype)
        with precision(rows):
            objective = Penalties.of(self, *rows.shape).of_codes(loss_of(self.beta_loss))
            seen = observed(rows, self._missing)
            start = None if begun is None else begun.astype(rows.dtype)
            codes = encode(on_device(rows), jnp.asarray(components), objective=objective, observed=seen, start=start)
            return codes if isinstance(rows, jax.Array) else np.array(codes)

    def _rank(self, rows: Matrix, H: Any) -> int:
        """How many components: of H if they are "auto" and it's given, of all features without it."""
        auto = isinstance(self.n_components, str) and self.n_components == "auto"
        if auto and H is not None and self.init == "custom":
            return len(np.atleast_1d(H))
        if auto or self.n_components is None:
            return rows.shape[1]
        if isinstance(self.n_components, str):
            words = f"'auto' or {CROSS_VALIDATED!r} or a number"
            raise ValueError(f"n_components={self.n_components!r} is unknown; give {words}")
        return check_count("n_components", self.n_components, "components")

    def _custom(self, rows: Matrix, W: Any, H: Any, rank: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The factors to start from with `init="custom"`; warns of factors that are given beside another one."""
        custom = isinstance(self.init, str) and self.init == "custom"
        if not custom and (W is not None or H is not None):
            warnings.warn(
                "When init!='custom', provided W or H are ignored. Set init='custom' to use them as initialization.",
                RuntimeWarning,
                stacklevel=4,
            )
        if not custom:
            return None
        if W is None or H is None:
            raise ValueError('init="custom" starts from W and H; give both to fit or fit_transform, or another init')
        shapes = (rows.shape[0], rank), (rank, rows.shape[1])
        return (
            factor("W", W, rows, shapes[0], rank, signed=False),
            factor("H", H, rows, shapes[1], rank, signed=self._signed),
        )


def _outline(values: jax.Array) -> np.ndarray:
    """Nothing but the shape, for scikit-learn's checks of it, and the dtype that is computed in."""
    if values.ndim != 2:
        return np.asarray(values)  # which its error shows
    dtype = values.dtype if values.dtype in (jnp.float32, jnp.float64) else np.float64
    return np.broadcast_to(np.zeros((), dtype), values.shape)


def _in_dtype(values: jax.Array, dtype: Any) -> jax.Array:
    """The values in this dtype, on their device; raises `ValueError` for infinite ones, in scikit-learn's words."""
    with jax.enable_x64(dtype == np.float64 or jax.config.read("jax_enable_x64")):
        found = values.astype(dtype)
        # NaN is the lowest and the highest where there is one.
        extremes = value_range(found)
        if np.isinf(extremes).any() or (np.isnan(extremes[0]) and bool(jnp.isinf(found).any())):
            raise ValueError(f"Input X contains infinity or a value too large for {dtype!r}.")
    return found


def factor(
    name: str, value: Any, rows: Matrix, shape: tuple[int, int], rank: int, *, signed: bool, nothing: bool = False
) -> np.ndarray:
    """A given factor, in the rows' dtype; raises `ValueError` or `TypeError` for one that doesn't fit."""
    value = on_host(name, value)
    whom = f"NMF (input {name})"
    as_it_is: Any = None
    found = check_array(value, dtype=as_it_is, input_name=name)
    if not signed:
        check_non_negative(found, whom)
    if found.shape != shape:
        which = "first" if found.shape[0] != shape[0] else "second"
        raise ValueError(
            f"Array with wrong {which} dimension passed to {whom}: {name} has shape {found.shape}; X and "
            f"n_components={rank} need {shape}"
        )
    if not (nothing or found.any()):
        raise ValueError(f"Array passed to {whom} is full of zeros; give some that aren't, or another init")
    if found.dtype.kind == "f" and found.dtype != rows.dtype:
        raise TypeError(f"H and W should have the same dtype as X. Got {name}.dtype = {found.dtype} and {rows.dtype}.")
    return found.astype(rows.dtype)


def dense_if_full(rows: Matrix) -> Matrix:
    """Sparse matrices stay sparse unless a dense one takes about as much room, and then much less time."""
    if not scipy.sparse.issparse(rows):
        return rows
    rows = rows.tocsr()
    return rows.toarray() if rows.shape[0] * rows.shape[1] <= 4 * rows.nnz else rows
