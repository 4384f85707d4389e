"""Where a concept is: maps on pixels."""

from .gradient import concept_gradients as concept_gradients
from .gradient import forward_with_pullback as forward_with_pullback
from .upsampled import upsampled_codes as upsampled_codes
