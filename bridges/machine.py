"""How torch and JAX divide one machine between them.

Nothing here happens on import. `benchmarks/bridges.py` measures what the advice rests on. Both libraries may use all
cores: they work in turns, and fewer threads for torch make torch slower and JAX no faster. What strangles them is
waiting: between two operations torch's threads (libgomp's) spin for some milliseconds by default, on cores that JAX or
anyone else needs. On a busy machine of two cores the codes of one small image then took 37 ms where they take 0.5 ms
with `OMP_WAIT_POLICY=passive`, which costs nothing measurable in long operations.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import sys

import jax

from face_jax.support.arguments import share, whole

# Torch starts as many as it's told, up to what 32 bits hold.
_MOST_THREADS = 4096


@dataclasses.dataclass(frozen=True)
class ProcessorShare:
    """What `share_processor` found and set.

    **Arguments:**

    - `cores`: the cores that this process may use.
    - `torch_threads`: how many threads torch's operations use now.
    - `advice`: what hinders the two and can't be changed while the process runs; empty if nothing does.
    """

    cores: int
    torch_threads: int
    advice: str


def available_cores() -> int:
    """The cores that this process may use: by affinity, and by a container's quota on processor time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = pathlib.Path("/sys/fs/cgroup/cpu.max")
    try:
        limit, period = quota.read_text().split()
        return max(1, min(cores, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError):
        return cores  # no quota, or "max"


def share_processor(*, threads: int | None = None) -> ProcessorShare:
    """Set torch's threads so that torch and JAX don't get in each other's way on the processor.

    Call it once, first thing in a program that uses both: if torch isn't imported yet, it also sets
    `OMP_WAIT_POLICY=passive` in this process' environment (unless that says something already), which torch reads
    only then. JAX sizes its own thread pool when it starts; `PJRT_NPROC` in the environment is its setting.

    **Arguments:**

    - `threads`: threads for torch's operations; as many as `available_cores()` by default.

    **Returns:** what is set now, and advice on what only the environment can change.

    **Example:**

    >>> bridges.share_processor()  # doctest: +SKIP
    """
    if threads is not None:
        threads = whole("threads", threads, "threads", least=1, most=_MOST_THREADS)
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    cores = available_cores()
    torch.set_num_threads(threads or cores)
    advice = ""
    if os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        advice = "torch's idle threads spin on the cores that JAX needs; start with OMP_WAIT_POLICY=passive"
    return ProcessorShare(cores, torch.get_num_threads(), advice)


def share_accelerator(*, jax_fraction: float = 0.5) -> None:
    """Divide each GPU's memory between JAX and torch.

    JAX takes three quarters of a GPU's memory when it first touches it, and torch finds none. Call this before any
    JAX array is made: JAX then takes memory as it needs it and up to its share, torch up to the rest. It sets
    `XLA_PYTHON_CLIENT_PREALLOCATE` and `XLA_PYTHON_CLIENT_MEM_FRACTION` in this process' environment. Without a GPU
    it does nothing else.

    **Arguments:**

    - `jax_fraction`: JAX's share of the memory, between 0 and 1.

    Raises `RuntimeError` if JAX had started before and taken more.

    **Example:**

    >>> bridges.share_accelerator(jax_fraction=0.6)  # doctest: +SKIP
    """
    jax_fraction = share("jax_fraction", jax_fraction, 0.5)
    import torch

    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{jax_fraction:.3f}"
    for number in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(1 - jax_fraction, number)
    try:
        devices = jax.local_devices(backend="cuda")
    except RuntimeError:
        return  # JAX without CUDA keeps off the GPU
    for device in devices:
        limit = (device.memory_stats() or {}).get("bytes_limit", 0)
        total = torch.cuda.mem_get_info(device.local_hardware_id)[1]
        if limit > (jax_fraction + 0.05) * total:
            raise RuntimeError(
                f"JAX had already taken {limit / total:.0%} of {device}; call share_accelerator before anything makes "
                f"a JAX array, or start with XLA_PYTHON_CLIENT_PREALLOCATE=false"
            )
