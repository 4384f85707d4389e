"""How fast are fit, encoding, a faithful fit, a derivative and a whole explanation on a GPU or TPU, beside peers?

    python benchmarks/accelerator.py [--minutes 8] [--only agree,fit,encode] [--processor]

First: how far answers are from the processor's in float32, in float32 with operands of products rounded as the device
likes best, and in float64. Then times of fit, encode, many, faithful, derivative and explain, and beside them
scikit-learn on the processor, torchnmf on the same GPU where it and torch's CUDA can be imported, and FACE's algorithm
(Adam on both factors) on the same device. Each line is printed as soon as it's known; what doesn't fit into the
minutes is left out by name. Without an accelerator it says so and ends well; `--processor` tries all of it, small, on
the processor, which tests the script and nothing else. Writes benchmarks/results/accelerator.json. The last answers
are in README.md, section "accelerator".
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import face_jax as fj
from face_jax.heads import Affine

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "accelerator.json"
RANK, CLASSES = 25, 1000
ROWS: list[dict[str, Any]] = []


def planted(rows: int, channels: int, rank: int = RANK, seed: int = 0) -> np.ndarray:
    """Sparse non-negative factors, normal noise as large as the mean, cut at zero."""
    rng = np.random.default_rng(seed)
    A = rng.gamma(0.3, 1, (rows, rank)).astype(np.float32) @ rng.gamma(0.3, 1, (rank, channels)).astype(np.float32)
    return np.maximum(A + A.mean() * (rng.standard_normal(A.shape, dtype=np.float32) - 0.2), 0)


def timed(function: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    """The answer and the median time of a call, the first one, which compiles, left out."""
    answer = jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        answer = jax.block_until_ready(function())
        times.append(time.perf_counter() - begin)
    return answer, float(np.median(times))


def told(work: str, who: str, seconds: float, remark: str = "") -> None:
    ROWS.append({"work": work, "who": who, "seconds": seconds, "remark": remark})
    print(f"| {work} | {who} | {seconds:.4g} | {remark} |", flush=True)


def error(A: np.ndarray, codes: Any, dictionary: Any) -> float:
    return float(((A.astype(np.float64) - np.asarray(codes, np.float64) @ np.asarray(dictionary)) ** 2).sum() / 2)


def agree(small: bool) -> None:
    """The largest distance between the device's answers and the processor's, relative to the largest number."""
    rows, channels = (300, 64) if small else (4000, 512)
    processor, device = jax.devices("cpu")[0], jax.devices()[0]
    A, dictionary = planted(rows, channels, 10), planted(10, channels, 10, seed=1)
    kernel = 0.05 * np.random.default_rng(2).standard_normal((channels, 50)).astype(np.float32)
    # Few steps from one start: later ones would tell local minima apart, and not arithmetic.
    settings: dict[str, Any] = {"start": fj.Given(A[:, :10] + 0.1, dictionary), "key": 0}

    def faithful(A: Any, dictionary: Any) -> Any:
        head = Affine(jnp.asarray(kernel, A.dtype), jnp.zeros(50, A.dtype))
        return fj.encode(A, dictionary, objective=fj.SquaredError() + 10.0 * fj.Faithfulness(head))

    programs: dict[str, Callable[[Any, Any], Any]] = {
        f"{type(solver).__name__}, dictionary after 5 steps": lambda A, dictionary, solver=solver: (
            fj.factorize(A, 10, solver=solver, **settings).dictionary
        )
        for solver in (fj.ADMM(max_steps=5), fj.HALS(max_steps=5), fj.SemiNMF(max_steps=5))
    }
    programs["encode"] = fj.encode
    programs["encode, faithful"] = faithful
    programs["gradient of encode's codes"] = jax.grad(lambda A, D: jnp.sum(jnp.sin(fj.encode(A, D))), argnums=1)
    programs["gradient of factorize's codes"] = jax.grad(
        lambda A, D: jnp.sum(jnp.sin(fj.factorize(A, 10, adjoint=fj.ImplicitAdjoint(throw=False), **settings).codes))
    )
    for name, program in programs.items():
        expected = np.asarray(_at(program, A, dictionary, np.float64, processor))
        said = []
        for label, dtype, precision in (
            ("float32", np.float32, None), ("float32 rounded", np.float32, "default"), ("float64", np.float64, None)
        ):  # fmt: skip
            with jax.default_matmul_precision(precision):
                found = np.asarray(_at(program, A, dictionary, dtype, device))
            said.append(f"{label} {np.max(np.abs(found - expected)) / np.max(np.abs(expected)):.1e}")
        with jax.default_matmul_precision(None):
            on_processor = np.asarray(_at(program, A, dictionary, np.float32, processor))
        said.append(f"processor's float32 {np.max(np.abs(on_processor - expected)) / np.max(np.abs(expected)):.1e}")
        print(f"| {name} | from float64 on the processor | | {', '.join(said)} |", flush=True)
        ROWS.append({"work": name, "who": "distances", "seconds": None, "remark": ", ".join(said)})


def _at(program: Callable[[Any, Any], Any], A: Any, dictionary: Any, dtype: Any, device: Any) -> Any:
    with jax.enable_x64(dtype == np.float64), jax.default_device(device):
        return program(jnp.asarray(A, dtype), jnp.asarray(dictionary, dtype))


def fit(small: bool) -> None:
    for rows, channels in ((2000, 512),) if small else ((43_512, 512), (14_700, 2048), (400_000, 512)):
        A = planted(rows, channels)
        on_device = jnp.asarray(A)
        found, seconds = timed(lambda: fj.factorize(on_device, RANK))  # noqa: B023
        value = float(found.stats.final_objective)
        told(f"fit {rows}×{channels}", "face_jax", seconds, f"objective {value:.6g}, {int(found.stats.steps)} steps")
        if rows > 100_000:
            continue
        start = fj.NNDSVDa()(on_device, RANK, signed=False, key=jax.random.key(0))
        first = np.array(start[0].T), np.array(start[1])
        from sklearn.decomposition import NMF

        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = NMF(RANK, init="custom", solver="cd", tol=1e-4, max_iter=200)
            codes = model.fit_transform(A, W=first[0].copy(), H=first[1].copy())
        seconds = time.perf_counter() - begin
        told(
            f"fit {rows}×{channels}",
            "scikit-learn, processor",
            seconds,
            f"objective {error(A, codes, model.components_):.6g}",
        )
        torch_nmf(A, *first)


def torch_nmf(A: np.ndarray, codes: np.ndarray, dictionary: np.ndarray) -> None:
    try:
        import torch
        from torchnmf.nmf import NMF
    except ImportError as reason:
        print(f"torchnmf is left out: {reason}")
        return
    if not torch.cuda.is_available():
        print("torchnmf is left out: torch sees no GPU")
        return
    times = []
    for _ in range(2):
        model = NMF(W=torch.from_numpy(dictionary.T.copy()), H=torch.from_numpy(codes.copy())).cuda()
        rows = torch.from_numpy(A).cuda()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        model.fit(rows, beta=2, max_iter=200)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    value = error(A, model.H.detach().cpu().numpy(), model.W.detach().cpu().numpy().T)
    told(f"fit {A.shape[0]}×{A.shape[1]}", "torchnmf, same GPU", times[-1], f"objective {value:.6g}, 200 iterations")


def encode(small: bool) -> None:
    rows, channels = (2000, 512) if small else (14_700, 2048)
    A = planted(rows, channels)
    on_device, dictionary = jnp.asarray(A), jnp.asarray(planted(RANK, channels, seed=1))
    _, seconds = timed(lambda: fj.encode(on_device, dictionary))
    told(f"encode {rows}×{channels}", "face_jax", seconds)
    from sklearn.decomposition import NMF

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NMF(RANK, init="nndsvda", max_iter=1).fit(A[:200])
        model.components_ = np.asarray(dictionary)
        begin = time.perf_counter()
        model.transform(A)
    told(f"encode {rows}×{channels}", "scikit-learn, processor", time.perf_counter() - begin)


def many(small: bool) -> None:
    count = 20 if small else 1000
    rows = np.random.default_rng(0).choice(range(500, 1301, 100), count)
    classes = [planted(int(number), 512, 10, seed) for seed, number in enumerate(rows)]
    _, together = timed(lambda: fj.factorize_many(classes, 10), 1)
    told(f"{count} classes, rank 10", "factorize_many", together)
    _, alone = timed(lambda: [fj.factorize(one, 10) for one in classes], 1)
    told(f"{count} classes, rank 10", "a loop of factorize", alone, f"{alone / together:.1f} times as long")


def faithful(small: bool) -> None:
    images, places, channels = (20, 9, 64) if small else (300, 49, 2048)
    A = jnp.asarray(planted(images * places, channels))
    kernel = 0.05 * np.random.default_rng(2).standard_normal((channels, CLASSES)).astype(np.float32)
    head = Affine(jnp.asarray(kernel), jnp.zeros(CLASSES, jnp.float32), places=places)
    objective = fj.SquaredError() + 10.0 * fj.Faithfulness(head)
    found, seconds = timed(lambda: fj.factorize(A, RANK, objective=objective), 1)
    value = float(found.stats.final_objective)
    told(f"faithful fit {images * places}×{channels}", "face_jax", seconds, f"objective {value:.6g}")
    solver = fj.PaperAdam(max_steps=200 if small else 5000, atol=0.0)
    found, seconds = timed(lambda: fj.factorize(A, RANK, objective=objective, solver=solver, start=fj.NNDSVD()), 1)
    remark = f"objective {float(found.stats.final_objective):.6g} after {solver.max_steps} steps"
    told(f"faithful fit {images * places}×{channels}", "FACE's Adam, same device", seconds, remark)


def derivative(small: bool) -> None:
    rows, channels = (600, 64) if small else (4800, 2048)
    A = jnp.asarray(planted(rows, channels))
    loss = lambda A: jnp.sum(jnp.sin(fj.factorize(A, RANK, adjoint=adjoint).codes))  # noqa: E731
    adjoint = fj.ImplicitAdjoint(throw=False)
    forward, both = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    _, seconds = timed(lambda: forward(A))
    told(f"factorize {rows}×{channels}", "face_jax, forward", seconds)
    _, seconds = timed(lambda: both(A))
    told(f"factorize {rows}×{channels}", "face_jax, value and gradient", seconds)


def explain(small: bool) -> None:
    del small
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "face_jax.cli", "demo", "--out", f"{folder}/report"]
        for which in ("first", "second"):
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"the explanation is left out: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
                return
            told("face-jax demo, a process of its own", f"face_jax, {which} time", time.perf_counter() - begin)


PARTS = {part.__name__: part for part in (agree, fit, encode, many, faithful, derivative, explain)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--processor", action="store_true")
    options = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.processor:
        print("There is no accelerator that JAX sees: nothing is measured.")
        return
    print(f"{device.device_kind}, JAX {jax.__version__}\n\n| work | who | seconds | |\n|---|---|---|---|")
    begin = time.perf_counter()
    for name in options.only.split(","):
        if time.perf_counter() - begin > 60 * options.minutes * 0.75:
            print(f"{name} is left out: the minutes are over")
            continue
        PARTS[name](options.processor and device.platform == "cpu")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"device": device.device_kind, "rows": ROWS}, indent=1))


if __name__ == "__main__":
    main()
