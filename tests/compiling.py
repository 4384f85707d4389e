"""How the tests' programs are compiled: most run once on small matrices, so that nearly all time would be XLA's."""

import os

import jax

# Without LLVM's optimizations, and by the emitters of single operations: those of fusions take three times as long.
# What is given in XLA_FLAGS comes behind, and prevails.
QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)


def compiled_as_here(**more: str) -> dict[str, str]:
    """The environment of a process that compiles as this one does and shares what is compiled, and what is given."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **more,
    }
