"""FACE's and CRAFT's tables: what `paper_tables.py` makes, and how it's written."""
