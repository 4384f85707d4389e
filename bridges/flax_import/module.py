"""An imported network: torch's parameters as a Flax module that runs a torch program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Shaped

from .layout import ChannelsLast, in_last_order, in_torch_order
from .program import Program, mapped


class Buffer(nnx.Variable):
    """A torch buffer: running statistics, tables of positions. No parameter, so optimizers pass it by."""


@dataclasses.dataclass(frozen=True)
class ImportErrors:
    """How far an imported network is from torch, measured when it was imported.

    Every number is a largest absolute difference over the largest absolute value of torch's. Two of these always
    compare equal: networks that differ in nothing else share their compiled programs.

    **Arguments:**

    - `values`: of the outputs.
    - `gradients`: of the derivative with respect to the inputs, for a random cotangent.
    - `value_tolerance`, `gradient_tolerance`: what would have been accepted.
    - `batch`: how many random inputs were compared; another number than the example's.
    - `kinks`: how many of them were set aside for the gradients, because rounding put torch and JAX on different
        sides of a rectifier's kink (they agree in float64).
    """

    values: float = dataclasses.field(compare=False)
    gradients: float = dataclasses.field(compare=False)
    value_tolerance: float = dataclasses.field(compare=False)
    gradient_tolerance: float = dataclasses.field(compare=False)
    batch: int = dataclasses.field(compare=False)
    kinks: int = dataclasses.field(compare=False, default=0)


def _averaged_everywhere(value: Any, shape: tuple[int | None, ...]) -> Any:
    """Averages over places, at each place of an input of `shape`; left as they are if the channels do not fit."""
    if value.ndim < 2 or value.shape[-1] != shape[-1]:
        return value
    image, channel = value.shape[0], value.shape[-1]
    average = jnp.mean(value, tuple(range(1, value.ndim - 1)))
    return jnp.broadcast_to(
        average.reshape((image, *(1,) * (len(shape) - 2), channel)), (image, *(size or 0 for size in shape[1:]))
    )


class ImportedNetwork(nnx.Module):
    """A torch module as a pure function of its parameters and inputs; made by `to_flax`.

    It is a pytree whose leaves are the weights: `jax.jit`, `jax.grad`, `jax.vmap`, `nnx.split` and `nnx.merge` take
    it as it is, and it serves as a `Head`. It computes what the torch module computes in eval mode.

    **Arguments:**

    - `program`: what to compute.
    - `parameters`: torch's parameters by their names in the `state_dict`, in torch's layout.
    - `buffers`: the same for buffers and constants.
    - `transpose_input`: whether inputs with four axes come as `image y x channel`; else as torch has them.
    - `transpose_output`: the same for what is returned.
    - `affine`: whether the logits are an affine function of the inputs averaged over places. Then inputs have any
        height and width, or are rows.
    - `errors`: how far from torch it is, or None if nobody looked.
    """

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Shaped[Array, "..."]],
        buffers: Mapping[str, Shaped[Array, "..."]],
        *,
        transpose_input: bool = True,
        transpose_output: bool = True,
        affine: bool = False,
        errors: ImportErrors | None = None,
    ) -> None:
        self.parameters = nnx.Dict({name: nnx.Param(value) for name, value in parameters.items()})
        self.buffers = nnx.Dict({name: Buffer(value) for name, value in buffers.items()})
        self.program = program
        self.transpose_input = transpose_input
        self.transpose_output = transpose_output
        self.affine = affine
        self.errors = errors

    def __call__(self, *inputs: Shaped[Array, "..."]) -> Any:
        """What the torch module returns for `inputs`.

        **Arguments:**

        - `inputs`: as many arrays as the torch module takes, a batch of any size along the first axis; pictures as
            `image y x channel` (unless `transpose_input` is False), of the size that the network was imported for
            unless it is affine.

        **Returns:**

        The module's output, nested as torch nests it; pictures as `image y x channel` (unless `transpose_output` is
        False).
        """
        program = self.program
        if len(inputs) != len(program.inputs):
            raise ValueError(f"the network takes {len(program.inputs)} inputs and was given {len(inputs)}")
        weights = {**self.parameters, **self.buffers}
        values = {node: weights[name][...] for node, name in program.weights}
        # Parameters come first; a lone number among the constants has no say, as in torch's promotion
        kinds = (weight[...].dtype for weight in weights.values() if weight[...].ndim)
        dtype = next((kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)), None)
        for node, shape, value in zip(program.inputs, program.shapes, inputs, strict=True):
            values[node] = self._taken(node, shape, value, dtype)
        return mapped(self._given, program.run(values))

    def _taken(self, name: str, shape: tuple[int | None, ...], value: Any, dtype: Any) -> Any:
        last = self.transpose_input and len(shape) == 4
        expected = (shape[0], *shape[2:], shape[1]) if last else shape
        if self.affine and value.shape[1:] != expected[1:]:
            value = _averaged_everywhere(value, expected)
        if value.ndim != len(shape) or value.shape[1:] != expected[1:]:
            sizes = ", ".join("batch" if size is None else str(size) for size in expected)
            raise ValueError(
                f"input {name!r} has shape {value.shape} and the network was imported for ({sizes}); resize it, or "
                "import the module again with an example of this size"
            )
        if dtype is not None and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype != dtype:
            raise ValueError(
                f"input {name!r} is {value.dtype} and the network's weights are {dtype}; convert one of them: "
                f"x.astype({str(dtype)!r}), or jax.tree.map(lambda w: w.astype(x.dtype), network)"
            )
        return ChannelsLast(value) if last else value

    def _given(self, value: Any) -> Any:
        is_picture = getattr(value, "ndim", 0) == 4
        return in_last_order(value) if self.transpose_output and is_picture else in_torch_order(value)
