"""Factorization of the squared error: update rules, the loop around them, and where it starts."""
