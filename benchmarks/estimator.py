"""The estimators beside scikit-learn's: time to the peer's own final objective at its own stop, in one run.

`python benchmarks/estimator.py [CASE …]`, `--quick` for small matrices. KL and missing values: `divergences.py`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import sklearn.decomposition
from factorization import planted, real

from face_jax.sklearn import NMF, MiniBatchNMF

MOST = 500  # passes
RANK = 20


def documents(samples: int = 11314, words: int = 39000, topics: int = 20, seed: int = 0) -> Any:
    """Weighted word counts (TF-IDF, rows of unit length) of 20 newsgroups' form: 0.4 % of the entries are there."""
    generator = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, words + 1)
    about = frequency * generator.gamma(0.15, size=(topics, words))
    cumulative = np.cumsum(about / about.sum(axis=1, keepdims=True), axis=1)
    lengths = np.maximum(5, generator.lognormal(np.log(170), 0.9, samples)).astype(int)
    shares = generator.dirichlet(np.full(topics, 0.1), samples)
    rows, columns = [], []
    for sample, (length, share) in enumerate(zip(lengths, shares, strict=True)):
        counts = generator.multinomial(length, share)
        for topic in np.flatnonzero(counts):
            drawn = generator.random(counts[topic]) * cumulative[topic, -1]
            columns.append(np.minimum(np.searchsorted(cumulative[topic], drawn), words - 1))
            rows.append(np.full(counts[topic], sample))
    places = np.concatenate(rows), np.concatenate(columns)
    found = scipy.sparse.coo_array((np.ones(len(places[0]), np.float32), places), shape=(samples, words)).tocsr()
    rare = np.log((1 + samples) / (1 + np.bincount(found.indices, minlength=words))) + 1
    found.data = ((1 + np.log(found.data)) * rare[found.indices]).astype(np.float32)
    norms = np.sqrt(np.asarray((found * found).sum(axis=1)).ravel())
    return (scipy.sparse.diags_array((1 / np.maximum(norms, 1e-9)).astype(np.float32)) @ found).tocsr()


def objective(model: Any) -> float:
    """Of a fitted estimator: half the squared error."""
    return float(model.reconstruction_err_) ** 2 / 2


def timed(make: Callable[[], Any], A: Any) -> tuple[Any, float]:
    """A fitted estimator and the seconds that it took."""
    model, begin = make(), time.perf_counter()
    model.fit(A)
    return model, time.perf_counter() - begin


def beside(name: str, A: Any, rank: int) -> str:
    """One row: scikit-learn's coordinate descent, and the first pass behind which its objective is reached."""
    peer, seconds = timed(lambda: sklearn.decomposition.NMF(rank, init="nndsvda", random_state=0), A)
    goal = objective(peer)
    long = NMF(rank, random_state=0, tol=0, max_iter=MOST).fit(A)
    history = np.asarray(long.stats_.objective)[: long.n_iter_ + 1]
    # In another local minimum a little above it, how fast it comes there is what can be told.
    above = next((share for share in (1e-6, 1e-4, 1e-3) if (history <= goal * (1 + share)).any()), np.inf)
    passes = int(np.argmax(history <= goal * (1 + above)))
    make = lambda: NMF(rank, random_state=0, tol=0, max_iter=max(1, passes))  # noqa: E731
    (_, _), (ours, mine) = timed(make, A), timed(make, A)
    (_, _), (stopped, own) = timed(lambda: NMF(rank, random_state=0), A), timed(lambda: NMF(rank, random_state=0), A)
    cells = f"{seconds:.2f} | {mine:.2f} ({passes}) | {seconds / mine:.1f} | {objective(ours) / goal - 1:+.1e}"
    return f"| {name} | cd | {cells} | {own:.2f} ({stopped.n_iter_}) | {objective(stopped) / goal - 1:+.1e} |"


def in_batches(name: str, A: Any, rank: int) -> str:
    """One row: both mini-batch estimators, each at its own stop."""
    peer, seconds = timed(lambda: sklearn.decomposition.MiniBatchNMF(rank, random_state=0), A)
    MiniBatchNMF(rank, random_state=0).fit(A)
    ours, mine = timed(lambda: MiniBatchNMF(rank, random_state=0), A)
    lower = objective(ours) / objective(peer) - 1
    cells = f"{seconds:.2f} | {mine:.2f} | {seconds / mine:.1f} | {lower:+.1e}"
    return f"| {name} | mini-batch | {cells} | {mine:.2f} ({ours.n_iter_}) | {lower:+.1e} |"


def minima(rank: int = 10, count: int = 40) -> str:
    """One row: where a local minimum decides, ours less the peer's as shares of it, over many matrices."""
    shares: dict[str, list[float]] = {"one start": [], "n_init=2": []}
    for seed in range(count):
        A = planted(600, 100, seed)
        peer = sklearn.decomposition.NMF(rank, init="nndsvda", max_iter=2000, tol=1e-6, random_state=0).fit(A)
        for number, found in enumerate(shares.values(), 1):
            ours = NMF(rank, random_state=0, max_iter=2000, tol=1e-5, n_init=number).fit(A)
            found.append(objective(ours) / objective(peer) - 1)
    said = [
        f"{name} {np.mean(each):+.1e} ± {np.std(each):.1e}, of the first ten {np.mean(each[:10]):+.1e} ± "
        f"{np.std(each[:10]):.1e}"
        for name, each in shares.items()
    ]
    return f"{count} planted matrices, objective above the peer's (mean ± std): {'; '.join(said)}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="all if none")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    small = given.quick
    cases: dict[str, Callable[[], str]] = {
        "2000x512": lambda: beside("2000 × 512", planted(400 if small else 2000, 128 if small else 512), RANK),
        "4800x2048": lambda: beside("4800 × 2048", planted(600 if small else 4800, 256 if small else 2048), RANK),
        "sparse": lambda: beside("sparse", documents(600, 2000) if small else documents(), RANK),
        "batches": lambda: in_batches("20000 × 500", planted(*((2000, 100) if small else (20000, 500))), RANK),
        "sparse-batches": lambda: in_batches("sparse", documents(2000, 2000) if small else documents(), RANK),
        "minima": minima,
    }
    if not small:
        cases["real"] = lambda: beside("real, 14896 × 1280", real(), 25)
    print(
        "| matrix | scikit-learn's | its seconds | ours, to its objective (passes) | times faster | ours to its"
        " objective | ours, at its own stop | ours to its objective |",
        "|---|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for name in given.cases or cases:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(cases[name](), flush=True)


if __name__ == "__main__":
    main()
