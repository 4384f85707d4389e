"""What does the way between torch and JAX cost: copies, concept maps, pulling, threads, memory?

Run: `python benchmarks/bridges.py` (all parts), or with the names of parts: transfers maps gradients pull threads
memory.
Needs `pip install '.[demo]'`; EfficientNet-Lite0 with its own weights, images of noise, medians of several runs.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jax
import jax.numpy as jnp
import numpy as np
import torch
from face_jax.bridges.arrays import to_jax, to_torch

from face_jax import bridges
from face_jax.support.freed_memory import freed_memory_kept

CONCEPTS = 25
LAYER = "_swish_1"


def median_time(function, runs: int = 7) -> float:
    """Seconds, the first run (which compiles) left out."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def times_as_long(function, reference, runs: int = 9) -> float:
    """The median ratio of two functions' times, taken in turns so that other work on the machine hits both."""
    function()
    reference()
    ratios = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        middle = time.perf_counter()
        reference()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(ratios)


def row(question: str, value: str, goal: str = "") -> None:
    print(f"{question:<74} {value:>16}  {goal}", flush=True)


def noise(count: int, dtype=np.float32) -> np.ndarray:
    """Blurred noise, so that the network's first layers see something like surfaces and edges."""
    coarse = np.random.default_rng(0).standard_normal((count, 3, 14, 14))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=224, mode="bicubic")
    return np.ascontiguousarray(smooth.movedim(1, -1).numpy().clip(-1, 1), dtype=dtype)


def concepts_of(split) -> np.ndarray:
    """A dictionary with the size and sparsity of a real one: activations at places of other images."""
    maps = np.asarray(split.features(noise(8).astype(np.float32)))
    rows = maps.reshape(-1, maps.shape[-1])
    chosen = rows[np.random.default_rng(1).choice(len(rows), CONCEPTS, replace=False)]
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def transfers() -> None:
    """Each way, 64 × 7 × 7 × 1280 in float32 (16 MB): the same address, or a copy, and the time."""
    nchw = torch.rand(64, 1280, 7, 7)
    last = nchw.contiguous(memory_format=torch.channels_last).movedim(1, -1)
    array = to_jax(last)
    same = array.unsafe_buffer_pointer() == last.data_ptr()
    seconds = median_time(lambda: to_jax(last), 50)
    row("torch, channels side by side, to JAX", f"{seconds * 1e6:.0f} µs", f"same address: {same}")
    other = array + 1
    tensor = to_torch(other, device=torch.device("cpu"))
    same = tensor.data_ptr() == other.unsafe_buffer_pointer()
    seconds = median_time(lambda: to_torch(other, device=torch.device("cpu")), 50)
    row("JAX to torch", f"{seconds * 1e6:.0f} µs", f"same address: {same}")
    seconds = median_time(lambda: to_jax(nchw.movedim(1, -1)))
    row("torch, planes apart, to JAX", f"{seconds * 1e3:.1f} ms", "copied: JAX would compile anew for the odd order")
    split = bridges.load("efficientnet_lite0").split(LAYER)
    images = jnp.asarray(noise(8))
    with torch.no_grad():
        result = split.features.module(to_torch(images, device=torch.device("cpu")).movedim(-1, 1))
    row("activations of real forward passes come side by side", str(result.movedim(1, -1).is_contiguous()), "True")


def maps() -> None:
    """Gradient maps of 25 concepts for one image, against the network's own passes."""
    split = bridges.load("efficientnet_lite0").split(LAYER)
    dictionary, images = concepts_of(split), noise(1)
    module = split.features.module

    def network_alone() -> None:
        pixels = torch.from_numpy(images).movedim(-1, 1).requires_grad_()
        activations = module(pixels)
        cotangent = torch.ones_like(activations)
        for _ in range(CONCEPTS):
            torch.autograd.grad(activations, pixels, cotangent, retain_graph=True)

    alone = median_time(network_alone)
    row(f"one forward and {CONCEPTS} backward passes of the network alone", f"{alone * 1e3:.0f} ms")
    for pooled in (True, False):

        def ours(pooled: bool = pooled) -> None:
            bridges.concept_gradients(split, dictionary, images, pooled=pooled).block_until_ready()

        ratio = times_as_long(ours, network_alone)
        what = "averages" if pooled else "places"
        row(f"gradient maps of {CONCEPTS} concepts, codes of {what}", f"{ratio:.2f} times", "≤ 1.30 times")


def gradients() -> None:
    """∂U_k/∂X through the real network in float64 against central differences along a random direction."""
    with jax.enable_x64(True):
        loaded = bridges.load("efficientnet_lite0")
        dictionary = concepts_of(loaded.split(LAYER)).astype(np.float64)
        loaded.model.double()
        split = loaded.split(LAYER)
        images = noise(1, np.float64)
        exact = np.asarray(bridges.concept_gradients(split, dictionary, images))
        module = bridges.ConceptModule(split, dictionary, pooled=True)
        direction = np.random.default_rng(2).standard_normal(images.shape)
        # Some millions of ReLU6 lie between: every one that switches within the step adds an error. Measured, largest
        # relative error: 3e-2, 3e-3, 9e-4, 3e-4, 3e-7 for steps of 1e-5, 1e-6, 1e-7, 1e-8, 1e-9.
        step = 1e-9

        def codes(sign: int) -> np.ndarray:
            with torch.no_grad():
                return module(torch.from_numpy(images + sign * step * direction).movedim(-1, 1))[0].numpy()

        difference = (codes(1) - codes(-1)) / (2 * step)
        given = (exact[:, 0] * direction[0]).sum((1, 2, 3))
        active = np.abs(given) > 0
        worst = np.max(np.abs(given - difference)[active]) / np.max(np.abs(given))
        row(f"∂U_k/∂X against central differences, {active.sum()} concepts that occur", f"{worst:.1e}", "≤ 1e-6")


def pull() -> None:
    """Activations of 96 images, against the network's own forward passes."""
    split = bridges.load("efficientnet_lite0").split(LAYER)
    images = noise(96)
    module = split.features.module
    tensor = torch.from_numpy(images).movedim(-1, 1)

    def network(batches) -> None:
        with torch.no_grad():
            for batch in batches:
                module(batch)

    planes = median_time(lambda: network([b.contiguous() for b in tensor.split(32)]), 3)
    alone = median_time(lambda: network(tensor.split(32)), 3)
    row("torch alone, planes apart (torch's default order)", f"{96 / planes:.0f} images/s")
    row("torch alone, channels side by side", f"{96 / alone:.0f} images/s")
    named = [(str(i), image) for i, image in enumerate(images)]

    def side_by_side() -> None:
        network(tensor.split(32))

    feature = times_as_long(
        lambda: [split.features(images[i : i + 32]).block_until_ready() for i in (0, 32, 64)], side_by_side, 5
    )
    row("split.features, against torch alone", f"{feature:.2f} times")

    def pulled() -> None:
        bridges.pull(split, named)

    row("pull into memory, against torch alone", f"{times_as_long(pulled, side_by_side, 5):.2f} times")
    with freed_memory_kept():
        row("the same, memory kept for both", f"{times_as_long(pulled, side_by_side, 5):.2f} times")


def _threads_here(count: int) -> None:
    """One setting, in a process of its own, because torch reads it when it is imported."""
    torch.set_num_threads(count)
    split = bridges.load("efficientnet_lite0").split(LAYER)
    module = bridges.ConceptModule(split, concepts_of(split), pooled=True)
    one, many = (torch.from_numpy(noise(n)).movedim(-1, 1) for n in (1, 16))
    matrix = jnp.asarray(np.random.default_rng(0).random((20000, 512), np.float32))
    product = jax.jit(lambda a: sum(jnp.sum(a.T @ (a * k)) for k in range(4)))

    def of_torch(images=many, network=split.features.module) -> None:
        with torch.no_grad():
            network(images)

    def of_jax() -> None:
        product(matrix).block_until_ready()

    def together() -> None:
        other = threading.Thread(target=of_jax)
        other.start()
        of_torch()
        other.join()

    times = [median_time(of_torch), median_time(of_jax), median_time(lambda: (of_torch(), of_jax()))]
    times += [median_time(together), median_time(lambda: of_torch(one, module), 30)]
    print(*times)


def threads() -> None:
    """torch and JAX in turns and at once, by torch's threads and by how idle threads wait."""
    print(f"{'milliseconds':<44} {'torch':>8} {'JAX':>8} {'in turns':>9} {'at once':>8} {'codes of one image':>20}")
    for policy, count in (("passive", 2), ("passive", 1), ("", 2), ("", 1), ("active", 2)):
        command = [sys.executable, os.path.abspath(__file__), f"--threads={count}"]
        environment = os.environ | {"OMP_WAIT_POLICY": policy}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        values = [float(word) * 1e3 for word in done.stdout.split()]
        name = f"OMP_WAIT_POLICY={policy or '(not set)'}, {count} torch threads"
        print(f"{name:<44} {values[0]:8.0f} {values[1]:8.0f} {values[2]:9.0f} {values[3]:8.0f} {values[4]:20.1f}")


def _memory_here(kept: bool) -> None:
    """One setting, in a process of its own, because the peak is the process'."""
    split = bridges.load("efficientnet_lite0").split(LAYER)
    images = torch.from_numpy(noise(64)).movedim(-1, 1)
    with torch.no_grad(), freed_memory_kept() if kept else contextlib.nullcontext():
        split.features.module(images)
        before = resource.getrusage(resource.RUSAGE_SELF)
        seconds = median_time(lambda: split.features.module(images), 9)
        after = resource.getrusage(resource.RUSAGE_SELF)
    # The median's function runs once more to warm up.
    print(len(images) / seconds, (after.ru_minflt - before.ru_minflt) / 10, after.ru_maxrss / 2**20)


def memory() -> None:
    """Forward passes of 64 pictures, with what they free given back to the system, and kept by the process."""
    print(f"{'forward passes of 64 pictures':<44} {'images/s':>9} {'pages asked for':>16} {'peak, GiB':>10}")
    for name in ("given back (the default)", "kept"):
        command = [sys.executable, os.path.abspath(__file__), f"--memory={name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        speed, faults, peak = map(float, done.stdout.split())
        print(f"what is freed is {name:<27} {speed:9.0f} {faults:16,.0f} {peak:10.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("--memory="):
        _memory_here(sys.argv[1] == "--memory=kept")
        sys.exit()
    if len(sys.argv) == 2 and sys.argv[1].startswith("--threads="):
        _threads_here(int(sys.argv[1].partition("=")[2]))
        sys.exit()
    parts = {
        "transfers": transfers,
        "maps": maps,
        "gradients": gradients,
        "pull": pull,
        "threads": threads,
        "memory": memory,
    }
    unknown = [name for name in sys.argv[1:] if name not in parts]
    if unknown:
        sys.exit(f"unknown parts {unknown}; known: {', '.join(parts)}")
    load = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start")
    print(f"torch {torch.__version__}, jax {jax.__version__}, {bridges.share_processor()}\n")
    for name in sys.argv[1:] or parts:
        parts[name]()
