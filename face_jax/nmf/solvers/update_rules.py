"""The solvers: settings-only rules that improve one factor while the other one stands still."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ...support.scaling import positive
from ..shapes import Columns, Gram, Scalar
from ..steps import ridged, sweep
from ..terms.problem import Settings
from .rule import Memory
from .shifted_systems import Cholesky, ConjugateGradient, LinearSolver
from .solver import Solver


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HALS(Solver):
    """Hierarchical alternating least squares: exact coordinate descent over concepts (Cichocki & Phan 2009).

    Never raises the objective. The one to take when a code's being exactly zero matters at every step.

    For β-divergences, and with missing values, each row and each channel has a quadratic model of its own, Newton's
    where that is convex; the sweeps go over that, and steps are cut to where the objective falls.

    **Arguments:**

    - `sweeps`: passes over the concepts in each step.
    - `rtol`: stop at this scaled KKT residual.
    - `max_steps`: stop after this many passes over the activations.
    - `extrapolate`: extrapolate between steps, restart when the objective would rise (Ang & Gillis 2019).
    """

    sweeps: int = dataclasses.field(default=2, metadata={"static": True})
    rtol: Scalar = 1e-4
    max_steps: int = dataclasses.field(default=500, metadata={"static": True})
    extrapolate: bool = dataclasses.field(default=True, metadata={"static": True})

    def remember(self, x: Columns) -> Memory:
        """Nothing."""
        return ()

    def update(self, x: Columns, gram: Gram, cross: Columns, memory: Memory) -> tuple[Columns, Memory]:
        """So many sweeps."""
        for _ in range(self.sweeps):
            x = sweep(x, gram, cross)
        return x, memory

    @property
    def fits_entries(self) -> bool:
        """True."""
        return True

    def improve_items(self, side: Any, x: Any, product: Any) -> Any:
        """Sweeps over each item's quadratic model."""
        return side.newton(x, product, self.sweeps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ADMM(Solver):
    """Alternating direction method of multipliers with warm duals (Huang, Sidiropoulos & Liavas 2016).

    The default. Each step factors one small Gram matrix, runs a few iterations that are matrix products, and ends
    with a coordinate sweep, which makes the zeros exact and the step a descent.

    For β-divergences, and with missing values, it's `HALS` with `inner + sweeps` sweeps: there is no one Gram
    matrix to factor.

    **Arguments:**

    - `inner`: ADMM iterations in each step.
    - `sweeps`: coordinate sweeps behind them.
    - `linear`: how `(G + ρI) X = R` is solved: `Cholesky()` or `ConjugateGradient()`.
    - `rtol`: stop at this scaled KKT residual.
    - `max_steps`: stop after this many passes over the activations.
    - `extrapolate`: extrapolate between steps, restart when the objective would rise (Ang & Gillis 2019).
    """

    inner: int = dataclasses.field(default=3, metadata={"static": True})
    sweeps: int = dataclasses.field(default=1, metadata={"static": True})
    linear: LinearSolver = Cholesky()  # noqa: RUF009 (settings: frozen)
    rtol: Scalar = 1e-4
    max_steps: int = dataclasses.field(default=500, metadata={"static": True})
    extrapolate: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def beside_terms(self) -> Settings:
        """Its iterations, and what conjugate gradients may take, which solve them there whatever `linear` is."""
        settings = Settings(self.rtol, self.max_steps, self.extrapolate, inner=self.inner)
        if isinstance(self.linear, ConjugateGradient):
            return dataclasses.replace(settings, steps=self.linear.steps, cg_rtol=self.linear.rtol)
        return settings

    def remember(self, x: Columns) -> Memory:
        """The scaled duals."""
        return (jnp.zeros_like(x),)

    def update(self, x: Columns, gram: Gram, cross: Columns, memory: Memory) -> tuple[Columns, Memory]:
        """ADMM iterations with `ρ = tr(G)/r`, then coordinate sweeps."""
        (dual,) = memory
        rho = positive(jnp.trace(gram) / gram.shape[0])
        solve = self.linear.prepare(ridged(gram, rho))
        for _ in range(self.inner):
            free = solve(cross + rho * (x + dual), x)
            x = jnp.maximum(free - dual, 0)
            dual = dual + x - free
        for _ in range(self.sweeps):
            x = sweep(x, gram, cross)
        return x, (dual,)

    @property
    def fits_entries(self) -> bool:
        """True."""
        return True

    def improve_items(self, side: Any, x: Any, product: Any) -> Any:
        """Sweeps over each item's quadratic model, in the place of its iterations too."""
        return side.newton(x, product, self.inner + self.sweeps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MultiplicativeUpdate(Solver):
    """Lee & Seung's multiplicative rule (2001), for comparison: simple, monotone and slow.

    Entries that are zero stay zero, so zeros of the start are lifted to a hundredth of its mean. For β-divergences it
    takes Févotte & Idier's exponents (2011), with which no step raises the objective.

    **Arguments:**

    - `inner`: updates of a factor in each step.
    - `rtol`: stop at this scaled KKT residual.
    - `max_steps`: stop after this many passes over the activations.
    - `extrapolate`: extrapolate between steps.
    """

    inner: int = dataclasses.field(default=1, metadata={"static": True})
    rtol: Scalar = 1e-4
    max_steps: int = dataclasses.field(default=500, metadata={"static": True})
    extrapolate: bool = dataclasses.field(default=False, metadata={"static": True})

    def begin(self, x: Columns, mean: Scalar | None = None) -> Columns:
        """Zeros become a hundredth of the mean: multiplied, a zero would stay one."""
        return jnp.where(x > 0, x, (jnp.mean(x) if mean is None else mean) / 100)

    def remember(self, x: Columns) -> Memory:
        """Nothing."""
        return ()

    def update(self, x: Columns, gram: Gram, cross: Columns, memory: Memory) -> tuple[Columns, Memory]:
        """`X ← X ∘ C / (G X)`."""
        return self.update_penalized(x, gram, cross, memory, 0.0)

    def update_penalized(
        self, x: Columns, gram: Gram, cross: Columns, memory: Memory, l1: Scalar
    ) -> tuple[Columns, Memory]:
        """`X ← X ∘ C / (G X + l1)`, the minimizer of a bound: `l1 x ≤ l1 (x²/x' + x') / 2` as `G` has one.

        Taken off the numerator instead, a penalty above C would make an entry 0, which it then stays.
        """
        tiny = jnp.finfo(x.dtype).tiny
        # Below 0 is C beside a dictionary of either sign alone; such an entry becomes 0 at once.
        above = jnp.maximum(cross, 0)
        for _ in range(self.inner):
            x = x * above / jnp.maximum(gram @ x + above - cross + l1, tiny)
        return x, memory

    @property
    def fits_entries(self) -> bool:
        """True."""
        return True

    def improve_items(self, side: Any, x: Any, product: Any) -> Any:
        """Févotte & Idier's updates."""
        return side.multiplied(x, product, self.inner)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SemiNMF(Solver):
    """Codes at least zero, dictionary free (Ding, Li & Jordan 2010): for activations with negative entries.

    **Arguments:**

    - `codes`: the rule for the codes; the dictionary is least squares.
    - `rtol`: stop at this scaled KKT residual.
    - `max_steps`: stop after this many passes over the activations.
    - `extrapolate`: extrapolate between steps, restart when the objective would rise.
    """

    codes: Solver = HALS()
    rtol: Scalar = 1e-4
    max_steps: int = dataclasses.field(default=500, metadata={"static": True})
    extrapolate: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def signed_dictionary(self) -> bool:
        """True."""
        return True

    @property
    def beside_terms(self) -> Settings:
        """The codes' rule's iterations, if it has such."""
        return dataclasses.replace(
            self.codes.beside_terms or Settings(),
            rtol=self.rtol, max_steps=self.max_steps, extrapolate=self.extrapolate, signed=True,
        )  # fmt: skip

    def remember(self, x: Columns) -> Memory:
        """What the codes' rule remembers."""
        return self.codes.remember(x)

    def update(self, x: Columns, gram: Gram, cross: Columns, memory: Memory) -> tuple[Columns, Memory]:
        """The codes' rule."""
        return self.codes.update(x, gram, cross, memory)

    def update_penalized(
        self, x: Columns, gram: Gram, cross: Columns, memory: Memory, l1: Scalar
    ) -> tuple[Columns, Memory]:
        """The codes' rule."""
        return self.codes.update_penalized(x, gram, cross, memory, l1)
