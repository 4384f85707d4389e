"""How good an explanation is, beside the best that's possible and the trivial."""

from .controls import mean_direction as mean_direction
from .controls import random_dictionary as random_dictionary
from .controls import unit_length as unit_length
from .curves import Curve as Curve
from .curves import Fidelity as Fidelity
from .curves import deletion_ceiling as deletion_ceiling
from .curves import fidelity as fidelity
from .curves import gini as gini
from .curves import gini_ceiling as gini_ceiling
from .curves import insertion_ceiling as insertion_ceiling
from .faithfulness import Certificates as Certificates
from .faithfulness import certificates as certificates
from .faithfulness import relative_squared_error as relative_squared_error
from .pointing import Pointing as Pointing
from .pointing import PointingCases as PointingCases
from .pointing import pointing_cases as pointing_cases
from .pointing import pointing_game as pointing_game
from .scoring import Score as Score
from .scoring import score as score
