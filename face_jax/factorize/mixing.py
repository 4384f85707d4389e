"""Whether codes and dictionary can be mixed, `U → U (I + M)`, `W → (I − M) W`, without a change of what's minimized.

To first order such a step leaves the product alone. It is open where no entry that its bound holds is moved: every
zero of `U_l` has to be one of `Σ_k U_k M_kl`, and every zero of `W_k` one of `Σ_l M_kl W_l`. Then solutions come in
whole families, the Hessian is singular along them, and neither factor has a derivative of its own. (Diagonal M only
change lengths, which are fixed afterwards.)
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .hessian import Factors, Masks
from .objective import Objective, SquaredError

_LARGEST = 32  # concepts, up to which mixtures are looked for: the matrix has a row for each pair of concepts

Square = Float[Array, "concept concept"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixtures:
    """The mixing matrices that are open.

    **Arguments:**

    - `count`: how many independent ones there are.
    - `projection`: onto them, at concepts of unit length in both factors; None if they weren't looked for.
    - `lengths`: what a mixing matrix is multiplied with to be at such concepts.
    """

    count: Int[Array, ""]
    projection: Float[Array, "pair pair"] | None
    lengths: Square

    def share(self, right: Factors, factors: Factors) -> Float[Array, ""]:
        """The cosine between a cotangent and the nearest step that's open: zero if it doesn't see any of them.

        Each entry is measured in units of its concept's length, so that both factors count alike.
        """
        (codes, dictionary), (of_codes, of_dictionary) = factors, right
        pulled = codes.T @ of_codes - of_dictionary @ dictionary.T
        mixture = self.project(pulled / self.lengths) / self.lengths
        step = codes @ mixture, -mixture @ dictionary
        long, wide = jnp.sum(dictionary**2, axis=1)[None], jnp.sum(codes**2, axis=0)[:, None]
        sizes = []
        for factor, power in ((step, 1), (right, -1)):
            safe = jnp.where(long > 0, long, 1) ** power, jnp.where(wide > 0, wide, 1) ** power
            sizes.append(jnp.sum(factor[0] ** 2 * safe[0]) + jnp.sum(factor[1] ** 2 * safe[1]))
        seen = jnp.sum(step[0] * of_codes) + jnp.sum(step[1] * of_dictionary)
        size = jnp.sqrt(sizes[0]) * jnp.sqrt(sizes[1])
        return jnp.abs(seen) / jnp.where(size > 0, size, 1)

    def project(self, matrix: Square) -> Square:
        """The part of a matrix that's open."""
        if self.projection is None:
            return jnp.zeros_like(matrix)
        return (self.projection @ matrix.ravel()).reshape(matrix.shape)


def mixtures(
    objective: SquaredError | Objective, factors: Factors, wanted: Factors, masks: Masks, *, signed_dictionary: bool
) -> Mixtures:
    """The mixtures that are open at a solution.

    An entry of zero whose multiplier is zero too holds nothing: there is a solution on its other side.

    **Arguments:**

    - `objective`: what was minimized.
    - `factors`: the solution, at the scale that the objective sees.
    - `wanted`: where each entry would be without its bound, see `targets`.
    - `masks`: the entries that the derivative moves.
    - `signed_dictionary`: whether the dictionary may be negative.
    """
    codes, dictionary = factors
    rank, dtype = codes.shape[1], codes.dtype
    lengths = jnp.sqrt(jnp.sum(codes**2, axis=0)), jnp.sqrt(jnp.sum(dictionary**2, axis=1))
    alive = (lengths[0] > 0) & (lengths[1] > 0)
    safe = jnp.where(alive, lengths[0], 1), jnp.where(alive, lengths[1], 1)
    pairs = safe[0][:, None] * safe[1][None]
    nothing = jnp.zeros((), jnp.int32)
    if rank == 1 or rank > _LARGEST:
        return Mixtures(nothing, None, pairs)
    held = _held(wanted[0].T, codes.T, masks[0].T), _held(wanted[1], dictionary, masks[1])
    if signed_dictionary:
        held = held[0], jnp.zeros_like(held[1])
    of_columns = _blocks(held[0], codes / safe[0][None], alive)
    of_rows = _blocks(held[1], (dictionary / safe[1][:, None]).T, alive)
    floor = 8 * rank**2 * float(jnp.finfo(dtype).eps)
    open_columns, open_rows = (jnp.any(jnp.linalg.eigvalsh(x)[:, 0] <= floor) for x in (of_columns, of_rows))

    def look() -> tuple[Int[Array, ""], Float[Array, "pair pair"]]:
        eye, unit = jnp.eye(rank, dtype=dtype), jnp.eye(rank**2, dtype=dtype)
        # (M_kl, M_mn): columns l, n have to be one in the first, rows k, m in the second.
        form = jnp.einsum("lkm,ln->klmn", of_columns, eye) + jnp.einsum("kln,km->klmn", of_rows, eye)
        form = form.reshape(rank**2, rank**2)
        form = form + _turns_only(objective, unit, pairs)
        values, vectors = jnp.linalg.eigh(form)
        chosen = jnp.where(values[None] <= floor, vectors, 0)
        return jnp.sum(values <= floor, dtype=jnp.int32), chosen @ chosen.T

    possible = open_columns & open_rows & _product_alone(objective)
    count, projection = jax.lax.cond(possible, look, lambda: (nothing, jnp.zeros((rank**2, rank**2), dtype)))
    return Mixtures(count, projection, pairs)


def _held(
    wanted: Float[Array, "concept item"], x: Float[Array, "concept item"], mask: Bool[Array, "concept item"]
) -> Bool[Array, "concept item"]:
    """The entries that stand still: held back by their bound, or left out of the derivative."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    return ~mask & ((x > 0) | (wanted < -(float(jnp.finfo(x.dtype).eps) ** 0.6) * largest))


def _blocks(
    held: Bool[Array, "concept item"], vectors: Float[Array, "item concept"], alive: Bool[Array, " concept"]
) -> Float[Array, "concept concept concept"]:
    """For each concept the Gram matrix of the items that hold it; 1 for concepts that have no part in mixtures."""
    eye = jnp.eye(len(alive), dtype=vectors.dtype)
    length = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / jnp.where(length > 0, length, 1)
    grams = jnp.einsum("ln,nk,nm->lkm", held.astype(vectors.dtype), vectors, vectors, optimize="optimal")
    fixed = (eye > 0) | ~alive[None] | ~alive[:, None]
    return jnp.where(fixed[:, :, None] | fixed[:, None, :], eye[None], grams)


def _product_alone(objective: SquaredError | Objective) -> Bool[Array, ""]:
    """Whether mixtures can leave the objective as it is: it sees the product, and perhaps both factors' squares."""
    quadratic = objective.quadratic
    l1_codes, l2_codes, l1_dictionary, l2_dictionary = (
        jnp.asarray(x)
        for x in (quadratic.l1_codes, quadratic.l2_codes, quadratic.l1_dictionary, quadratic.l2_dictionary)
    )
    level = (l1_codes == 0) & (l1_dictionary == 0) & ((l2_codes > 0) == (l2_dictionary > 0))
    return level if all(part.term.scale_free for part in objective.terms) else jnp.zeros_like(level)


def _turns_only(
    objective: SquaredError | Objective, unit: Float[Array, "pair pair"], pairs: Square
) -> Float[Array, "pair pair"]:
    """With penalties on squares only antisymmetric mixtures, which are turns, are open; without any zero."""
    rank = len(pairs)
    weight = 1 / pairs
    weight = (weight / jnp.sqrt(weight**2 + weight.T**2)).ravel()
    transposed = unit.reshape(rank, rank, rank**2).swapaxes(0, 1).reshape(rank**2, rank**2)
    form = weight[:, None] * (unit + transposed) * weight[None]
    return jnp.where(jnp.asarray(objective.quadratic.l2_codes) > 0, form, 0)
