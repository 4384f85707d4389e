"""Which mixing matrices no zero of either factor forbids: for few concepts by one matrix, for many without it.

Column l of M is held by the items (rows) in which concept l is zero, row k of M by the channels in which concept k is
zero. Both are subspaces with a block for each concept; what's open is their intersection.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.conjugate_gradients import conjugate_gradients
from ..shapes import Codes, Number

MOST_AT_ONCE = 32  # concepts: a matrix with a row for each pair of them is taken apart
_PROBES = 4  # random matrices whose open part is looked for
_LEAST = 1e-4  # square of the probes' open parts, at least: for one open mixture it's chi-squared
_STEPS = 2000

Square = Float[Array, "concept concept"]
Blocks = Float[Array, "concept concept concept"]
Held = tuple[Bool[Array, "concept row"], Bool[Array, "concept channel"]]
Items = tuple[Codes, Float[Array, "channel concept"]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """The open part by one matrix.

    **Arguments:**

    - `projection`: onto what's open.
    """

    projection: Float[Array, "pair pair"]

    def project(self, matrix: Square) -> Square:
        """The part of a matrix that's open."""
        return (self.projection @ matrix.ravel()).reshape(matrix.shape)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sequential:
    """The open part by conjugate gradients, from the projections of single columns and rows.

    **Arguments:**

    - `columns`, `rows`: for each concept the projection onto what holds neither its column nor its row.
    - `weights`: of pairs, as `_weights` says; zeros if any mixture will do, not turns only.
    """

    columns: Blocks
    rows: Blocks
    weights: Square

    def project(self, matrix: Square) -> Square:
        """The part of a matrix that's open; more than that if it couldn't be found."""
        return self.part(matrix)[0]

    def part(self, matrix: Square) -> tuple[Square, Number]:
        """The open part, and what's left of the system that tells it from the rest."""
        inside = self.inside(matrix)
        # Not smaller: a rest that is rounding has an open part, along which steps have no bound.
        rtol = jnp.asarray(float(jnp.finfo(matrix.dtype).eps) ** 0.75, matrix.dtype)
        same: Callable[[Square], Square] = lambda x: x  # noqa: E731
        rest, stats = conjugate_gradients(
            self.forbidden, self.forbidden(inside), preconditioner=same, project=same, rtol=rtol, max_steps=_STEPS
        )
        return inside - rest, stats.residual

    def inside(self, matrix: Square) -> Square:
        """The part that no column forbids."""
        return jnp.einsum("lkm,ml->kl", self.columns, matrix)

    def forbidden(self, matrix: Square) -> Square:
        """Of a matrix that no column forbids: the part that rows do; its eigenvalues are squared sines of angles."""
        outside = matrix - jnp.einsum("kln,kn->kl", self.rows, matrix)
        turned = self.weights * matrix
        return self.inside(outside + self.weights * (turned + turned.T))


def at_once(
    held: Held,
    items: Items,
    alive: Bool[Array, " concept"],
    pairs: Square,
    alone: Bool[Array, ""],
    turning: Bool[Array, ""],
) -> tuple[Int[Array, ""], Dense]:
    """How many mixtures are open, and the projection onto them.

    **Arguments:**

    - `held`: the entries that their bound holds.
    - `items`: each row's codes and each channel's entries, at unit length.
    - `alive`: the concepts that have a part in mixtures.
    - `pairs`: the products of the concepts' lengths in both factors.
    - `alone`: whether mixtures can leave the objective as it is.
    - `turning`: whether only those that are turns can.
    """
    rank, dtype = len(alive), pairs.dtype
    columns, rows = (_blocks(*each, alive) for each in zip(held, items, strict=True))
    floor = _floor(pairs)
    open_columns, open_rows = (jnp.any(jnp.linalg.eigvalsh(x)[:, 0] <= floor) for x in (columns, rows))

    def look() -> tuple[Int[Array, ""], Float[Array, "pair pair"]]:
        eye, unit = jnp.eye(rank, dtype=dtype), jnp.eye(rank**2, dtype=dtype)
        # (M_kl, M_mn): columns l, n have to be one in the first, rows k, m in the second.
        form = jnp.einsum("lkm,ln->klmn", columns, eye) + jnp.einsum("kln,km->klmn", rows, eye)
        weight = _weights(pairs, turning).ravel()
        transposed = unit.reshape(rank, rank, rank**2).swapaxes(0, 1).reshape(rank**2, rank**2)
        form = form.reshape(rank**2, rank**2) + weight[:, None] * (unit + transposed) * weight[None]
        values, vectors = jnp.linalg.eigh(form)
        chosen = jnp.where(values[None] <= floor, vectors, 0)
        return jnp.sum(values <= floor, dtype=jnp.int32), chosen @ chosen.T

    nothing = jnp.zeros((), jnp.int32), jnp.zeros((rank**2, rank**2), dtype)
    count, projection = jax.lax.cond(open_columns & open_rows & alone, look, lambda: nothing)
    return count, Dense(projection)


def matrix_free(
    held: Held,
    items: Items,
    alive: Bool[Array, " concept"],
    pairs: Square,
    alone: Bool[Array, ""],
    turning: Bool[Array, ""],
) -> tuple[Int[Array, ""], Sequential]:
    """1 if any mixture is open or it couldn't be told, else 0, and the search for an open part.

    A random matrix without what conjugate gradients find to be forbidden is its open part. If that comes out as
    forbidden too, it's what they have left over, and nothing is open. The arguments are those of `at_once`.
    """
    rank, dtype = len(alive), pairs.dtype
    zeros = jnp.zeros((rank, rank, rank), dtype)

    def projections(which: int, wanted: Bool[Array, ""]) -> Blocks:
        each = lambda: _projections(held[which], items[which], alive, _floor(pairs))  # noqa: E731
        return jax.lax.cond(wanted, each, lambda: zeros)

    columns = projections(0, alone)
    rows = projections(1, jnp.any(columns != 0))
    possible = jnp.any(rows != 0)
    search = Sequential(jnp.where(possible, columns, 0), rows, _weights(pairs, turning))
    eps = float(jnp.finfo(dtype).eps)

    def probe(key: Array) -> tuple[Array, Array, Array]:
        part, residual = search.part(jax.random.normal(key, (rank, rank), dtype))
        return jnp.sum(part**2), jnp.sum(part * search.forbidden(part)), residual

    sizes, forbidden, residuals = jax.lax.map(probe, jax.random.split(jax.random.key(0), _PROBES))
    size = jnp.sum(sizes)
    found = (size > _LEAST) & (jnp.sum(forbidden) <= 64 * eps**0.8 * size)
    count = jnp.where(possible & (found | jnp.any(residuals > eps**0.5)), 1, 0).astype(jnp.int32)
    return count, search


def _floor(pairs: Square) -> float:
    """The largest eigenvalue that counts as zero."""
    return 8 * len(pairs) ** 2 * float(jnp.finfo(pairs.dtype).eps)


def _block(
    holding: Bool[Array, " item"], item: Float[Array, "item concept"], alive: Bool[Array, " concept"], concept: Array
) -> Square:
    """The Gram matrix of the items that hold a concept; 1 for concepts that have no part in mixtures with it."""
    eye = jnp.eye(len(alive), dtype=item.dtype)
    gram = jnp.where(holding[:, None], item, 0).T @ item
    fixed = (jnp.arange(len(alive)) == concept) | ~alive | ~alive[concept]
    return jnp.where(fixed[:, None] | fixed[None], eye, gram)


def _blocks(
    holding: Bool[Array, "concept item"], items: Float[Array, "item concept"], alive: Bool[Array, " concept"]
) -> Blocks:
    def one(given: tuple[Array, Array]) -> Square:
        return _block(given[0], items, alive, given[1])

    return jax.lax.map(one, (holding, jnp.arange(len(alive))))


def _projections(
    holding: Bool[Array, "concept item"],
    items: Float[Array, "item concept"],
    alive: Bool[Array, " concept"],
    floor: float,
) -> Blocks:
    """For each concept the projection onto what no item holds; zero if all is held."""
    eye = jnp.eye(len(alive), dtype=items.dtype)

    def one(given: tuple[Array, Array]) -> Square:
        gram = _block(given[0], items, alive, given[1])

        def look() -> Square:
            values, vectors = jnp.linalg.eigh(gram)
            chosen = jnp.where(values[None] <= floor, vectors, 0)
            return chosen @ chosen.T

        # A factor is cheaper than eigenvalues, and exists where all of them are above the floor.
        held = jnp.all(jnp.isfinite(jnp.linalg.cholesky(gram - floor * eye)))
        return jax.lax.cond(held, lambda: jnp.zeros_like(gram), look)

    return jax.lax.map(one, (holding, jnp.arange(len(alive))))


def _weights(pairs: Square, turning: Bool[Array, ""]) -> Square:
    """With penalties on squares only antisymmetric mixtures, which are turns, are open: weights of the others."""
    weight = 1 / pairs
    return jnp.where(turning, weight / jnp.sqrt(weight**2 + weight.T**2), 0)
