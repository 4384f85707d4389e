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

Here is what users call, the settings that they spell, the records that they get and the errors that they catch. What
belongs to one subject only is in its package: `attribution`, `evaluation`, `heads`, `importance`, `layer`, `methods`,
`metrics`, `study`, and `bridges` for torch, which is imported by itself.
"""

import importlib.metadata as _metadata

from . import attribution as attribution
from . import evaluation as evaluation
from . import heads as heads
from . import importance as importance
from . import layer as layer
from . import methods as methods
from . import metrics as metrics
from . import study as study
from .action.comparing import compare as compare
from .action.comparison import Comparison as Comparison
from .action.directions import ErasingDirections as ErasingDirections
from .action.edits import edit as edit
from .action.erasing import erasing_directions as erasing_directions
from .action.measured import EditEffect as EditEffect
from .action.measured import measure_edit as measure_edit
from .action.misled import Suspect as Suspect
from .action.misled import misled as misled
from .action.misled import suspects as suspects
from .action.naming import TextImage as TextImage
from .action.naming import name_concepts as name_concepts
from .activations import GridCrops as GridCrops
from .activations import RandomCrops as RandomCrops
from .activations import SignedActivationsError as SignedActivationsError
from .attribution.table import UnknownMethodError as UnknownMethodError
from .attribution.views import Views as Views
from .attribution.visualization import Visualization as Visualization
from .attribution.visualization import visualize as visualize
from .blocks.row_blocks import RowBlocks as RowBlocks
from .evaluation import compare_methods as compare_methods
from .evaluation import score_bank as score_bank
from .explanation.class_usage import Usage as Usage
from .explanation.concepts import Concept as Concept
from .explanation.concepts import NameGuess as NameGuess
from .explanation.loading import WrongModelError as WrongModelError
from .explanation.loading import load as load
from .explanation.reasons import Why as Why
from .explanation.record import Explanation as Explanation
from .explanation.saved_files import SavedFilesError as SavedFilesError
from .explanation.saving import save as save
from .explanation.several import ClassExplanations as ClassExplanations
from .explanation.sub_concepts import Recursion as Recursion
from .explanation.telling_apart import Apart as Apart
from .faithfulness import Faithfulness as Faithfulness
from .faithfulness import ForwardKL as ForwardKL
from .faithfulness import InMeans as InMeans
from .faithfulness import InSums as InSums
from .faithfulness import Path as Path
from .faithfulness import ReverseKL as ReverseKL
from .faithfulness import SigmoidKL as SigmoidKL
from .faithfulness import SquaredLogits as SquaredLogits
from .faithfulness import certify as certify
from .faithfulness import faithfulness_path as faithfulness_path
from .importance import gradient_times_code as gradient_times_code
from .importance import sampled_total_sobol as sampled_total_sobol
from .importance import tcav as tcav
from .importance import total_sobol as total_sobol
from .model import Preprocess as Preprocess
from .model import SplitModel as SplitModel
from .model import Transform as Transform
from .nmf import ADMM as ADMM
from .nmf import HALS as HALS
from .nmf import NNDSVD as NNDSVD
from .nmf import RESULTS as RESULTS
from .nmf import Adjoint as Adjoint
from .nmf import BetaDivergence as BetaDivergence
from .nmf import Checkpoint as Checkpoint
from .nmf import CheckpointError as CheckpointError
from .nmf import Cholesky as Cholesky
from .nmf import CodesCertificate as CodesCertificate
from .nmf import ConjugateGradient as ConjugateGradient
from .nmf import FactorizationError as FactorizationError
from .nmf import Given as Given
from .nmf import ImplicitAdjoint as ImplicitAdjoint
from .nmf import KKTResidual as KKTResidual
from .nmf import LinearSolver as LinearSolver
from .nmf import MiniBatch as MiniBatch
from .nmf import MultiplicativeUpdate as MultiplicativeUpdate
from .nmf import NNDSVDa as NNDSVDa
from .nmf import NNDSVDar as NNDSVDar
from .nmf import Objective as Objective
from .nmf import PaperAdam as PaperAdam
from .nmf import Random as Random
from .nmf import RankScan as RankScan
from .nmf import Result as Result
from .nmf import SemiNMF as SemiNMF
from .nmf import Solution as Solution
from .nmf import Solver as Solver
from .nmf import SquaredError as SquaredError
from .nmf import Start as Start
from .nmf import Stats as Stats
from .nmf import StopGradient as StopGradient
from .nmf import Term as Term
from .nmf import UnrolledAdjoint as UnrolledAdjoint
from .nmf import Warmup as Warmup
from .nmf import certify_codes as certify_codes
from .nmf import derivative_stats as derivative_stats
from .nmf import encode as encode
from .nmf import factorize as factorize
from .nmf import factorize_many as factorize_many
from .nmf import implicit_vjp as implicit_vjp
from .nmf import kkt_residual as kkt_residual
from .nmf import rank_scan as rank_scan
from .outputs import Binary as Binary
from .outputs import MultiClass as MultiClass
from .outputs import MultiLabel as MultiLabel
from .pictures.crop_rules import Crops as Crops
from .pictures.crop_rules import NativeCrops as NativeCrops
from .pictures.decoding import UnreadablePhotographError as UnreadablePhotographError
from .pictures.photographs import NoPhotographsError as NoPhotographsError
from .pictures.photographs import Photograph as Photograph
from .pictures.photographs import photographs as photographs
from .pipeline.explain import explain as explain
from .pipeline.selection import NoneOfTheClassError as NoneOfTheClassError
from .pipeline.several import explain_classes as explain_classes
from .recursion.recurse import recurse as recurse
from .recursion.recurse import suggest_recursion as suggest_recursion
from .report import ReportLinks as ReportLinks
from .report import picture as picture
from .report import sanity_figure as sanity_figure
from .report import write_classes as write_classes
from .report import write_comparison as write_comparison
from .report import write_edit as write_edit
from .report import write_methods as write_methods
from .report import write_report as write_report
from .report import write_sanity_check as write_sanity_check
from .report import write_why as write_why
from .sanity import SanityCheck as SanityCheck
from .sanity import sanity_check as sanity_check
from .signs import signs_apart as signs_apart
from .support.atomic_folder import FolderInUseError as FolderInUseError
from .support.cache import ArrayCache as ArrayCache
from .support.classes import UnknownClassError as UnknownClassError
from .support.compilations import keep_compilations as keep_compilations
from .support.contents import NoContentsError as NoContentsError
from .support.memory import NotEnoughMemoryError as NotEnoughMemoryError
from .support.regular_files import UnfitFileError as UnfitFileError

__version__ = _metadata.version("face-jax")
