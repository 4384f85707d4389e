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

from . import heads as heads
from .activations import GridCrops as GridCrops
from .activations import RandomCrops as RandomCrops
from .cache import ArrayCache as ArrayCache
from .explain import explain as explain
from .explanation import Explanation as Explanation
from .factorize import ADMM as ADMM
from .factorize import NNDSVD as NNDSVD
from .factorize import Solution as Solution
from .factorize import SquaredError as SquaredError
from .factorize import encode as encode
from .factorize import factorize as factorize
from .model import Preprocess as Preprocess
from .model import SplitModel as SplitModel
from .photographs import Photograph as Photograph
from .photographs import photographs as photographs
