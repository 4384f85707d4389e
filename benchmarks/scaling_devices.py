"""Do many devices, or processes, find what one finds, and what do they send to each other in a step?

    python benchmarks/scaling_devices.py [devices] [processes] [--rows 16384] [--picture FILE]

`devices`: 1, 2, 4 and 8 devices, forced on this machine's processor, whose cores they share: it's about results and
bytes, not about speed. `processes`: examples/many_hosts.py as 1, 2 and 4 processes over the loopback, each with its own
files. Bytes are those of the operations between devices in the compiled programs. The last answers are in README.md,
section "scaling: devices".
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHANNELS, RANK = 64, 8
COUNTS, ROWS_OF_PICTURE = (1, 2, 4, 8), (2**12, 2**14, 2**16, 2**18)


def planted(rows: int, dtype: str) -> np.ndarray:
    """Sparse non-negative factors and noise, cut at zero."""
    rng = np.random.default_rng(0)
    A = rng.gamma(0.3, 1, (rows, RANK)) @ rng.gamma(0.3, 1, (RANK, CHANNELS))
    return np.maximum(A + 0.3 * A.mean() * rng.standard_normal(A.shape), 0).astype(dtype)


def worker(count: int, rows: int, dtype: str, measure: list[int], file: pathlib.Path) -> None:
    """In a process that has so many devices: a fit, and the bytes of a step and of encoding."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    sys.path.insert(0, str(ROOT / "tests"))
    from collectives import collectives

    import face_jax as fj
    from face_jax.nmf.solvers import loop
    from face_jax.nmf.solvers.problem import Problem

    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("row",))
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("row"))
    A = jax.device_put(planted(rows, dtype), by_rows)
    solver = fj.ADMM(rtol=1e-4 if dtype == "float32" else 1e-8)
    fit = jax.jit(lambda a: fj.factorize(a, RANK, solver=solver)).lower(A).compile()
    found = jax.block_until_ready(fit(A))
    begin = time.perf_counter()
    jax.block_until_ready(fit(A))
    seconds = time.perf_counter() - begin

    def state_of(a: Any) -> Any:
        problem = Problem(a, fj.SquaredError(), fj.ADMM(), None, jnp.sum(a**2))
        return loop._first(problem, jnp.ones((RANK, len(a)), a.dtype), jnp.ones((RANK, CHANNELS), a.dtype))

    def step(a: Any, size: Any, state: Any) -> Any:
        return loop._step(Problem(a, fj.SquaredError(), fj.ADMM(), None, size), state)

    sent = {}
    for number in measure:
        a = jax.device_put(np.ones((number, CHANNELS), dtype), by_rows)
        state = jax.jit(state_of)(a)
        messages = collectives(jax.jit(step).lower(a, jnp.ones((), dtype), state).compile().as_text())
        sent[number] = sum(size for _, size in messages)
    encode = jax.jit(lambda a, w: fj.encode(a, w)).lower(A, found.dictionary).compile()
    np.savez(
        file, dictionary=found.dictionary, objective=found.stats.final_objective, seconds=seconds,
        sent=json.dumps(sent), kinds=json.dumps(sorted({kind for kind, _ in collectives(fit.as_text())})),
        encoding=sum(size for _, size in collectives(encode.as_text())), steps=found.stats.steps,
    )  # fmt: skip


def devices(rows: int, picture: pathlib.Path | None) -> None:
    print(f"{rows}×{CHANNELS}, rank {RANK}; differences from one device's\n")
    print("| dtype | devices | objective, relative | dictionary | bytes a step | encoding | operations | s |")
    print("|---|---|---|---|---|---|---|---|")
    lines: dict[int, dict[int, int]] = {}
    for dtype in ("float32", "float64"):
        first = None
        for count in COUNTS:
            measure = list(ROWS_OF_PICTURE) if picture is not None and dtype == "float32" else [rows]
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "found.npz"
                flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
                command = [sys.executable, __file__, "worker", str(count), str(rows), dtype, json.dumps(measure), file]
                subprocess.run(command, check=True, env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
                found = dict(np.load(file))
            first = first or found
            sent = {int(number): size for number, size in json.loads(str(found["sent"])).items()}
            if picture is not None and dtype == "float32":
                lines[count] = sent
            print(
                f"| {dtype} | {count} | {abs(found['objective'] / first['objective'] - 1):.1e} "
                f"| {np.abs(found['dictionary'] - first['dictionary']).max():.1e} | {sent[min(sent)]:,} "
                f"| {int(found['encoding'])} | {', '.join(json.loads(str(found['kinds']))) or 'none'} "
                f"| {float(found['seconds']):.2f} |",
                flush=True,
            )
    if picture is not None:
        draw(lines, picture)


def draw(lines: dict[int, dict[int, int]], file: pathlib.Path) -> None:
    """Bytes that a device sends in a step, by rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 3.6), layout="constrained")
    for count, sent in lines.items():
        if count > 1:
            axes.loglog(list(sent), list(sent.values()), marker="o", label=f"{count} devices")
    rows = np.asarray(ROWS_OF_PICTURE)
    axes.loglog(rows, 4 * rows * CHANNELS, "k:", label="the activations")
    axes.axhline(2 * 4 * (RANK**2 + RANK * CHANNELS), color="0.6", label="2 (r² + r p) numbers")
    axes.set(xlabel="rows", ylabel="bytes a device sends in a step")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def processes(rows: int) -> None:
    print(f"\n{rows}×{CHANNELS}, rank {RANK}, 4 files; differences from one process's\n")
    print("| dtype | processes | objective, relative | dictionary | codes | s |")
    print("|---|---|---|---|---|---|")
    for dtype in ("float32", "float64"):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            files = [folder / f"part-{number}.npy" for number in range(4)]
            for file, part in zip(files, np.split(planted(rows, dtype), 4), strict=True):
                np.save(file, part)
            first = None
            for count in (1, 2, 4):
                begin = time.perf_counter()
                found = started(files, folder / str(count), count, dtype)
                seconds, first = time.perf_counter() - begin, first or found
                value, dictionary, codes = (np.abs(a - b).max() for a, b in zip(found, first, strict=True))
                value, codes = value / first[0], codes / np.abs(first[2]).max()
                print(
                    f"| {dtype} | {count} | {value:.1e} | {dictionary:.1e} | {codes:.1e} | {seconds:.0f} |", flush=True
                )


def started(files: list[pathlib.Path], out: pathlib.Path, count: int, dtype: str) -> tuple[float, Any, Any]:
    """What so many processes find: objective, dictionary, codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_ENABLE_X64": str(int(dtype == "float64")),
    }  # fmt: skip
    rtol = "1e-4" if dtype == "float32" else "1e-8"
    running = []
    for number in range(count):
        where = ["--coordinator", place, "--processes", str(count), "--process", str(number)]
        command = [
            sys.executable, str(ROOT / "examples" / "many_hosts.py"), *map(str, files), "--rank", str(RANK),
            "--out", str(out), "--rtol", rtol, *(where if count > 1 else ["--alone"]),
        ]  # fmt: skip
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running), said
    objective = float(said[0].partition("objective ")[2].split()[0])
    codes = np.concatenate([np.load(out / f"codes-of-{file.stem}.npy") for file in files])
    return objective, np.load(out / "dictionary.npy"), codes


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        count, rows, dtype, measure, file = sys.argv[2:]
        worker(int(count), int(rows), dtype, json.loads(measure), pathlib.Path(file))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["devices", "processes"])
    parser.add_argument("--rows", type=int, default=2**14, help="a multiple of 32")
    parser.add_argument("--picture", type=pathlib.Path)
    options = parser.parse_args()
    if "devices" in options.parts:
        devices(options.rows, options.picture)
    if "processes" in options.parts:
        processes(options.rows)


if __name__ == "__main__":
    main()
