"""How the tests' programs are compiled: most run once on small matrices, so that nearly all time would be XLA's."""

# Without LLVM's optimizations, and by the emitters of single operations: those of fusions take three times as long.
# What is given in XLA_FLAGS comes behind, and prevails.
QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
