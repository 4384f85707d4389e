"""Other random data for the tests' own draws: `FACE_JAX_TEST_SEED=1` adds 1 to every seed that a test file gives.

What the package draws is left alone. Tests should hold for other data too; where one is about particular data, it takes
them from `numpy.random.Generator(numpy.random.PCG64(seed))`, which stays, and says why.
"""

from __future__ import annotations

import functools
import pathlib
import sys

import jax
import numpy as np

HERE = str(pathlib.Path(__file__).resolve().parent)


def by(number: int) -> None:
    """Moves the seeds of NumPy's, JAX's and torch's generators that are made in test files."""
    if not number:
        return

    def moved(function):
        @functools.wraps(function)
        def moving(*arguments, **options):
            if sys._getframe(1).f_code.co_filename.startswith(HERE):
                at = len(arguments) > 1 and not isinstance(arguments[0], int)
                if arguments and isinstance(arguments[at], int):
                    arguments = (*arguments[:at], arguments[at] + number, *arguments[at + 1 :])
            return function(*arguments, **options)

        return moving

    np.random.default_rng = moved(np.random.default_rng)
    jax.random.key = moved(jax.random.key)
    try:
        import torch
    except ImportError:
        return

    class Generator(torch.Generator):
        """A generator whose seed moves."""

        def manual_seed(self, seed):
            return super().manual_seed(seed + number)

    torch.manual_seed = moved(torch.manual_seed)
    torch.Generator = Generator
