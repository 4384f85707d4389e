"""Which concepts a class is decided by."""

from .gradient_times_code import GradientTimesCode as GradientTimesCode
from .gradient_times_code import gradient_times_code as gradient_times_code
from .indices import Sobol as Sobol
from .sampled import sampled_total_sobol as sampled_total_sobol
from .sobol import contributions as contributions
from .sobol import exact_total_sobol as exact_total_sobol
from .sobol import total_sobol as total_sobol
from .tcav import TCAV as TCAV
from .tcav import tcav as tcav
