"""A recommender's table with holes: how many tastes there are, and what people would have said.

    python examples/missing.py [--people 400] [--ranks 2 3 4 6]

Of a table of ratings, drawn from a few tastes and rounded to half points, 70 % is missing. How many tastes there are
is found by bi-cross-validation on the ratings that are known; the rest is filled in, and compared with what it was,
beside each film's mean. Most of the time is compiling.
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy.sparse

import face_jax as fj
from face_jax.sklearn import NMF

TASTES, FILMS = 4, 120


def ratings(people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The whole table, and where it's known: popular films more often."""
    drawn = np.random.default_rng(seed)
    tastes = drawn.gamma(0.5, size=(TASTES, FILMS))
    shares = drawn.dirichlet(np.full(TASTES, 0.4), people)
    whole = shares @ tastes
    whole = 0.5 + 4.5 * np.minimum(1, whole / np.quantile(whole, 0.98))
    table = np.round(2 * (whole + drawn.normal(0, 0.15, whole.shape))).clip(1, 10) / 2
    chance = drawn.beta(2, 3, FILMS)
    known = drawn.random(table.shape) < 0.3 * chance / chance.mean()
    known[drawn.integers(people, size=FILMS), np.arange(FILMS)] = True
    return table, known


def main() -> None:
    """Choose the rank, fill in the table, and say how far off it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--ranks", type=int, nargs="+", default=(2, 3, 4, 6))
    given = parser.parse_args()
    table, known = ratings(given.people)
    print(f"{table.shape[0]} people × {table.shape[1]} films, {known.mean():.0%} of the ratings known")

    scan = fj.rank_scan(np.where(known, table, 0), given.ranks, observed=known, key=0, starts=2)
    print("\n  tastes   error on ratings left out")
    for rank, error in zip(scan.ranks, scan.held_out, strict=True):
        print(f"  {rank:6d}   {error:.3f}{'   <- chosen' if rank == scan.suggested else ''}")

    # Unstored entries of a sparse matrix are what nobody said; a dense one has NaN there, and missing="ignore".
    sparse = scipy.sparse.csr_array(np.where(known, table, 0))
    model = NMF(scan.suggested, missing="unstored", alpha_W=1e-4, random_state=0).fit(sparse)
    filled = model.inverse_transform(model.transform(sparse))
    mean = np.where(known, table, 0).sum(axis=0) / known.sum(axis=0)
    print("\nHow far off ratings that nobody gave are, on average (points of 0.5 to 5):")
    print(f"  each film's mean   {np.abs(mean[None] - table)[~known].mean():.2f}")
    print(f"  {scan.suggested} tastes           {np.abs(filled - table)[~known].mean():.2f}")


if __name__ == "__main__":
    main()
