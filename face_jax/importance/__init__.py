"""Which concepts a class is decided by."""

from .concept_activation import TCAV as TCAV
from .concept_activation import tcav as tcav
from .first_order import GradientTimesCode as GradientTimesCode
from .first_order import gradient_times_code as gradient_times_code
from .indices import Sobol as Sobol
from .readings import Reading as Reading
from .readings import class_readings as class_readings
from .sampled import sampled_total_sobol as sampled_total_sobol
from .sobol import contributions as contributions
from .sobol import exact_total_sobol as exact_total_sobol
from .sobol import total_sobol as total_sobol
