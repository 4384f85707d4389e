"""Banks of any method, scored alike: on pictures they weren't fitted on, beside controls and ceilings."""

from .bank_scores import BankScore as BankScore
from .bank_scores import score_bank as score_bank
from .class_pictures import PicturesAndCrops as PicturesAndCrops
from .class_pictures import pictures_and_crops as pictures_and_crops
from .comparison import compare_methods as compare_methods
from .results import Comparison as Comparison
from .results import Difference as Difference
from .results import MethodResult as MethodResult
