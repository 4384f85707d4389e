"""Types of the options of a factorization, as public functions take them."""

from typing import TYPE_CHECKING, Any

from .derivative.adjoints import Adjoint
from .solvers.starts import Start
from .solvers.update_rules import Solver
from .terms.paper_adam import PaperAdam

if TYPE_CHECKING:
    from .objective import AnyObjective as AnyObjective

    AnySolver = Solver | PaperAdam
    AnyStart = Start
    AnyAdjoint = Adjoint
else:
    # Whoever gives something else is told so by the functions' own checks.
    AnyObjective = AnySolver = AnyStart = AnyAdjoint = Any
