"""torch modules as this package's layers, told by their class's name: nothing here imports torch.

Only what torchvision's families need; `face_jax.bridges.to_flax` imports any other module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from . import layers


def tensor(value: Any) -> Array:
    """A torch tensor's numbers as a JAX array of its own memory."""
    value = value.detach().cpu()
    if str(value.dtype) == "torch.bfloat16":  # which NumPy lacks; float32 has all of its numbers
        return jax.device_put(value.float().numpy().astype(jnp.bfloat16))
    # Not by `jnp.array`, which compiles a program for each shape.
    return jax.device_put(value.numpy().copy())


def _optional(value: Any) -> Array | None:
    return None if value is None else tensor(value)


def converted(module: Any) -> layers.Layer:
    """The layer that computes what a torch module does in eval mode.

    **Arguments:**

    - `module`: a `torch.nn.Module`.

    **Returns:** the layer, with copies of the weights. Raises `ValueError` for modules that aren't known.
    """
    name = type(module).__name__
    if name in _CONVERTERS:
        return _CONVERTERS[name](module)
    if name == "GELU" and module.approximate != "none":
        raise ValueError(f"a GELU has approximate={module.approximate!r}; import it with face_jax.bridges.to_flax")
    if hasattr(module, "inplace") or name in ("Sigmoid", "GELU"):
        return layers.Activation(name)
    raise ValueError(
        f"{name} is none of the modules that heads are made of here ({', '.join(sorted(_CONVERTERS))}); import it with "
        "face_jax.bridges.to_flax"
    )


def chain(modules: Any) -> layers.Chain:
    """Modules one after the other, chains within chains too; what does nothing in eval mode is left out."""
    found: list[layers.Layer] = []
    for one in map(converted, modules):
        found.extend(one.layers if isinstance(one, layers.Chain) else [one])
    return layers.Chain(found)


def of_vectors(classifier: Any) -> layers.Chain:
    """What follows the pooling: a `Linear` or a `Sequential`, on the flattened grid."""
    return layers.Chain([layers.Flatten(), *chain([classifier]).layers])


def _nothing(module: Any) -> layers.Chain:
    del module
    return layers.Chain([])


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def dense(module: Any) -> layers.Dense:
    """A `Linear`."""
    return layers.Dense(tensor(module.weight).T, _optional(module.bias))


def _convolution(module: Any) -> layers.Convolution:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise ValueError(
            f"a convolution has padding={module.padding!r} and padding_mode={module.padding_mode!r}; only numbers of "
            "zeros are known here, import it with face_jax.bridges.to_flax"
        )
    return layers.Convolution(
        tensor(module.weight).transpose(2, 3, 1, 0),
        _optional(module.bias),
        stride=_pair(module.stride),
        padding=_pair(module.padding),
        dilation=_pair(module.dilation),
        groups=int(module.groups),
    )


def _batch_norm(module: Any) -> layers.BatchNormalization:
    parts = (module.running_mean, module.running_var, module.weight, module.bias)
    if any(part is None for part in parts):
        raise ValueError("a batch norm has no running statistics or no weights; train it with both, they are used here")
    return layers.BatchNormalization(*map(tensor, parts), epsilon=float(module.eps))


def layer_norm(module: Any) -> layers.LayerNormalization:
    """A `LayerNorm` over the channels."""
    return layers.LayerNormalization(tensor(module.weight), tensor(module.bias), float(module.eps))


def _max_pool(module: Any) -> layers.MaxPool:
    if module.ceil_mode or _pair(module.dilation) != (1, 1):
        raise ValueError("a max pool has ceil_mode or dilation; import it with face_jax.bridges.to_flax")
    window = _pair(module.kernel_size)
    return layers.MaxPool(window, _pair(module.stride or window), _pair(module.padding))


def _residual_block(module: Any) -> layers.Residual:
    """ResNet's `BasicBlock` and `Bottleneck`."""
    body: list[Any] = [module.conv1, module.bn1, module.relu, module.conv2, module.bn2]
    if hasattr(module, "conv3"):
        body += [module.relu, module.conv3, module.bn3]
    shortcut = None if module.downsample is None else converted(module.downsample)
    return layers.Residual(chain(body), shortcut, layers.Activation("ReLU"))


def _inverted_residual(module: Any) -> layers.Layer:
    """MobileNetV2's and V3's `InvertedResidual`, EfficientNet's `MBConv` and `FusedMBConv`."""
    body = converted(module.conv if hasattr(module, "conv") else module.block)
    return layers.Residual(body) if module.use_res_connect else body


def _squeeze_excitation(module: Any) -> layers.Gate:
    return layers.Gate(chain([module.fc1, module.activation, module.fc2, module.scale_activation]))


def _convnext_block(module: Any) -> layers.Residual:
    # Its two permutations bring channels last, where they are here already.
    body = chain([one for one in module.block if type(one).__name__ != "Permute"])
    return layers.Residual(layers.Chain([body, layers.Scaling(tensor(module.layer_scale).reshape(-1))]))


def _attention(module: Any) -> layers.Attention:
    inward = layers.Dense(tensor(module.in_proj_weight).T, _optional(module.in_proj_bias))
    return layers.Attention(inward, converted(module.out_proj), int(module.num_heads))


def _encoder_block(module: Any) -> layers.Chain:
    attention = layers.Residual(chain([module.ln_1, module.self_attention]))
    return layers.Chain([attention, layers.Residual(chain([module.ln_2, module.mlp]))])


def _adaptive_pool(module: Any) -> layers.Pooling:
    size = module.output_size
    if size is None or (isinstance(size, tuple) and None in size):
        raise ValueError(f"a pooling has output_size={size}, as large as what it's given; give it numbers")
    return layers.Pooling(_pair(size))


_CONVERTERS: dict[str, Callable[[Any], layers.Layer]] = {
    "AdaptiveAvgPool2d": _adaptive_pool,
    "BasicBlock": _residual_block,
    "BatchNorm2d": _batch_norm,
    "Bottleneck": _residual_block,
    "CNBlock": _convnext_block,
    "Conv2d": _convolution,
    "Conv2dNormActivation": chain,
    "Dropout": _nothing,
    "EncoderBlock": _encoder_block,
    "Flatten": lambda module: layers.Flatten(),
    "FusedMBConv": _inverted_residual,
    "Identity": _nothing,
    "InvertedResidual": _inverted_residual,
    "LayerNorm": layer_norm,
    "LayerNorm2d": layer_norm,
    "Linear": dense,
    "MBConv": _inverted_residual,
    "MLPBlock": chain,
    "MaxPool2d": _max_pool,
    "MultiheadAttention": _attention,
    "NonDynamicallyQuantizableLinear": dense,
    "Sequential": chain,
    "SqueezeExcitation": _squeeze_excitation,
    "StochasticDepth": _nothing,
}

# Other families have attributes of the same names, and mean something else by them.
_FAMILIES = {
    "ConvNeXt": "face_jax.heads.convnext",
    "DenseNet": "face_jax.heads.densenet",
    "EfficientNet": "face_jax.heads.efficientnet",
    "MobileNetV2": "face_jax.heads.mobilenet_v2",
    "MobileNetV3": "face_jax.heads.mobilenet_v3",
    "ResNet": "face_jax.heads.resnet",
    "SqueezeNet": "face_jax.bridges.split",
    "VGG": "face_jax.heads.vgg",
    "VisionTransformer": "face_jax.heads.vit",
}


def require(module: Any, attributes: tuple[str, ...], family: str) -> None:
    """Raise `ValueError` unless a module has what its family has, or if it's known to be of another one."""
    missing = [name for name in attributes if not hasattr(module, name)]
    if missing:
        raise ValueError(
            f"module is a {type(module).__name__} without {', '.join(missing)}, which torchvision's {family}s have; "
            "use the function of its own family, or face_jax.bridges.split"
        )
    known = [one.__name__ for one in type(module).__mro__ if one.__name__ in _FAMILIES]
    if known and family not in known:
        raise ValueError(f"module is a {known[0]} and no {family}; use {_FAMILIES[known[0]]}")


def as_maps(activations: Array) -> Array:
    """Maps as they are; rows as maps of one place."""
    return activations[:, None, None, :] if activations.ndim == 2 else activations
