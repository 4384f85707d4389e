"""What can go wrong while a torch module is imported, each with the way out."""

from __future__ import annotations

from collections.abc import Sequence

_REMEDY = (
    "call the torch module from JAX instead of importing it (face_jax.bridges.TorchHead, slower), or cut "
    "the model at another layer, so that the part to be imported does without it"
)


class UnsupportedOperatorError(NotImplementedError):
    """A torch module calls operators that have no counterpart in the table.

    **Arguments:**

    - `missing`: each operator's name and the torch module that calls it.
    """

    def __init__(self, missing: Sequence[tuple[str, str]]) -> None:
        self.missing = tuple(missing)
        lines = "\n".join(f"  {operator}, called by {module}" for operator, module in self.missing)
        super().__init__(f"these torch operators have no JAX counterpart yet:\n{lines}\nTo go on, {_REMEDY}.")


class ExportError(ValueError):
    """torch could not turn the module into a graph whose batch size is free."""

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(
            f"torch.export could not trace {module} with a free batch size: {reason}\n"
            "Give examples with the batch along their first axes, write x.shape[0] or -1 where its forward has the "
            f"batch's size as a number, and keep Python decisions on values out of it. Or {_REMEDY}."
        )


class ImportMismatchError(ArithmeticError):
    """The imported network does not compute what the torch module computes.

    **Arguments:**

    - `what`: the quantity that disagrees.
    - `error`, `tolerance`: the largest difference over the largest magnitude, and what was allowed.
    - `batch`: how many random inputs were compared.
    """

    def __init__(self, what: str, error: float, tolerance: float, batch: int) -> None:
        self.error, self.tolerance = error, tolerance
        super().__init__(
            f"the imported network's {what} differ from torch's by {error:.3g} (largest difference over largest "
            f"magnitude, {batch} random inputs); {tolerance:.3g} is allowed. Pass a larger tolerance if that is good "
            f"enough, or {_REMEDY}."
        )
