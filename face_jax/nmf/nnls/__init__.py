"""Exact non-negative least squares for very many rows."""
