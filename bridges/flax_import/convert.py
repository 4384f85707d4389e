"""Any torch module that can be exported, as a Flax module."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import jax
import torch

from face_jax.support.arguments import Seed, flag, key_of, real, several

from ..arrays import narrow, refuse_unusual
from ..splitting.outputs import returning
from ..wrappers import copied, unwrapped
from .affine import refuse_unless_affine
from .check import compare, to_jax
from .export import evaluating, exported_program, refuse_examples
from .module import ImportedNetwork


def _examples(example_inputs: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The inputs as tensors on the CPU with one batch size, which is at least two: torch takes a one for a constant."""
    what = "torch tensors whose first axis is the batch (image, channel, y, x)"
    if not isinstance(example_inputs, torch.Tensor):
        example_inputs = several("example_inputs", example_inputs, what)
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    if not inputs:
        raise ValueError("example_inputs is empty; give one tensor, or all that the module's forward takes")
    for place, value in enumerate(inputs):
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            raise ValueError(
                f"example_inputs[{place}] is {type(value).__name__}; give a torch tensor whose first axis is the batch "
                "(image, channel, y, x)"
            )
        refuse_unusual(value, f"example_inputs[{place}]")
    batches = {value.shape[0] for value in inputs}
    if len(batches) != 1 or 0 in batches:
        raise ValueError(
            f"example_inputs have batches of {sorted(batches)} along their first axes; give each the same, at least 1"
        )
    repeats = max(1, -(-2 // batches.pop()))
    return tuple(value.detach().cpu().repeat(repeats, *(1,) * (value.ndim - 1)) for value in inputs)


def _torch_module(module: object) -> torch.nn.Module:
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"module is a {type(module).__name__}; give a torch.nn.Module")
    return unwrapped(module, "module")


# torch records no graph, and so has no gradients to compare with, under a caller's inference_mode
@torch.inference_mode(False)
def to_flax(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor],
    *,
    check: bool = True,
    rtol: float | None = None,
    gradient_rtol: float | None = None,
    transpose_input: bool = True,
    transpose_output: bool = True,
    affine: bool = False,
    key: Seed = None,
) -> ImportedNetwork:
    """Import a torch module, whole or the head of a split one, as a Flax module that computes the same.

    Use it to run everything from pixels to concepts in one compiled JAX program, or to give the faithful
    factorization a head that is not affine. The module is exported with `torch.export`, taken apart into ATen
    operators, and each is replaced by its JAX counterpart; parameters and buffers are copied. The result takes
    batches of any size and compares itself with torch before it is handed out. The torch module is used in eval
    mode and left as it was.

    **Arguments:**

    - `module`: any exportable torch module, on any device; its weights' type (float64, float32, bfloat16, float16)
        is kept.
    - `example_inputs`: one tensor, or all that the module's forward takes by position; shapes as in torch, the
        batch along the first axis of each. Only shapes and types matter.
    - `check`: whether to compare values and input gradients with torch's on random inputs, and to try `affine`.
    - `rtol`: largest difference of a value from torch's, over torch's largest; None for 1e-4 in float32, 1e-10 in
        float64, and in half precision four times torch's own distance from float32.
    - `gradient_rtol`: the same for input gradients; None for 1e-3 in float32, else as for `rtol` (but 1e-7 in float64
        if the module has a hardsigmoid, whose derivative torch does not compute more exactly).
    - `transpose_input`: whether four-axis inputs are pictures that torch takes as `image channel y x` and the network
        shall take as `image y x channel`. False for those that torch has channels-last already (inside Swin).
    - `transpose_output`: the same for four-axis outputs.
    - `affine`: whether the module is average pooling and an affine map, which the factorization can exploit. Such a
        network takes maps of any height and width, and rows.
    - `key`: for the random inputs of the check, or a seed; None for a fixed one.

    **Returns:**

    The network; `network.errors` says how far it is from torch. Of a module that returns a record with `logits`, such
    as transformers' classifiers, it returns these alone.

    **Raises:**

    - `UnsupportedOperatorError`: torch operators without a counterpart, with the modules that call them.
    - `ExportError`: torch cannot trace the module with a free batch size.
    - `ImportMismatchError`: the check failed, with the measured numbers.
    - `ValueError`: inputs or weights that cannot be used, or `affine=True` of a module that is not.

    **Example:**

    >>> imported = bridges.to_flax(network, torch.zeros(1, 3, 16, 16))
    >>> imported(jnp.zeros((1, 16, 16, 3), jnp.float32)).shape
    (1, 5)
    """
    for name, value in (
        ("check", check),
        ("transpose_input", transpose_input),
        ("transpose_output", transpose_output),
        ("affine", affine),
    ):
        flag(name, value)
    for name, value in (("rtol", rtol), ("gradient_rtol", gradient_rtol)):
        if value is not None:
            real(name, value, "tolerance", least=0)
    key = key_of(key)
    module, examples = _torch_module(module), _examples(example_inputs)
    weights = [*module.parameters(), *module.buffers()]
    if any(weight.dtype == torch.float64 for weight in weights) and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "module has float64 weights and JAX's 64-bit types are off; call "
            'jax.config.update("jax_enable_x64", True) first, or pass module.float()'
        )
    if any(weight.device.type != "cpu" or weight.is_inference() for weight in weights):
        module = copied(module).cpu()
    with evaluating(module), contextlib.ExitStack() as stack:
        returned = refuse_examples(module, examples)
        # A record such as transformers' outputs is no value that JAX knows, and its logits are what it is asked for.
        record = dataclasses.is_dataclass(returned) and isinstance(getattr(returned, "logits", None), torch.Tensor)
        stack.enter_context(returning(module, ("logits",) if record else ()))
        program, parameters, buffers = exported_program(module, examples)
        network = ImportedNetwork(
            program,
            {name: to_jax(value) for name, value in parameters.items()},
            # Positions in tables, which JAX has no 64-bit types for by default.
            {name: to_jax(narrow(value)) for name, value in buffers.items()},
            transpose_input=transpose_input,
            transpose_output=transpose_output,
            affine=affine,
        )
        if check:
            network.errors = compare(network, module, examples, rtol=rtol, gradient_rtol=gradient_rtol, key=key)
            if affine:
                refuse_unless_affine(module, examples, channels_second=transpose_input, key=key)
    return network
