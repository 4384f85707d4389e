"""torch and JAX, side by side."""
