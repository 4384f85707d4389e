"""Weights: read from files, brought under a model's names, and drawn again."""
