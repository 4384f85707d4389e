"""Everything that is drawn: figures, pictures, the page."""

from .actions import write_comparison as write_comparison
from .actions import write_edit as write_edit
from .classes import write_classes as write_classes
from .compared_methods import write_methods as write_methods
from .links import ReportLinks as ReportLinks
from .one_picture import picture as picture
from .page import write_report as write_report
from .reasons import balance as balance
from .reasons import write_why as write_why
from .sanity import sanity_figure as sanity_figure
from .sanity import write_sanity_check as write_sanity_check
