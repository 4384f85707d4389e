"""Everything that is drawn: figures, pictures, the page."""

from .page import write_report as write_report
