"""Non-negative matrix factorization behind scikit-learn's interface."""

from ..support.extras import installing

try:
    import sklearn as _  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"face_jax.sklearn needs scikit-learn, which is not installed; {installing('sklearn')}"
    ) from error

from .function import non_negative_factorization as non_negative_factorization
from .minibatch import MiniBatchNMF as MiniBatchNMF
from .nmf import NMF as NMF
