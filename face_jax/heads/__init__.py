"""Classifier heads as pure functions: activations to logits."""

from .affine import Affine as Affine
