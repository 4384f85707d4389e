"""Linear systems: conjugate gradients, and Cholesky factors of very many small systems at once."""
