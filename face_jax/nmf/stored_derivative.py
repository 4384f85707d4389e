"""How the factorization and the codes of sparse activations are differentiated: by what their solutions fulfil.

The solvers' steps are SciPy's products between programs, which nothing differentiates. The solution depends on the
activations through products with them alone, so that the cotangent of the stored values is that of all entries, taken
where they are stored: `λ_U Wᵀ + U λ_Wᵀ` at these places, and never anywhere else.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..linalg.sparse_rows import SparseRows
from ..linalg.stored_matrix import StoredMatrix
from ..support.scaling import shifted
from .derivative.conditions import Conditions
from .derivative.hessian import masked_inverse
from .magnitude import Unit
from .nnls.least_squares import concept_exponents
from .objective import SquaredError
from .shapes import Codes, Dictionary
from .solution import Solution


def moves(*given: Any) -> bool:
    """Whether anything may have a derivative."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))


def constant(value: Any) -> Any:
    """What is differentiated as the numbers that it is; inside `jit` and `vmap` they aren't known, and stay traced."""
    return jax.lax.stop_gradient(value) if moves(value) else value


def matrix_of(activations: Any, rows: SparseRows) -> StoredMatrix:
    """Sparse activations, of which `rows` has the numbers, with their derivative if they have one."""
    coo = rows.matrix.tocoo()
    places = jnp.asarray(coo.row, jnp.int32), jnp.asarray(coo.col, jnp.int32)
    if not moves(activations):
        return StoredMatrix(jnp.asarray(coo.data), *places, rows.shape)
    found = activations.to_bcoo() if hasattr(activations, "to_bcoo") else activations
    pair = (found.row, found.col) if hasattr(found, "row") else np.asarray(found.indices).T
    of_rows, columns = (np.asarray(part, np.int64) for part in pair)
    # What fills a matrix of JAX up lies beyond its last row.
    inside = np.flatnonzero((of_rows < rows.shape[0]) & (columns < rows.shape[1]))
    _, at = np.unique(of_rows[inside] * rows.shape[1] + columns[inside], return_inverse=True)
    values = jax.ops.segment_sum(found.data.astype(rows.dtype)[inside], jnp.asarray(at), len(coo.data))
    return StoredMatrix(values, *places, rows.shape)


def attached(
    solution: Solution, matrix: StoredMatrix, objective: SquaredError, unit: Unit, solver: Any, adjoint: Any
) -> Solution:
    """A solution in a unit with its derivative.

    **Arguments:**

    - `solution`: what was found.
    - `matrix`, `objective`: the activations and what was minimized, not in the unit, with their derivatives.
    - `unit`: the activations'.
    - `solver`: which found it.
    - `adjoint`: how it's differentiated.
    """
    scaled = unit.into(jnp.zeros((1, 1), matrix.dtype), objective)[1]
    conditions = Conditions(matrix / unit.whole, scaled, solver.rtol, solver.signed_dictionary)
    return adjoint.through(lambda *_: solution, conditions)


def attached_codes(codes: Codes, matrix: StoredMatrix, dictionary: Dictionary, objective: SquaredError) -> Codes:
    """Codes with their derivative: that of a Newton step on those above 0, which is no step where they are already.

    **Arguments:**

    - `codes`: for the dictionary.
    - `matrix`, `dictionary`, `objective`: with their derivatives.
    """
    dtype = codes.dtype
    l1, l2 = jnp.asarray(objective.l1_codes, dtype), jnp.asarray(objective.l2_codes, dtype)
    by = concept_exponents(dictionary, l2)
    units, ridge = shifted(dictionary, -by[:, None]), shifted(l2, -2 * by)
    found = shifted(codes, by[None])
    fixed = jax.lax.stop_gradient(units)
    gram = fixed @ fixed.T + jnp.diag(jax.lax.stop_gradient(ridge))
    support = found > 0
    slopes = found @ (units @ units.T) + ridge[None] * found + shifted(l1, -by)[None] - (units @ matrix.T).T
    step = jnp.einsum("nkl,nl->nk", masked_inverse(gram, support), jnp.where(support, slopes, 0))
    return codes - shifted(step - jax.lax.stop_gradient(step), -by[None])


def refuse(name: str, value: Any, remedy: str) -> None:
    """Raises `ValueError` for what isn't known, inside `jit` and `vmap`."""
    if moves(value):
        raise ValueError(
            f"{name} is traced, and activations are sparse, whose steps can't be; call it outside of jit and vmap "
            f"(grad alone will do), or {remedy}"
        )


def refuse_derivatives(*given: Any) -> None:
    """Raises `ValueError` where anything has a derivative beside another objective than the squared error's."""
    if moves(*given):
        raise ValueError(
            "of sparse activations only the squared error of all entries can be differentiated, not a β-divergence or "
            "what observed= leaves out; give SquaredError(), or all entries, value.todense()"
        )


def without_derivative(objective: Any) -> Any:
    """An objective as numbers; raises `ValueError` for one that isn't known."""
    found = constant(objective)
    refuse("objective", found, "give its weights and penalties as numbers")
    return found
