"""Parts of long work that are kept as they are finished, by a digest of all that they depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..blocks.room import filed
from ..blocks.row_blocks import RowBlocks
from ..support.arguments import path_of
from ..support.cache import ArrayCache, no_cache
from ..support.contents import package_digest
from .checkpoint import digest_of_tree
from .results import Result
from .solution import Solution, Stats
from .solvers.stream import Stream
from .solvers.streamed_facts import look

_NO_LIMIT = 2**62


@dataclasses.dataclass(frozen=True)
class Factors:
    """Codes and a dictionary.

    **Arguments:**

    - `codes`, `dictionary`: arrays; codes of rows in blocks may lie in a file.
    """

    codes: Any
    dictionary: Any


@dataclasses.dataclass(frozen=True)
class Keep:
    """Keeps what was finished of some work, or nothing.

    **Arguments:**

    - `cache`: keeps arrays by what they depend on.
    - `depends_on`: what all parts depend on.
    """

    cache: Callable[..., Any] = no_cache
    depends_on: tuple[str, ...] = ()

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self.cache is not no_cache

    def of(self, rows: Any, *settings: Any) -> Keep:
        """The same for work on some rows, or several, with some settings: pytrees of numbers."""
        if not self.keeps:
            return self
        numbers = [_digest_of(each) for each in (rows if isinstance(rows, list) else [rows])]
        said = [package_digest().hex(), jax.default_backend(), *numbers, *map(digest_of_tree, settings)]
        return dataclasses.replace(self, depends_on=(*self.depends_on, *said))

    def part(self, name: str) -> Keep:
        """The same for a part of the work."""
        return dataclasses.replace(self, depends_on=(*self.depends_on, name))

    def factors(self, names: Sequence[Any], fit: Callable[[], Factors]) -> Factors:
        """What was fitted, or is now."""
        if not self.keeps:
            return fit()

        def arrays() -> dict[str, np.ndarray]:
            found = fit()
            return {"codes": np.asarray(found.codes), "dictionary": np.asarray(found.dictionary)}

        found = self.cache([*self.depends_on, "factors", *map(repr, names)], arrays)
        return Factors(found["codes"], jnp.asarray(found["dictionary"]))

    def arrays(self, name: str, make: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
        """Arrays of one shape that were made, or are now."""
        found = self.cache([*self.depends_on, name], lambda: {"all": np.stack(make())})["all"]
        return list(found)

    def solution(self, names: Sequence[Any], solve: Callable[[], Solution]) -> Solution:
        """A solution that was found, or is now."""
        if not self.keeps:
            return solve()

        def arrays() -> dict[str, np.ndarray]:
            return {str(at): np.asarray(leaf) for at, leaf in enumerate(jax.tree.leaves(solve()))}

        found = self.cache([*self.depends_on, "solution", *map(repr, names)], arrays)
        structure = jax.tree.structure(_any_solution())
        # Codes that are many stay in their file.
        leaves = [found[str(at)] for at in range(structure.num_leaves)]
        return jax.tree.unflatten(structure, [leaf if filed(leaf) else jnp.asarray(leaf) for leaf in leaves])


def kept_in(checkpoint: Any, name: str = "checkpoint") -> Keep:
    """What keeps parts of work in a folder; nothing if None."""
    if checkpoint is None:
        return Keep()
    return Keep(ArrayCache(path_of(name, checkpoint, "a folder"), limit=_NO_LIMIT))


def _digest_of(rows: Any) -> str:
    if isinstance(rows, RowBlocks):
        return f"{rows.shape} {rows.dtype} {look(Stream.of(rows), signed=True, digest=True).digest}"
    return digest_of_tree(rows)


def _any_solution() -> Solution:
    none, count, some = jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros(1)
    stats = Stats(
        objective=some, residual=some, steps=count, restarts=count, final_objective=none, final_residual=none,
        dead=count, duplicated=count,
    )  # fmt: skip
    return Solution(some[None], some[None], some, Result(count), stats)
