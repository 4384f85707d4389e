"""How does a factorization scale: rows on disk, from 10⁴ to 10⁷, in how much memory and how fast?

    python benchmarks/scaling.py rows --folder /somewhere [--least 10000] [--most 1000000] [--codes kept again]
                                  [--picture FILE]

Rows are generated on disk and removed afterwards: 10⁷ × 512 float32 take 20 GB. Each size runs in a process of its own,
whose anonymous memory is looked at every 20 ms; pages of files, which the system takes back when it wants, don't count.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np

CHANNELS, RANK, STEPS = 512, 25, 5


def anonymous() -> float:
    """This process's anonymous memory, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def generate(path: pathlib.Path, rows: int) -> None:
    random = np.random.default_rng(0)
    concepts = random.gamma(0.5, 1, (RANK, CHANNELS)).astype(np.float32)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, CHANNELS))
    for start in range(0, rows, 16_384):
        stop = min(rows, start + 16_384)
        codes = random.gamma(0.5, 1, (stop - start, RANK)).astype(np.float32)
        out[start:stop] = codes @ concepts + random.random((stop - start, CHANNELS), np.float32)
    out.flush()


def read_alone(path: pathlib.Path) -> float:
    """Seconds to read a file from where it is: what the system keeps of it is given back first."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        buffer, begun = bytearray(32 * 2**20), time.perf_counter()
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begun


def one(path: pathlib.Path, scratch: pathlib.Path, codes: bool | None) -> dict:
    """A factorization of a file: its memory, and seconds of a step."""
    import jax

    import face_jax as fj
    from face_jax.nmf.solvers import streamed_loop

    rows = fj.RowBlocks(path, scratch=scratch)
    peak, going, seconds = [0.0], [True], []

    def watch() -> None:
        while going[0]:
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.02)

    step = streamed_loop._step

    def timed(*given):
        begun = time.perf_counter()
        found = jax.block_until_ready(step(*given))
        if given[0].shape == rows.shape:
            seconds.append(time.perf_counter() - begun)
        return found

    streamed_loop._step = timed
    threading.Thread(target=watch, daemon=True).start()
    solver = fj.ADMM(rtol=0.0, max_steps=STEPS)
    fj.factorize(rows, RANK, solver=solver, start=fj.MiniBatch(), codes=codes)
    going[0] = False
    # The first step compiles.
    return {"peak": peak[0], "step": float(np.median(seconds[1:]))}


def in_memory(rows: int) -> float:
    """Seconds of a step in memory, of as many rows as fit there comfortably, for this many."""
    import jax
    import jax.numpy as jnp

    import face_jax as fj

    some = min(rows, 262_144)
    random = np.random.default_rng(0)
    activations = jnp.asarray(random.random((some, CHANNELS), np.float32))
    start = fj.Given(*(jnp.asarray(random.random(size, np.float32)) for size in ((some, RANK), (RANK, CHANNELS))))
    times = []
    for steps in (2, 12):
        solver = fj.ADMM(rtol=0.0, max_steps=steps)
        for _ in range(2):  # the first one compiles
            begun = time.perf_counter()
            jax.block_until_ready(fj.factorize(activations, RANK, solver=solver, start=start))
        times.append(time.perf_counter() - begun)
    return (times[1] - times[0]) / 10 * rows / some


def rows_table(folder: pathlib.Path, least: int, most: int, picture: pathlib.Path | None, kinds: list[str]) -> None:
    print("| rows | on disk, GiB | codes | memory, MiB | a step, s | reading alone, s | in memory, s | share | load |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows, lines = least, []
    while rows <= most:
        path = folder / "face-jax-rows.npy"
        try:
            generate(path, rows)
            alone = read_alone(path)
            memory = float(_apart("memory", str(rows)))
            for codes in [{"kept": None, "again": False}[kind] for kind in kinds]:
                found = json.loads(_apart("one", str(path), str(folder), json.dumps(codes)))
                share = max(alone, memory) / found["step"]
                lines.append({"rows": rows, "codes": codes, "alone": alone, "memory": memory, **found})
                print(
                    f"| {rows:,} | {path.stat().st_size / 2**30:.2f} | {'kept' if codes is None else 'made again'} | "
                    f"{found['peak']:.0f} | {found['step']:.3f} | {alone:.3f} | {memory:.3f} | {share:.2f} | "
                    f"{os.getloadavg()[0]:.1f} |",
                    flush=True,
                )
        finally:
            path.unlink(missing_ok=True)
        rows *= 10
    if picture is not None:
        draw(lines, picture)


def draw(lines: list[dict], file: pathlib.Path) -> None:
    """Seconds of a step and memory, by rows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, memory) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for codes, name in ((None, "codes kept"), (False, "codes made again")):
        mine = [line for line in lines if line["codes"] is codes]
        if not mine:
            continue
        times.loglog([line["rows"] for line in mine], [line["step"] for line in mine], marker="o", label=name)
        memory.loglog([line["rows"] for line in mine], [line["peak"] for line in mine], marker="o", label=name)
    mine = [line for line in lines if line["codes"] is None]
    counts = np.asarray([line["rows"] for line in mine])
    times.loglog(counts, [line["alone"] for line in mine], "k:", label="reading alone")
    times.loglog(counts, [line["memory"] for line in mine], "k--", label="in memory")
    memory.loglog(counts, counts * CHANNELS * 4 / 2**20, "k:", label="the activations")
    memory.axhline(1.5 * 1024, color="0.6", label="1.5 GiB")
    times.set(xlabel="rows", ylabel="seconds a step")
    memory.set(xlabel="rows", ylabel="anonymous memory, MiB")
    for axes in (times, memory):
        axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def _apart(*given: str) -> str:
    done = subprocess.run([sys.executable, __file__, *given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(one(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), json.loads(sys.argv[4]))))
    elif sys.argv[1:2] == ["memory"]:
        print(in_memory(int(sys.argv[2])))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("question", choices=["rows"])
        parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp"))
        parser.add_argument("--least", type=int, default=10_000)
        parser.add_argument("--most", type=int, default=1_000_000)
        parser.add_argument("--picture", type=pathlib.Path)
        parser.add_argument("--codes", nargs="+", choices=["kept", "again"], default=["kept", "again"])
        chosen = parser.parse_args()
        rows_table(chosen.folder, chosen.least, chosen.most, chosen.picture, chosen.codes)
