"""Types of the options of a factorization, as public functions take them."""

from typing import TYPE_CHECKING, Any

from .derivative.adjoints import Adjoint
from .objective import Objective, SquaredError
from .solvers.starts import Start
from .solvers.update_rules import Solver
from .terms.paper_adam import PaperAdam

if TYPE_CHECKING:
    AnyObjective = SquaredError | Objective
    AnySolver = Solver | PaperAdam
    AnyStart = Start
    AnyAdjoint = Adjoint
else:
    # Whoever gives something else is told so by the functions' own checks.
    AnyObjective = AnySolver = AnyStart = AnyAdjoint = Any
