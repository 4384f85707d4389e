"""Methods behind one small interface: `fit(activations, rank, key)` gives a `Bank`, which encodes and decodes.

A method of your own is any object with a `name` and `fit`; it gets every score and control that these get.
"""

from .autoencoder import SparseAutoencoder as SparseAutoencoder
from .bank import Bank as Bank
from .bank import Method as Method
from .controls import CONTROLS as CONTROLS
from .controls import MeanDirection as MeanDirection
from .controls import NNDSVDStart as NNDSVDStart
from .controls import RandomDirections as RandomDirections
from .decompositions import ICA as ICA
from .decompositions import PCA as PCA
from .decompositions import KMeans as KMeans
from .decompositions import RobustPCA as RobustPCA
from .factorizations import CRAFT as CRAFT
from .factorizations import FACE as FACE
from .factorizations import ICE as ICE
from .factorizations import NMF as NMF
from .factorizations import SparseCoding as SparseCoding
from .inference import ByObjective as ByObjective
from .inference import Inference as Inference
from .inference import LeastSquares as LeastSquares
from .inference import NearestConcept as NearestConcept
from .inference import NonNegativeLeastSquares as NonNegativeLeastSquares
from .inference import Projection as Projection
from .published import PUBLISHED as PUBLISHED
from .published import Published as Published
from .segments import ACE as ACE
from .segments import superpixels as superpixels
from .weighing import ByDirectionalDerivative as ByDirectionalDerivative
from .weighing import ByGradientTimesCode as ByGradientTimesCode
from .weighing import ByHaltonSobol as ByHaltonSobol
from .weighing import BySobol as BySobol
from .weighing import ByTCAV as ByTCAV
from .weighing import ByVectors as ByVectors
from .weighing import Weighing as Weighing
