"""Classifiers by name: torchvision's, timm's, transformers', from folders, and modules of one's own."""

from ..weights.files import WeightsError as WeightsError
from .by_name import known_models as known_models
from .by_name import load as load
from .loaded import LoadedModel as LoadedModel
from .loaded import UnknownModelError as UnknownModelError
