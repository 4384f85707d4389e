"""Compare an imported network with the torch module it came from, on random inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, PRNGKeyArray
from torch.utils import _pytree as torch_tree

from ..wrappers import copied
from .errors import ImportMismatchError
from .module import ImportedNetwork, ImportErrors

VALUES = {torch.float32: 1e-4, torch.float64: 1e-10}
_GRADIENTS = {torch.float32: 1e-3, torch.float64: 1e-10}

# torch computes the derivative of hardsigmoid in float64 with a sixth in float32 (1.0f / 6.0f)
_ROUNDED_SIXTH = "aten.hardsigmoid.default"
_ROUNDED_SIXTH_RTOL = 1e-7

# In half precision both sides round at every step: we may be this many times as far from float32 as torch is
_HALF_PRECISION_FACTOR = 4.0

# How far gradients may differ in float64 when a difference in fewer bits is to be put down to a kink
_SMOOTH = 1e-6


def to_jax(tensor: torch.Tensor) -> Array:
    """A copy of a torch tensor as a JAX array of the same type; later changes to the tensor do not reach it."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return jax.device_put(tensor.view(torch.int16).numpy().view(jnp.bfloat16).copy())
    # Not by `jnp.array`, which compiles a program for each shape
    return jax.device_put(tensor.numpy().copy())


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


@dataclasses.dataclass(frozen=True)
class _Question:
    """Inputs and cotangents that both sides are asked about."""

    inputs: list[torch.Tensor]
    cotangents: list[torch.Tensor]

    def to(self, dtype: torch.dtype) -> _Question:
        """The same with floating-point numbers of another type."""
        return _Question(*([_floating_to(x, dtype) for x in part] for part in (self.inputs, self.cotangents)))


@dataclasses.dataclass(frozen=True)
class _Answer:
    """Outputs, and the gradients of the floating-point inputs."""

    outputs: list[Any]
    gradients: list[Any]


def _floating_to(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Normal numbers of a floating-point type; float32 for any other."""
    values = np.array(jax.random.normal(key, shape, jnp.float32))
    return torch.from_numpy(values).to(dtype if dtype.is_floating_point else torch.float32)


def _question(module: torch.nn.Module, examples: tuple[torch.Tensor, ...], batch: int, key: PRNGKeyArray) -> _Question:
    """Normal numbers for floating-point inputs, the examples' own integers in turn, normal cotangents."""
    input_key, cotangent_key = jax.random.split(key)
    inputs = [
        normal(k, (batch, *example.shape[1:]), example.dtype)
        if example.is_floating_point()
        else example[torch.arange(batch) % example.shape[0]]
        for example, k in zip(examples, jax.random.split(input_key, len(examples)), strict=True)
    ]
    with torch.no_grad():
        outputs = tensors(module(*_copies(inputs)))
    keys = jax.random.split(cotangent_key, len(outputs))
    return _Question(inputs, [normal(k, tuple(out.shape), out.dtype) for k, out in zip(keys, outputs, strict=True)])


def _copies(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For a module that overwrites what it is given."""
    return [value.clone() for value in inputs]


def tensors(outputs: Any) -> list[torch.Tensor]:
    """All tensors in what a module returns, in torch's order."""
    return [part for part in torch_tree.tree_leaves(outputs) if isinstance(part, torch.Tensor)]


def _ask_torch(module: torch.nn.Module, question: _Question) -> _Answer:
    inputs = [value.clone().requires_grad_(value.is_floating_point()) for value in question.inputs]
    outputs = tensors(module(*_copies(inputs)))
    wanted = [value for value in inputs if value.requires_grad]
    pairs = [(out, cot) for out, cot in zip(outputs, question.cotangents, strict=True) if out.requires_grad]
    if not pairs:
        return _Answer(outputs, [torch.zeros_like(value) for value in wanted])
    outs, cots = zip(*pairs, strict=True)
    gradients = torch.autograd.grad(outs, wanted, cots, allow_unused=True)
    return _Answer(outputs, [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True)])


@jax.jit
def _outputs_and_gradients(network: ImportedNetwork, inputs: list[Array], cotangents: list[Array]) -> Any:
    places = [place for place, value in enumerate(inputs) if jnp.issubdtype(value.dtype, jnp.floating)]

    def outputs(*wanted: Array) -> list[Array]:
        arguments = list(inputs)
        for place, value in zip(places, wanted, strict=True):
            arguments[place] = value
        # In torch's order: JAX would sort the keys of dictionaries
        return torch_tree.tree_leaves(network(*arguments))

    values, pull = jax.vjp(outputs, *(inputs[place] for place in places))
    seeds = [
        cot if jnp.issubdtype(value.dtype, jnp.floating) else np.zeros(value.shape, jax.dtypes.float0)
        for value, cot in zip(values, cotangents, strict=True)
    ]
    return values, list(pull(seeds))


def _ask_jax(network: ImportedNetwork, question: _Question) -> _Answer:
    def first(value: Any, moved: bool) -> Any:
        return np.moveaxis(to_numpy(value), 3, 1) if moved and value.ndim == 4 else to_numpy(value)

    def last(value: torch.Tensor, moved: bool) -> Array:
        return to_jax(value.permute(0, 2, 3, 1) if moved and value.ndim == 4 else value)

    moved_in, moved_out = network.transpose_input, network.transpose_output
    # Accelerators multiply float32 in fewer bits unless told otherwise; this is about the program, not about that
    with jax.default_matmul_precision("highest"):
        values, gradients = _outputs_and_gradients(
            network,
            [last(value, moved_in) for value in question.inputs],
            [last(value, moved_out) for value in question.cotangents],
        )
    return _Answer([first(v, moved_out) for v in values], [first(g, moved_in) for g in gradients])


def _worst(values: list[Any], references: list[Any]) -> float:
    return max(map(relative_error, values, references), default=0.0)


def _worst_by_image(values: list[Any], references: list[Any]) -> np.ndarray:
    """The largest error of each image, over the largest magnitude of the whole batch."""
    worst = np.zeros(len(references[0]) if references else 1)
    for value, reference in zip(values, references, strict=True):
        value, reference = to_numpy(value), to_numpy(reference)
        difference = np.abs(value - reference).reshape(len(reference), -1).max(1, initial=0.0)
        worst = np.maximum(worst, difference / (np.abs(reference).max(initial=0.0) or 1.0))
    return np.where(np.isfinite(worst), worst, np.inf)


def widened(weight: Array) -> Array:
    """Floating-point numbers in float64; by NumPy, as JAX would compile a program for each shape."""
    return jax.device_put(np.asarray(weight, np.float64)) if jnp.issubdtype(weight.dtype, jnp.floating) else weight


def _in_float64(network: ImportedNetwork, module: torch.nn.Module, question: _Question) -> np.ndarray:
    """The gradients' error for each image when both sides compute in float64."""
    wide = question.to(torch.float64)
    with jax.enable_x64(True):
        ours = _ask_jax(jax.tree.map(widened, network), wide)
    return _worst_by_image(ours.gradients, _ask_torch(copied(module).double(), wide).gradients)


def _refuse_not_finite(module: torch.nn.Module, answer: _Answer, batch: int) -> None:
    for what, results in (("outputs", answer.outputs), ("input gradients", answer.gradients)):
        if all(bool(tensor.isfinite().all()) for tensor in results):
            continue
        weights = (*module.named_parameters(), *module.named_buffers())
        spoilt = [name for name, weight in weights if bool(weight.isnan().any())]
        remedy = (
            f"its {', '.join(spoilt[:3])} {'hold' if len(spoilt) > 1 else 'holds'} NaN: load its weights again"
            if spoilt
            else "give check=False if it is not made for such inputs"
        )
        raise ValueError(f"module's own {what} for {batch} random normal inputs are NaN or infinite; {remedy}")


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

    A rectifier whose argument is zero up to rounding may be open on one side and shut on the other, and then
    gradients differ although both are right. So an image whose gradients disagree is asked again in float64, where
    such a coincidence is ten million times less likely than in float32: if both sides agree there it is set aside and
    counted.

    **Arguments:**

    - `network`: the imported network.
    - `module`: the torch module, on the CPU and in eval mode.
    - `examples`: inputs for it, for their shapes and types.
    - `rtol`, `gradient_rtol`: largest differences over largest magnitude that are accepted; None for 1e-4 and 1e-3 in
        float32, 1e-10 in float64 (gradients of hardsigmoid: 1e-7, torch is no nearer), and in half precision four
        times torch's own distance from float32.
    - `key`: for the random inputs and cotangents.

    **Returns:**

    The measured errors.

    **Raises:**

    `ImportMismatchError` with the measured numbers if a tolerance is exceeded, `ValueError` if what torch itself
    computes is not finite.
    """
    batch = examples[0].shape[0] + 1
    question = _question(module, examples, batch, key)
    theirs = _ask_torch(module, question)
    _refuse_not_finite(module, theirs, batch)
    ours = _ask_jax(network, question)
    dtype = next((out.dtype for out in theirs.outputs if out.is_floating_point()), torch.float32)
    if dtype in VALUES:
        inexact = dtype == torch.float64 and _ROUNDED_SIXTH in {step.operator for step in network.program.instructions}
        tolerances = (VALUES[dtype], _ROUNDED_SIXTH_RTOL if inexact else _GRADIENTS[dtype])
    else:
        exact = _ask_torch(copied(module).float(), question.to(torch.float32))
        floor = 8 * torch.finfo(dtype).eps
        tolerances = (
            _HALF_PRECISION_FACTOR * _worst(theirs.outputs, exact.outputs) + floor,
            _HALF_PRECISION_FACTOR * _worst(theirs.gradients, exact.gradients) + floor,
        )
        theirs = exact
    value_rtol = tolerances[0] if rtol is None else rtol
    slope_rtol = tolerances[1] if gradient_rtol is None else gradient_rtol

    value_error = _worst(ours.outputs, theirs.outputs)
    if not value_error <= value_rtol:
        raise ImportMismatchError("values", value_error, value_rtol, batch)
    by_image = _worst_by_image(ours.gradients, theirs.gradients)
    kinks = np.zeros(len(by_image), bool)
    if dtype != torch.float64 and by_image.max() > slope_rtol:
        differs = (by_image > slope_rtol) & np.isfinite(by_image)
        kinks = differs & (_in_float64(network, module, question) <= _SMOOTH)
    slope_error = float(by_image[~kinks].max(initial=0.0))
    if not slope_error <= slope_rtol:
        raise ImportMismatchError("input gradients", slope_error, slope_rtol, batch)
    return ImportErrors(value_error, slope_error, value_rtol, slope_rtol, batch, int(kinks.sum()))
