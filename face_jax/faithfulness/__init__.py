"""Faithfulness: concepts that keep the classifier's predictions (FACE)."""

from .losses import ForwardKL as ForwardKL
from .losses import Loss as Loss
from .losses import ReverseKL as ReverseKL
from .losses import SigmoidKL as SigmoidKL
from .losses import SquaredLogits as SquaredLogits
from .term import Faithfulness as Faithfulness
from .units import InMeans as InMeans
from .units import InSums as InSums
from .units import Unit as Unit
