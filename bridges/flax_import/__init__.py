"""The general import of torch modules into Flax."""

from .convert import to_flax as to_flax
from .errors import ExportError as ExportError
from .errors import ImportMismatchError as ImportMismatchError
from .errors import UnsupportedOperatorError as UnsupportedOperatorError
from .module import Buffer as Buffer
from .module import ImportedNetwork as ImportedNetwork
from .module import ImportErrors as ImportErrors
