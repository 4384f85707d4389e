"""Concepts of activations that lie on many hosts: each process reads its own files, no process has all rows.

    python many_hosts.py activations/*.npy --rank 25 --out concepts                       one process, all its devices
    sbatch slurm.sh activations/*.npy --rank 25 --out concepts                            a Slurm cluster: slurm.sh
    ./tpu_slice.sh activations/*.npy --rank 25 --out concepts                             a TPU slice: tpu_slice.sh

Files are `row × channel`, as `np.save` writes them. Patterns that no shell has filled in, because only the other hosts
see the files, are filled in here. In the order of their names the first process takes the first files, and so on, so
that there have to be at least as many files as processes. With files of equally many rows the result is one process's
to rounding; otherwise it starts from other rows. Under Slurm, on TPU slices and with Open MPI each process finds the
others by itself; elsewhere say where the first one listens, and which one this is:

    python many_hosts.py … --coordinator HOST:PORT --processes 4 --process 0

`dictionary.npy` has the concepts; `codes-of-NAME.npy` the codes of a file's rows, written by whoever read it. With
`--checkpoint FOLDER`, a folder that all hosts see, a run that was killed goes on where it was when it's started again.
"""

from __future__ import annotations

import argparse
import glob
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import face_jax as fj


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="their names, or patterns such as 'activations/*.npy'")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--rtol", type=float, default=1e-4, help="the scaled KKT residual to stop at")
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--checkpoint", type=pathlib.Path, help="a folder that all hosts see, to go on from")
    parser.add_argument("--checkpoint-steps", type=int, default=20, help="steps from one state kept to the next")
    parser.add_argument("--coordinator", help="HOST:PORT of the first process, where it isn't found by itself")
    parser.add_argument("--processes", type=int, help="how many there are")
    parser.add_argument("--process", type=int, help="which one this is, from 0")
    parser.add_argument("--alone", action="store_true", help="one process, without looking for others")
    return parser.parse_args()


def matching(names: list[str]) -> list[pathlib.Path]:
    """The files of these names and patterns, in order."""
    found = []
    for name in names:
        files = [name] if pathlib.Path(name).exists() else glob.glob(name, recursive=True)
        if not files:
            raise SystemExit(f"no file is called {name}; give names of files, or a pattern of some")
        found += map(pathlib.Path, files)
    return sorted(found)


def join(options: argparse.Namespace) -> None:
    """Find the other processes, if there are any."""
    if options.alone:
        return
    if options.coordinator:
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
        return
    try:
        jax.distributed.initialize()
    except ValueError:
        # No cluster that JAX knows.
        print("One process: neither Slurm, nor a TPU slice, nor Open MPI, and no --coordinator.")


def spread(parts: list[np.ndarray]) -> jax.Array:
    """The rows of all processes as one array, a part on each device; parts are made even by rows of zeros.

    Zeros have codes of zero and change neither dictionary nor objective. What is read of the files at a time is one
    device's part.
    """
    devices, channels = jax.local_device_count(), parts[0].shape[1]
    starts = np.cumsum([0, *map(len, parts)])
    most = int(np.max(multihost_utils.process_allgather(np.asarray(starts[-1]))))
    even = -(-most // devices) * devices
    first = even * jax.process_index()

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop = index[0].start or 0, index[0].stop or even * jax.process_count()
        filled = np.zeros((stop - start, channels), np.result_type(*parts))
        for begin, rows in zip(starts + first - start, parts, strict=False):
            here = slice(max(0, begin), max(0, begin + len(rows)))
            found = rows[max(0, -begin) : max(0, len(filled) - begin)]
            filled[here][: len(found)] = found
        return filled

    sharding = NamedSharding(Mesh(np.asarray(jax.devices()), ("row",)), PartitionSpec("row"))
    return jax.make_array_from_callback((even * jax.process_count(), channels), sharding, part)


def own_rows(array: jax.Array) -> np.ndarray:
    """The rows of an array that lie on this process's devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def main() -> None:
    options = arguments()
    join(options)
    files = matching(options.files)
    if len(files) < jax.process_count():
        raise SystemExit(f"{len(files)} files are too few for {jax.process_count()} processes; give one for each")
    bounds = [len(files) * process // jax.process_count() for process in range(jax.process_count() + 1)]
    mine = files[bounds[jax.process_index()] : bounds[jax.process_index() + 1]]
    parts = [np.load(file, mmap_mode="r") for file in mine]

    activations = spread(parts)
    solver = fj.ADMM(rtol=options.rtol, max_steps=options.max_steps)
    kept = None if options.checkpoint is None else fj.Checkpoint(options.checkpoint, steps=options.checkpoint_steps)
    solution = fj.factorize(activations, options.rank, solver=solver, checkpoint=kept)
    codes = own_rows(fj.encode(activations, solution.dictionary))

    options.out.mkdir(parents=True, exist_ok=True)
    first = 0
    for file, part in zip(mine, parts, strict=True):
        np.save(options.out / f"codes-of-{file.stem}.npy", codes[first : first + len(part)])
        first += len(part)
    if jax.process_index() == 0:
        np.save(options.out / "dictionary.npy", np.asarray(solution.dictionary))
        print(
            f"{activations.shape[0]} rows on {jax.device_count()} devices of {jax.process_count()} processes: "
            f"objective {float(solution.stats.final_objective):.15g} after {int(solution.stats.steps)} steps. "
            + solution.result.message
        )


if __name__ == "__main__":
    main()
