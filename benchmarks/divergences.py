"""How fast are Kullback–Leibler and Itakura–Saito factorizations, and those with missing values, beside peers?

    python benchmarks/divergences.py [--quick] [--only kl,is,missing]

Each peer runs to its own stop; ours is timed to the peer's final objective, from its own start (which is part of the
time) and from the peer's first factors. Real activations need the photographs kept beside the checkout (../shared/data)
and the `demo` extra; torchnmf is used where it can be imported (pip install --no-deps torchnmf). Where JAX and torch
both see a GPU, torch's peers run there, too, after a first run that isn't timed; scikit-learn's stay on the processor.
Writes benchmarks/results/divergences.json. The last answers are in README.md, section "Divergences".
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from accelerator import timed
from sklearn.decomposition import NMF
from sklearn.decomposition._nmf import _initialize_nmf

import face_jax as fj

OUT = pathlib.Path(__file__).resolve().parent / "results" / "divergences.json"
STEPS = 200  # a peer's, at most, as scikit-learn's default
Factors = tuple[np.ndarray, np.ndarray]
DEVICE = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"


def counts(rows: int, channels: int, rank: int) -> np.ndarray:
    """Poisson counts of a planted product."""
    drawn = np.random.default_rng(0)
    return drawn.poisson(drawn.gamma(0.5, 1, (rows, rank)) @ drawn.gamma(0.5, 2, (rank, channels))).astype(np.float32)


def powers(rows: int, channels: int, rank: int) -> np.ndarray:
    """A planted product times exponential noise, as power spectra have."""
    drawn = np.random.default_rng(1)
    exact = drawn.gamma(0.5, 1, (rows, rank)) @ drawn.gamma(0.5, 1, (rank, channels))
    return (exact * drawn.exponential(1, exact.shape) + 1e-3).astype(np.float32)


def real(quick: bool) -> np.ndarray:
    import factorization

    return factorization.real()[:: 8 if quick else 1]


def value(A: np.ndarray, mask: np.ndarray | None, beta: float, factors: Factors) -> float:
    """The objective in float64, some rows at a time."""
    total = 0.0
    for first in range(0, len(A), 2048):
        part = slice(first, first + 2048)
        objective = fj.BetaDivergence(beta, weights=None if mask is None else jnp.asarray(mask[part], jnp.float32))
        codes, dictionary = (jnp.asarray(x) for x in (factors[0][part], factors[1]))
        total += float(objective.value(jnp.asarray(A[part]), codes, dictionary))
    return total


def scikit_learn(A: np.ndarray, beta: float, start: Factors, mask: Any) -> Factors:
    peer = NMF(len(start[1]), init="custom", solver="mu", beta_loss=beta, max_iter=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = peer.fit_transform(A, W=start[0].copy(), H=start[1].copy())
    return codes, peer.components_


def torch_nmf(A: np.ndarray, beta: float, start: Factors, mask: Any) -> Factors:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchnmf.nmf

        peer = torchnmf.nmf.NMF(W=torch.tensor(start[1].T.copy()), H=torch.tensor(start[0])).to(DEVICE)
        peer.fit(torch.tensor(A, device=DEVICE), beta=beta, max_iter=STEPS)
    return peer.H.detach().cpu().numpy(), peer.W.detach().cpu().numpy().T


def masked_updates(A: np.ndarray, beta: float, start: Factors, mask: np.ndarray) -> Factors:
    """Lee & Seung's updates with a mask, in torch."""
    X, M = (torch.tensor(x, device=DEVICE) for x in (A * mask, mask.astype(np.float32)))
    U, W = (torch.tensor(x, device=DEVICE) for x in start)
    for _ in range(STEPS):
        U *= (X @ W.T) / ((M * (U @ W)) @ W.T).clamp_min(1e-12)
        W *= (U.T @ X) / (U.T @ (M * (U @ W))).clamp_min(1e-12)
    return U.cpu().numpy(), W.cpu().numpy()


def masked_adam(A: np.ndarray, beta: float, start: Factors, mask: np.ndarray) -> Factors:
    """Adam on both factors, clamped at zero, in torch."""
    X, M = (torch.tensor(x, device=DEVICE) for x in (A * mask, mask.astype(np.float32)))
    factors = [torch.tensor(x, device=DEVICE, requires_grad=True) for x in start]
    optimizer = torch.optim.Adam(factors, lr=0.01)
    for _ in range(2 * STEPS):
        optimizer.zero_grad()
        ((M * (X - factors[0] @ factors[1])) ** 2).sum().mul(0.5).backward()
        optimizer.step()
        with torch.no_grad():
            for x in factors:
                x.clamp_(min=0)
    return factors[0].detach().cpu().numpy(), factors[1].detach().cpu().numpy()


def ours(A: Any, mask: Any, beta: float, rank: int, goal: float, start: Any, solver: Any) -> dict[str, Any]:
    """Seconds and steps to an objective."""
    given, most = jnp.asarray(A), 100

    def run(steps: int) -> fj.Solution:
        return fj.factorize(
            given, rank, objective=fj.BetaDivergence(beta), start=start, observed=mask,
            solver=dataclasses.replace(solver, max_steps=steps, rtol=0.0),
        )  # fmt: skip

    history = np.asarray(run(most).stats.objective)
    steps = int(np.argmax(history <= goal * (1 + 1e-6)))
    if history[steps] > goal * (1 + 1e-6):
        return {"seconds": None, "steps": None, "above": float(history[-1] / goal - 1)}
    found, seconds = timed(lambda: run(max(1, steps)))
    reached = value(A, mask, beta, (np.asarray(found.codes), np.asarray(found.dictionary)))
    return {"seconds": seconds, "steps": steps, "above": reached / goal - 1}


def compare(name: str, A: np.ndarray, mask: Any, beta: float, rank: int, peers: dict[str, Any]) -> list[dict[str, Any]]:
    visible = A if mask is None else np.where(mask, A, 0)
    start = tuple(np.ascontiguousarray(x, A.dtype) for x in _initialize_nmf(visible, rank, "nndsvda", random_state=0))
    answers = []
    for peer, run in peers.items():
        if DEVICE != "cpu" and run is not scikit_learn:
            run(A, beta, start, mask)
        begin = time.perf_counter()
        theirs = run(A, beta, start, mask)
        seconds = time.perf_counter() - begin
        goal = value(A, mask, beta, theirs)
        answer = {"activations": name, "rank": rank, "beta": beta, "peer": peer, "peer_seconds": seconds, "goal": goal}
        solvers = {"ADMM": fj.ADMM(), "MultiplicativeUpdate": fj.MultiplicativeUpdate(extrapolate=True)}
        for solver, settings in solvers.items():
            answer[solver] = ours(A, mask, beta, rank, goal, fj.Warmup(), settings)
        answer["ADMM, peer's start"] = ours(A, mask, beta, rank, goal, fj.Given(*map(jnp.asarray, start)), fj.ADMM())
        answers.append(answer)
        cells = [f"{seconds:.2f}"]
        for way in (*solvers, "ADMM, peer's start"):
            found = answer[way]
            if found["seconds"] is None:
                cells += [f"not reached: {found['above']:.1e} above", "–"]
            else:
                times = seconds / found["seconds"]
                cells += [f"{found['seconds']:.3f} ({found['steps']})", f"{times:.1f}"]
        print(f"| {name}, {rank} | {peer} | " + " | ".join(cells) + " |", flush=True)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the rows")
    parser.add_argument("--only", default="kl,is,missing")
    chosen = parser.parse_args()
    wanted, share = set(chosen.only.split(",")), 8 if chosen.quick else 1
    libraries: dict[str, Any] = {"scikit-learn `mu`": scikit_learn}
    if importlib.util.find_spec("torchnmf"):
        libraries["torchnmf"] = torch_nmf
    print("| activations, rank | peer | its s | ADMM, s (steps) | times | MU, s | times | from its start | times |")
    print("|---|---|---|---|---|---|---|---|---|")
    answers: list[dict[str, Any]] = []
    if "kl" in wanted:
        answers += compare("counts", counts(8000 // share, 500, 10), None, 1.0, 10, libraries)
        try:
            answers += compare("real", real(chosen.quick), None, 1.0, 25, libraries)
        except (FileNotFoundError, ImportError) as why:
            print(f"real: {why}")
    if "is" in wanted:
        answers += compare("powers", powers(4000 // share, 500, 10), None, 0.0, 10, libraries)
    if "missing" in wanted:
        A = counts(8000 // share, 500, 10)
        mask = np.random.default_rng(2).uniform(size=A.shape) < 0.7
        peers = {"torch, masked updates": masked_updates, "torch, Adam": masked_adam}
        answers += compare("counts, 30 % missing", A, mask, 2.0, 10, peers)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(answers, indent=1))


if __name__ == "__main__":
    main()
