#!/bin/bash
# Concepts of activations on many hosts with GPUs, one process a GPU:
#   sbatch --nodes=4 slurm.sh activations/*.npy --rank 25 --out concepts
#SBATCH --job-name=concepts
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# Where face_jax is installed: an environment that all nodes see. JAX takes the other processes' addresses from Slurm.
source "${VENV:-.venv}/bin/activate"
# Newer versions' srun doesn't take the number of processors from the job.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" python "${SCRIPT:-examples/many_hosts.py}" "$@"
