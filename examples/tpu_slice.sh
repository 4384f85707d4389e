#!/bin/bash
# Concepts of activations on a TPU slice, one process a host; from a machine with gcloud:
#   TPU=my-slice ZONE=europe-west4-b ./tpu_slice.sh /mnt/activations/*.npy --rank 25 --out /mnt/concepts
# The clone of the repository lies in ~/face_jax on all hosts, and the files where all hosts see them (a mounted bucket).
set -euo pipefail
: "${TPU:?the name of the slice}" "${ZONE:?its zone}"
everywhere() { gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"; }

everywhere "cd face_jax && python3 -m venv .venv && .venv/bin/pip install --quiet 'jax[tpu]' ."
# JAX finds the other hosts by itself. Names and patterns are given as they are, each host sees the same files; what this
# machine's shell leaves of a pattern the program fills in there.
everywhere "cd face_jax && .venv/bin/python examples/many_hosts.py $(printf '%q ' "$@")"
