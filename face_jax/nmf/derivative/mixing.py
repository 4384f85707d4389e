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

from ...support.scaling import positive
from ..objective import PENALTIES, Objective
from ..shapes import Columns, Factors, Masks, Number
from .conditions import Conditions
from .mixing_search import MOST_AT_ONCE, Dense, Sequential, Square, at_once, matrix_free


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixtures:
    """The mixing matrices that are open.

    **Arguments:**

    - `count`: how many independent ones there are; with many concepts 1 if there are any, or if it couldn't be told.
    - `search`: for the part of a matrix that's open, at concepts of unit length in both factors; None for one concept.
    - `lengths`: what a mixing matrix is multiplied with to be at such concepts.
    """

    count: Int[Array, ""]
    search: Dense | Sequential | None
    lengths: Square

    def share(self, rhs: Factors, factors: Factors) -> Number:
        """The cosine between a cotangent and the nearest step that's open: zero if it doesn't see any of them.

        Each entry is measured in units of its concept's length, so that both factors count alike.
        """
        (codes, dictionary), (of_codes, of_dictionary) = factors, rhs
        pulled = codes.T @ of_codes - of_dictionary @ dictionary.T
        mixture = self.project(pulled / self.lengths) / self.lengths
        step = codes @ mixture, -mixture @ dictionary
        long, wide = jnp.sum(dictionary**2, axis=1)[None], jnp.sum(codes**2, axis=0)[:, None]
        sizes = []
        for factor, power in ((step, 1), (rhs, -1)):
            safe = positive(long) ** power, positive(wide) ** power
            sizes.append(jnp.sum(factor[0] ** 2 * safe[0]) + jnp.sum(factor[1] ** 2 * safe[1]))
        seen = jnp.sum(step[0] * of_codes) + jnp.sum(step[1] * of_dictionary)
        size = jnp.sqrt(sizes[0]) * jnp.sqrt(sizes[1])
        return jnp.abs(seen) / positive(size)

    def project(self, matrix: Square) -> Square:
        """The part of a matrix that's open."""
        return jnp.zeros_like(matrix) if self.search is None else self.search.project(matrix)


def mixtures(conditions: Conditions, factors: Factors, masks: Masks) -> Mixtures:
    """The mixtures that are open at a solution, `masks` being the entries that the derivative moves.

    An entry of zero whose multiplier is zero too holds nothing: there is a solution on its other side.
    """
    wanted, objective = conditions.targets(factors), conditions.objective
    codes, dictionary = factors
    rank = codes.shape[1]
    lengths = jnp.sqrt(jnp.sum(codes**2, axis=0)), jnp.sqrt(jnp.sum(dictionary**2, axis=1))
    alive = (lengths[0] > 0) & (lengths[1] > 0)
    safe = jnp.where(alive, lengths[0], 1), jnp.where(alive, lengths[1], 1)
    pairs = safe[0][:, None] * safe[1][None]
    nothing = jnp.zeros((), jnp.int32)
    if rank == 1:
        return Mixtures(nothing, None, pairs)
    held = _held(wanted[0].T, codes.T, masks[0].T), _held(wanted[1], dictionary, masks[1])
    if conditions.signed_dictionary:
        held = held[0], jnp.zeros_like(held[1])
    items = _directions(codes / safe[0][None]), _directions((dictionary / safe[1][:, None]).T)
    alone, turning = _product_alone(objective), jnp.asarray(objective.l2_codes) > 0
    look = matrix_free if rank > MOST_AT_ONCE else at_once
    return Mixtures(*look(held, items, alive, pairs, alone, turning), pairs)


def _held(wanted: Columns, x: Columns, mask: Bool[Array, "concept item"]) -> Bool[Array, "concept item"]:
    """The entries that stand still: held back by their bound, or left out of the derivative."""
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    return ~mask & ((x > 0) | (wanted < -(float(jnp.finfo(x.dtype).eps) ** 0.6) * largest))


def _directions(items: Float[Array, "item concept"]) -> Float[Array, "item concept"]:
    """Each item's at unit length."""
    length = jnp.linalg.norm(items, axis=1, keepdims=True)
    return items / positive(length)


def _product_alone(objective: Objective) -> Bool[Array, ""]:
    """Whether mixtures can leave the objective as it is: it sees the product, and perhaps both factors' squares."""
    l1_codes, l2_codes, l1_dictionary, l2_dictionary = (jnp.asarray(getattr(objective, name)) for name in PENALTIES)
    level = (l1_codes == 0) & (l1_dictionary == 0) & ((l2_codes > 0) == (l2_dictionary > 0))
    return level if all(part.term.scale_free for part in objective.terms) else jnp.zeros_like(level)
