"""Types of the options of a factorization, as public functions take them."""

from typing import TYPE_CHECKING, Any

from .derivative.adjoints import Adjoint
from .solvers.paper_adam import PaperAdam
from .solvers.starts import Start
from .solvers.update_rules import Solver

if TYPE_CHECKING:
    import os

    from .checkpoint import Checkpoint
    from .objective import Objective as AnyObjective

    AnySolver = Solver | PaperAdam
    AnyStart = Start
    AnyAdjoint = Adjoint
    Matrix = Any  # an array, or what `RowBlocks` takes
    Kept = Checkpoint | str | os.PathLike[str] | None
    CodesKept = str | os.PathLike[str] | bool | None
    Mask = Any  # truth values, or None
else:
    # Whoever gives something else is told so by the functions' own checks.
    AnyObjective = AnySolver = AnyStart = AnyAdjoint = Matrix = Mask = CodesKept = Kept = Any
