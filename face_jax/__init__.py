"""Explain image classifiers by concepts: a trained network's activations, factorized `A ≈ U Wᵀ` with `U, W ≥ 0`.

The axis words used in every signature:

| word | meaning |
|---|---|
| `image` `y` `x` | a picture and its feature map's grid; colours and channels come last |
| `row` | one row of the matrix that is factorized: a pooled crop, or one place of a feature map |
| `channel` | features of an activation |
| `concept` | the factorization's rank |
| `class` | the classifier's outputs |

`codes` (`row concept`) are the papers' U, `dictionary` (`concept channel`, each concept of unit length) their Wᵀ;
`features` is their g, `head` their h.
"""

from . import attribution as attribution
from . import heads as heads
from . import layer as layer
from . import study as study
from .activations import GridCrops as GridCrops
from .activations import RandomCrops as RandomCrops
from .attribution.views import Views as Views
from .attribution.visualization import visualize as visualize
from .cache import ArrayCache as ArrayCache
from .compilations import keep_compilations as keep_compilations
from .crops import NativeCrops as NativeCrops
from .explain import explain as explain
from .explanation import Explanation as Explanation
from .factorize import ADMM as ADMM
from .factorize import HALS as HALS
from .factorize import NNDSVD as NNDSVD
from .factorize import RESULTS as RESULTS
from .factorize import Adjoint as Adjoint
from .factorize import Cholesky as Cholesky
from .factorize import CodesCertificate as CodesCertificate
from .factorize import ConjugateGradient as ConjugateGradient
from .factorize import FactorizationError as FactorizationError
from .factorize import Given as Given
from .factorize import ImplicitAdjoint as ImplicitAdjoint
from .factorize import KKTResidual as KKTResidual
from .factorize import MultiplicativeUpdate as MultiplicativeUpdate
from .factorize import NNDSVDa as NNDSVDa
from .factorize import NNDSVDar as NNDSVDar
from .factorize import Objective as Objective
from .factorize import PaperAdam as PaperAdam
from .factorize import Random as Random
from .factorize import RankScan as RankScan
from .factorize import Result as Result
from .factorize import SemiNMF as SemiNMF
from .factorize import Solution as Solution
from .factorize import SquaredError as SquaredError
from .factorize import Stats as Stats
from .factorize import StopGradient as StopGradient
from .factorize import Term as Term
from .factorize import UnrolledAdjoint as UnrolledAdjoint
from .factorize import certify_codes as certify_codes
from .factorize import derivative_stats as derivative_stats
from .factorize import encode as encode
from .factorize import factorize as factorize
from .factorize import implicit_vjp as implicit_vjp
from .factorize import kkt_residual as kkt_residual
from .factorize import rank_scan as rank_scan
from .faithfulness import Faithfulness as Faithfulness
from .faithfulness import ForwardKL as ForwardKL
from .faithfulness import InMeans as InMeans
from .faithfulness import InSums as InSums
from .faithfulness import ReverseKL as ReverseKL
from .faithfulness import SigmoidKL as SigmoidKL
from .faithfulness import SquaredLogits as SquaredLogits
from .faithfulness import certify as certify
from .faithfulness import faithfulness_path as faithfulness_path
from .importance import gradient_times_code as gradient_times_code
from .importance import sampled_total_sobol as sampled_total_sobol
from .importance import tcav as tcav
from .importance import total_sobol as total_sobol
from .loading import load as load
from .model import Preprocess as Preprocess
from .model import SplitModel as SplitModel
from .photographs import Photograph as Photograph
from .photographs import photographs as photographs
from .recursion import recurse as recurse
from .recursion import suggest_recursion as suggest_recursion
from .report import picture as picture
from .report import sanity_figure as sanity_figure
from .report import write_report as write_report
from .report import write_sanity_check as write_sanity_check
from .sanity import sanity_check as sanity_check
from .saving import save as save
