"""Everything that is drawn: figures, pictures, the page."""

from .one_picture import picture as picture
from .page import write_report as write_report
from .sanity import sanity_figure as sanity_figure
from .sanity import write_sanity_check as write_sanity_check
