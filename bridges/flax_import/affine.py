"""Whether a torch module is what `affine=True` says: average pooling, then an affine map."""

from __future__ import annotations

import jax
import torch
from jaxtyping import PRNGKeyArray

from ..wrappers import copied
from .check import VALUES, normal, tensors

# Rectifiers differ from a line at every scale, saturating functions and kinks far from zero only at large ones
_SCALES = (1.0, 100.0)


def refuse_unless_affine(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], *, channels_second: bool, key: PRNGKeyArray
) -> None:
    """Raise `ValueError` unless `f(2a − b) = 2 f(a) − f(b)` for random a and b, the left side from averages alone.

    **Arguments:**

    - `module`: on the CPU and in eval mode.
    - `examples`: inputs for it, for their shapes and types.
    - `channels_second`: whether inputs with four axes have their channels second; else they are last.
    - `key`: for a and b.
    """
    if len(examples) != 1 or not examples[0].is_floating_point() or examples[0].ndim < 2:
        raise ValueError(
            f"affine=True, but module takes {len(examples)} inputs of the shapes "
            f"{', '.join(str(tuple(example.shape)) for example in examples)}; only the activations of one layer are "
            "averaged: give affine=False"
        )
    (example,) = examples
    dtype = example.dtype
    if dtype not in VALUES:
        # Half precision rounds too much to tell
        module, dtype = copied(module).float(), torch.float32
    channel = 1 if channels_second and example.ndim == 4 else example.ndim - 1
    places = [axis for axis in range(1, example.ndim) if axis != channel]
    for scale, part in zip(_SCALES, jax.random.split(key, len(_SCALES)), strict=True):
        a, b = (scale * normal(k, tuple(example.shape), dtype) for k in jax.random.split(part))
        beyond = 2 * a - b
        if places:
            beyond = beyond.mean(places, keepdim=True).expand_as(beyond)
        with torch.no_grad():
            outputs = tensors(module(torch.cat([a, b, beyond])))
        for output in outputs:
            at_a, at_b, at_beyond = output.chunk(3)
            error = float((at_beyond - (2 * at_a - at_b)).abs().max() / output.abs().max())
            # Each of the four outputs in the difference may be wrong by as much as a value may
            if not error <= 4 * VALUES[dtype]:
                raise ValueError(
                    f"affine=True, but module isn't average pooling and an affine map: its outputs for random inputs "
                    f"differ from those of such a map by {error:.3g} (largest difference over largest magnitude; "
                    f"{4 * VALUES[dtype]:.3g} is allowed). Give affine=False"
                )
