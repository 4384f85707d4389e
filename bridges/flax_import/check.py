"""Compare an imported network with the torch module it came from, on random inputs."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, PRNGKeyArray
from torch.utils import _pytree as torch_tree

from .errors import ImportMismatchError
from .module import ImportedNetwork, ImportErrors

# Where torch itself is only this many roundings from the exact answer, so may we be
_HALF_PRECISION_FACTOR = 4.0

_VALUES = {torch.float32: 1e-4, torch.float64: 1e-10}
_GRADIENTS = {torch.float32: 1e-3, torch.float64: 1e-10}


def to_jax(tensor: torch.Tensor) -> Array:
    """A copy of a torch tensor as a JAX array of the same type; later changes to the tensor do not reach it."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return jnp.array(tensor.view(torch.int16).numpy().view(jnp.bfloat16))
    return jnp.array(tensor.numpy())


def to_numpy(value: Any) -> np.ndarray:
    """A torch or JAX array as float64, for comparisons."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().double().numpy()
    return np.asarray(value).astype(np.float64)


def relative_error(value: Any, reference: Any) -> float:
    """The largest difference over the largest magnitude of `reference`; infinite where something is not finite."""
    value, reference = to_numpy(value), to_numpy(reference)
    if value.shape != reference.shape:
        raise ValueError(f"the imported network returns shape {value.shape} where torch returns {reference.shape}")
    if not value.size:
        return 0.0
    difference = np.abs(value - reference).max()
    scale = np.abs(reference).max()
    if not np.isfinite(difference) or not np.isfinite(scale):
        return float("inf")
    return float(difference / scale) if scale else float(difference)


def _torch_pass(
    module: torch.nn.Module, inputs: list[torch.Tensor], cotangents: list[torch.Tensor] | None, key: PRNGKeyArray
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Outputs, cotangents (drawn if not given) and the inputs' gradients."""
    inputs = [value.clone().requires_grad_(value.is_floating_point()) for value in inputs]
    outputs = [part for part in torch_tree.tree_leaves(module(*inputs)) if isinstance(part, torch.Tensor)]
    if cotangents is None:
        keys = jax.random.split(key, len(outputs))
        cotangents = [_normal(k, tuple(out.shape), out.dtype) for k, out in zip(keys, outputs, strict=True)]
    pairs = [(out, cot) for out, cot in zip(outputs, cotangents, strict=True) if out.requires_grad]
    wanted = [value for value in inputs if value.requires_grad]
    if not pairs or not wanted:
        return outputs, cotangents, []
    outs, cots = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(outs, wanted, cots, allow_unused=True)
    return outputs, cotangents, [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True)]


def _normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    values = np.array(jax.random.normal(key, shape, jnp.float32))
    return torch.from_numpy(values).to(dtype if dtype.is_floating_point else torch.float32)


def _random_like(examples: tuple[torch.Tensor, ...], batch: int, key: PRNGKeyArray) -> list[torch.Tensor]:
    """Random inputs of the examples' kinds: normal numbers, or the examples' own integers in turn."""
    result = []
    for example, k in zip(examples, jax.random.split(key, len(examples)), strict=True):
        if example.is_floating_point():
            result.append(_normal(k, (batch, *example.shape[1:]), example.dtype))
        else:
            result.append(example[torch.arange(batch) % example.shape[0]])
    return result


def _picture(tensor: torch.Tensor, last: bool) -> torch.Tensor:
    return tensor.permute(0, 2, 3, 1) if last and tensor.ndim == 4 else tensor


def compare(
    network: ImportedNetwork,
    module: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    *,
    rtol: float | None = None,
    gradient_rtol: float | None = None,
    key: PRNGKeyArray,
) -> ImportErrors:
    """Measure values and input gradients against torch on one more random input than the example has.

    **Arguments:**

    - `network`: the imported network.
    - `module`: the torch module, on the CPU and in eval mode.
    - `examples`: inputs for it, for their shapes and types.
    - `rtol`, `gradient_rtol`: largest differences over largest magnitude that are accepted; None for 1e-4 and 1e-3 in
        float32, 1e-10 in float64, and in half precision four times torch's own distance from float32.
    - `key`: for the random inputs and cotangents.

    **Returns:**

    The measured errors.

    **Raises:**

    `ImportMismatchError` with the measured numbers if a tolerance is exceeded.
    """
    batch = examples[0].shape[0] + 1
    input_key, cotangent_key = jax.random.split(key)
    inputs = _random_like(examples, batch, input_key)
    outputs, cotangents, gradients = _torch_pass(module, inputs, None, cotangent_key)
    dtype = next((out.dtype for out in outputs if out.is_floating_point()), torch.float32)

    if dtype in _VALUES:
        tolerances = [_VALUES[dtype], _GRADIENTS[dtype]]
    else:
        # float16 and bfloat16: both sides round at every step, so both are measured against float32
        wide = copy.deepcopy(module).float()
        values, _, slopes = _torch_pass(
            wide, [x.float() if x.is_floating_point() else x for x in inputs], [c.float() for c in cotangents], key
        )
        floor = 8 * float(torch.finfo(dtype).eps)
        own = [max(map(relative_error, outputs, values)), max(map(relative_error, gradients, slopes), default=0.0)]
        tolerances = [_HALF_PRECISION_FACTOR * error + floor for error in own]
        outputs, gradients = values, slopes
    tolerances = [
        given if given is not None else default
        for given, default in zip((rtol, gradient_rtol), tolerances, strict=True)
    ]

    arrays = [to_jax(_picture(value, network.transpose_input)) for value in inputs]
    cots = [to_jax(_picture(value, network.transpose_output)) for value in cotangents]
    ours, slopes = _jax_pass(network, arrays, cots)
    expected = [_picture(out, network.transpose_output) for out in outputs]
    errors = [
        max(map(relative_error, ours, expected)),
        max(map(relative_error, slopes, [_picture(g, network.transpose_input) for g in gradients]), default=0.0),
    ]
    for what, error, tolerance in zip(("values", "input gradients"), errors, tolerances, strict=True):
        if not error <= tolerance:
            raise ImportMismatchError(what, error, tolerance, batch)
    return ImportErrors(errors[0], errors[1], tolerances[0], tolerances[1], batch)


def _jax_pass(network: ImportedNetwork, inputs: list[Array], cotangents: list[Array]) -> tuple[list[Array], list[Array]]:
    places = [place for place, value in enumerate(inputs) if jnp.issubdtype(value.dtype, jnp.floating)]

    @jax.jit
    def both(network: ImportedNetwork, inputs: list[Array], cotangents: list[Array]) -> Any:
        def outputs(*wanted: Array) -> list[Array]:
            arguments = list(inputs)
            for place, value in zip(places, wanted, strict=True):
                arguments[place] = value
            return jax.tree.leaves(network(*arguments))

        values, pull = jax.vjp(outputs, *(inputs[place] for place in places))
        seeds = [
            cot if jnp.issubdtype(value.dtype, jnp.floating) else np.zeros(value.shape, jax.dtypes.float0)
            for value, cot in zip(values, cotangents, strict=True)
        ]
        return values, pull(seeds)

    # Accelerators multiply float32 in fewer bits unless told otherwise; this is about the program, not about that
    with jax.default_matmul_precision("highest"):
        values, gradients = both(network, inputs, cotangents)
    return list(values), list(gradients)
