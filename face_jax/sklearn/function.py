"""`non_negative_factorization`: the estimator as a function."""

from __future__ import annotations

import warnings
from typing import Any

from ..support.arguments import flag
from .nmf import NMF


def non_negative_factorization(
    X: Any,
    W: Any = None,
    H: Any = None,
    n_components: Any = "auto",
    *,
    init: Any = None,
    update_H: Any = True,
    solver: Any = None,
    beta_loss: Any = "frobenius",
    tol: Any = 1e-4,
    max_iter: Any = 200,
    alpha_W: Any = 0.0,
    alpha_H: Any = "same",
    l1_ratio: Any = 0.0,
    random_state: Any = None,
    verbose: Any = 0,
    shuffle: Any = False,
) -> tuple[Any, Any, int]:
    """`X ≈ W H`: `face_jax.sklearn.NMF` as a function, with scikit-learn's arguments.

    **Arguments:**

    - `X`: `sample × feature`.
    - `W`, `H`: where to start with `init="custom"`; with `update_H=False`, `H` is kept and W alone is found.
    - `update_H`: whether H is found, too.
    - `n_components`, `init`, `solver`, `beta_loss`, `tol`, `max_iter`, `alpha_W`, `alpha_H`, `l1_ratio`,
        `random_state`, `verbose`, `shuffle`: those of `NMF`.

    **Returns:** `W`, `H` and the number of passes over the data; `W` in X's own kind of array. Raises `ValueError` for
    settings that aren't valid.
    """
    estimator = NMF(
        n_components, init=init, solver=solver, beta_loss=beta_loss, tol=tol, max_iter=max_iter, alpha_W=alpha_W,
        alpha_H=alpha_H, l1_ratio=l1_ratio, random_state=random_state, verbose=verbose, shuffle=shuffle,
    )  # fmt: skip
    if flag("update_H", update_H):
        codes = estimator.fit_transform(X, W=W, H=H)
        return codes, estimator.components_, estimator.n_iter_
    if W is not None:
        warnings.warn("When update_H=False, the provided initial W is not used.", RuntimeWarning, stacklevel=2)
    if H is None:
        raise ValueError("update_H=False keeps H, and there is none; give H")
    return *estimator.encoded(X, H), 1
