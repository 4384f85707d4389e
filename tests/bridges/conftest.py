"""Threads that wait quietly: torch's small operations alternate with JAX's here, often on a busy machine."""

import os

# Read when torch is first imported, so it must stand here and not in a fixture.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test asks the Hugging Face hub for anything; also read at import.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """The same weights whichever tests ran before: torch's modules start from a global state."""
    torch.manual_seed(0)
