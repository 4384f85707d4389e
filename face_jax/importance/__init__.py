"""Which concepts a class is decided by."""

from .sobol import Sobol as Sobol
from .sobol import contributions as contributions
from .sobol import exact_total_sobol as exact_total_sobol
from .sobol import total_sobol as total_sobol
