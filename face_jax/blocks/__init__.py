"""Rows that are read in blocks, wherever they are kept; what is needed to go through them again and again."""
