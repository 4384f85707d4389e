"""Faithfulness: concepts that keep the classifier's predictions (FACE)."""

from .certificates import Certified as Certified
from .certificates import certify as certify
from .losses import ForwardKL as ForwardKL
from .losses import Loss as Loss
from .losses import ReverseKL as ReverseKL
from .losses import SigmoidKL as SigmoidKL
from .losses import SquaredLogits as SquaredLogits
from .path import Path as Path
from .path import Point as Point
from .path import faithfulness_path as faithfulness_path
from .rows import faithful_rows as faithful_rows
from .term import Faithfulness as Faithfulness
from .units import InMeans as InMeans
from .units import InSums as InSums
from .units import Unit as Unit
