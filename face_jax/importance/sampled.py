"""Total Sobol indices of any function of independent uniform inputs, estimated with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..support import arguments as checks
from ..support.arguments import Seed, Whole, index_or_none, key_of, shown, whole
from ..support.precision import full_precision
from ..support.progress import Advance, nobody
from ..support.randomness import generator
from ..support.scaling import usable_exponent
from .indices import Sobol


@full_precision
def sampled_total_sobol(
    function: Callable[[Float[Array, " concept"]], Float[Array, ""] | Float[Array, " image"]],
    concepts: Whole,
    *,
    designs: Whole = 32,
    scrambles: Whole = 4,
    dtype: Any = jnp.float32,
    advance: Advance = nobody,
    key: Seed = None,
) -> Sobol:
    """Total Sobol indices of a function of masks, by Jansen's estimator on scrambled Sobol' points.

    Use it for a function of your own; `total_sobol` is the same for concepts behind a head. Each scramble gives

    `Dᵢ = E[(f(A) − f(A with column i of B))²] / 2` and `V = Var f`

    (Jansen 1999; `V` over A and B together). The index is `ΣD / ΣV` over the scrambles. Scrambles are independent, so
    the ratio's standard error is that of the mean of `(D − T V) / mean V`, and the interval is Student's with
    `scrambles − 1` degrees of freedom. Every point of a scramble is uniform by itself, which leaves `D` unbiased;
    `V` is divided by the number of points and not by one less, because Sobol' points put the sample's mean so close
    to the true one that the usual correction would be the larger error.

    **Arguments:**

    - `function`: from one mask in `[0, 1]` to one value or a vector of them, each of which gets indices of its own. A
        `jax.tree_util.Partial` with arrays bound in it is compiled once for all values of these arrays.
    - `concepts`: the number of inputs.
    - `designs`: points of each scramble, a power of two.
    - `scrambles`: independent repetitions, at least 2; `designs × (concepts + 2) × scrambles` calls in all.
    - `dtype`: of the masks.
    - `advance`: told after each scramble.
    - `key`: for the scrambles, or a seed; `jax.random.key(0)` if None.

    **Returns:** the indices and their 95 % intervals, as NumPy arrays: it can't be part of a program under `jax.jit`. A
    value that depends on nothing has zeros. Raises `ValueError` where the function isn't finite.

    **Example:**

    >>> indices = fj.sampled_total_sobol(lambda masks: masks[0] + 2 * masks[1], 2, designs=512)
    >>> np.asarray(indices.total, np.float64).round(1).tolist()
    [[0.2, 0.8]]
    """
    designs, scrambles, key = checked_designs(designs, scrambles, key)
    concepts = whole("concepts", concepts, "inputs to vary", least=1)
    checks.function("function", function, "a function from a mask to a value")
    checks.function("advance", advance, "a function that takes a number of steps")
    bound = function if isinstance(function, jax.tree_util.Partial) else jax.tree_util.Partial(function)
    random = generator(key)
    differences, variances, exponents = [], [], []
    for _ in range(scrambles):
        masks = jnp.asarray(jansen_points(concepts, designs, random), dtype)
        difference, variance, exponent, bad = _jansen(bound, masks)
        if bad:
            raise ValueError(
                f"function (behind total_sobol, the head) gives NaN or infinity for {int(bad)} of {len(masks)} masks; "
                "indices need a number wherever masks are from 0 to 1: clip what has a logarithm, a root or a division "
                "there"
            )
        differences.append(np.asarray(difference))
        variances.append(np.asarray(variance))
        exponents.append(np.asarray(exponent))
        advance(1)
    # All scrambles in one unit of each value's own.
    shift = 2 * (np.stack(exponents) - np.max(exponents, axis=0))
    return _ratio(np.ldexp(np.stack(differences), shift[..., None]), np.ldexp(np.stack(variances), shift))


def checked_designs(designs: Any, scrambles: Any, key: Any) -> tuple[int, int, Key[Array, ""]]:
    """A design that Sobol' points come in; raises `ValueError` for any other."""
    number = index_or_none(designs)
    if number is None or number < 2 or number & (number - 1):
        raise ValueError(f"designs={shown(designs)} isn't a power of two, which Sobol' points need; try 64")
    times = index_or_none(scrambles)
    if times is None or times < 2:
        raise ValueError(f"scrambles={shown(scrambles)} leaves no interval; give at least 2")
    return number, times, key_of(key)


def _ratio(
    differences: Float[np.ndarray, "scramble image concept"], variances: Float[np.ndarray, "scramble image"]
) -> Sobol:
    """The index over all scrambles and its interval, by the ratio's linearization."""
    from scipy.stats import t

    count = len(variances)
    mean = variances.mean(0)
    safe = np.where(mean > 0, mean, 1)[:, None]
    total = np.where(mean[:, None] > 0, differences.mean(0) / safe, 0)
    residual = (differences - total[None] * variances[..., None]) / safe[None]
    error = np.sqrt((residual**2).sum(0) / (count * (count - 1)))
    half = (t.ppf(0.975, count - 1) * error).astype(total.dtype)
    return Sobol(total, total - half, total + half, exact=False)


def sobol_points(dimensions: int, count: int, random: np.random.Generator) -> Float[np.ndarray, "point dimension"]:
    """Scrambled Sobol' points in the unit cube; `count` is a power of two."""
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, scramble=True, rng=random).random(count)


def jansen_points(inputs: int, designs: int, random: np.random.Generator) -> Float[np.ndarray, "mask input"]:
    """The scrambled Sobol' points A, B, and for each input A with that input's column from B."""
    points = sobol_points(2 * inputs, designs, random)
    first, second = points[:, :inputs], points[:, inputs:]
    swapped = np.repeat(first[None], inputs, axis=0)
    each = np.arange(inputs)
    swapped[each, :, each] = second.T
    return np.concatenate([first, second, swapped.reshape(-1, inputs)])


def jansen(values: Any, inputs: int) -> tuple[Any, Any]:
    """The numerators and the denominator of Jansen's estimator.

    **Arguments:**

    - `values`: `mask output`, at the points of `jansen_points`; NumPy's or JAX's.
    - `inputs`: how many inputs a point has.

    **Returns:** `E[(f(A) − f(A with column i of B))²] / 2`, `output input`, and `Var f`, one for each output.
    """
    designs = len(values) // (inputs + 2)
    plain, swapped = values[:designs], values[2 * designs :].reshape(inputs, designs, -1)
    return ((plain[None] - swapped) ** 2).mean(axis=1).T / 2, values[: 2 * designs].var(axis=0)


@jax.jit
def _jansen(
    function: Any, masks: Float[Array, "mask concept"]
) -> tuple[Float[Array, "image concept"], Float[Array, " image"], Int[Array, " image"], Int[Array, ""]]:
    """Numerators and denominator of Jansen's estimator from one scramble, in a power of two of each value's own.

    With that power's exponents, and for how many masks there are no values.
    """
    values = jax.lax.map(lambda mask: jnp.atleast_1d(function(mask)), masks)
    bad = jnp.sum(~jnp.isfinite(values).all(1))
    # Squares leave the range before values do.
    largest = jnp.max(jnp.abs(values), axis=0)
    exponent = usable_exponent(largest)
    scaled = values / jnp.ldexp(jnp.ones_like(largest), exponent)[None]
    return *jansen(scaled, masks.shape[1]), exponent, bad
