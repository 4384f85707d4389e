"""Iterative linear algebra: conjugate gradients, line searches, loops over blocks of rows."""
