"""Threads that wait quietly: torch's small operations alternate with JAX's here, often on a busy machine."""

import os

# Read when torch is first imported, so it must stand here and not in a fixture.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
