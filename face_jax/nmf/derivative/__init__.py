"""How a factorization is differentiated: conditions of the optimum, Hessian products, refinement, adjoints."""
