"""Material for studies with people: trials from an explanation, the page that asks them, and the scores.

Concepts are meant for people, and only people can say whether they understand them. CRAFT's three experiments are
here: find the *intruder* among crops of one concept, *binary choice* between two groups, and *utility*, whether
people who saw the explanation predict the model better than people who did not.
"""

from .answers import Answer as Answer
from .answers import AnswerError as AnswerError
from .answers import read_answers as read_answers
from .concept_trials import binary_trials as binary_trials
from .concept_trials import intruder_trials as intruder_trials
from .crop_pools import CroppedConcepts as CroppedConcepts
from .crop_pools import Parts as Parts
from .crop_pools import parts_of as parts_of
from .page import StudyFiles as StudyFiles
from .page import write_page as write_page
from .scoring import Accuracy as Accuracy
from .scoring import Comparison as Comparison
from .scoring import Screening as Screening
from .scoring import StudyScore as StudyScore
from .scoring import score as score
from .trials import Example as Example
from .trials import Lesson as Lesson
from .trials import Option as Option
from .trials import Picture as Picture
from .trials import Trial as Trial
from .utility import BeforeAndAfter as BeforeAndAfter
from .utility import OneCondition as OneCondition
from .utility import utility_trials as utility_trials
from .utility_score import Utility as Utility
