"""Non-negative factorization and encoding: matrices in, matrices out."""

from .encode import encode as encode
from .factorize import factorize as factorize
from .linear import Cholesky as Cholesky
from .linear import ConjugateGradient as ConjugateGradient
from .objective import Objective as Objective
from .objective import SquaredError as SquaredError
from .objective import Term as Term
from .results import RESULTS as RESULTS
from .results import FactorizationError as FactorizationError
from .results import Result as Result
from .solution import Solution as Solution
from .solution import Stats as Stats
from .solvers import ADMM as ADMM
from .solvers import HALS as HALS
from .solvers import MultiplicativeUpdate as MultiplicativeUpdate
from .solvers import SemiNMF as SemiNMF
from .solvers import Solver as Solver
from .starts import NNDSVD as NNDSVD
from .starts import Given as Given
from .starts import NNDSVDa as NNDSVDa
from .starts import NNDSVDar as NNDSVDar
from .starts import Random as Random
from .starts import Start as Start
