"""Strict mode for every test: float64 on, no silent promotion of ranks or dtypes, compilations cheap and kept."""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Torch's idle threads would otherwise spin on the cores that JAX computes on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jax
import pytest

# Most of the suite's time would be LLVM's, for programs that run once on small matrices. XLA reads its flags when the
# first device is asked for; they are put back, so that the command and the notebooks are compiled as for their users.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XLA_FLAGS", f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}")
    jax.devices()

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def _forget_compilations():
    """Compiled code of a file's tests is let go behind it: each piece is mapped into memory, and maps are limited."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of real weights and photographs that is kept beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs real weights and photographs, which are kept beside the checkout and are not here")
    return SHARED
