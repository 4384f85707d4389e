"""The command `face-jax`."""
