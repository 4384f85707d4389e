"""Faithfulness: concepts that keep the classifier's predictions (FACE)."""

from .certificates import Certified as Certified
from .certificates import certify as certify
from .lambda_path import Path as Path
from .lambda_path import Point as Point
from .lambda_path import faithfulness_path as faithfulness_path
from .lambda_units import InMeans as InMeans
from .lambda_units import InSums as InSums
from .lambda_units import Unit as Unit
from .losses import ForwardKL as ForwardKL
from .losses import Loss as Loss
from .losses import ReverseKL as ReverseKL
from .losses import SigmoidKL as SigmoidKL
from .losses import SquaredLogits as SquaredLogits
from .rows import faithful_rows as faithful_rows
from .term import Faithfulness as Faithfulness
