"""Non-negative matrix factorization behind scikit-learn's interface."""

from .function import non_negative_factorization as non_negative_factorization
from .minibatch import MiniBatchNMF as MiniBatchNMF
from .nmf import NMF as NMF
