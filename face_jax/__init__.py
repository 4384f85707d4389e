"""Explain image classifiers by concepts."""
