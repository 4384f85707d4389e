"""Does a factorization that is killed at a random moment end with the same bits when it's started again?

    python benchmarks/killed_runs.py --times 20

Each time a process factorizes rows in blocks with checkpoints, is killed (SIGKILL) at a random moment after it has
begun, and is started again with the same arguments. Needs the `checkpoint` extra.
"""

import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

SCRIPT = """
import sys
import numpy as np
import face_jax as fj
fj.keep_compilations(sys.argv[4])
solver = fj.ADMM(rtol=0.0, max_steps=150)
open(sys.argv[3], "w").close()
found = fj.factorize(fj.RowBlocks(sys.argv[1], rows=4096), 10, solver=solver,
                     checkpoint=fj.Checkpoint(sys.argv[2], steps=3))
np.savez(sys.argv[2] + ".npz", dictionary=found.dictionary, codes=np.asarray(found.codes))
"""


def started(folder: pathlib.Path, name: str) -> subprocess.Popen:
    given = [folder / "rows.npy", folder / name, folder / f"{name}.begun", folder / "compilations"]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, given)], stderr=subprocess.PIPE)


def finished(folder: pathlib.Path, name: str) -> float:
    process = started(folder, name)
    while not (folder / f"{name}.begun").exists() and process.poll() is None:
        time.sleep(0.01)
    begun = time.monotonic()
    error = process.communicate()[1].decode()
    if process.returncode:
        raise SystemExit(error)
    return time.monotonic() - begun


def killed(folder: pathlib.Path, name: str, within: float) -> int:
    """Kills a run at a random moment; how many steps were kept."""
    process = started(folder, name)
    while not (folder / f"{name}.begun").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, within))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder / f"{name}.begun").unlink()
    steps = sorted(each.name for each in (folder / name).glob("step-*")) if (folder / name).is_dir() else []
    return int(steps[-1].removeprefix("step-")) if steps else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    random.seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        drawn = np.random.default_rng(0)
        np.save(
            folder / "rows.npy", (drawn.gamma(0.5, 1, (20_000, 10)) @ drawn.gamma(0.5, 1, (10, 64))).astype("float32")
        )
        finished(folder, "compiles")
        seconds = finished(folder, "whole")
        wanted = np.load(folder / "whole.npz")
        same, kept = 0, []
        for number in range(times):
            kept.append(killed(folder, f"run-{number}", seconds))
            finished(folder, f"run-{number}")
            found = np.load(folder / f"run-{number}.npz")
            same += all(np.array_equal(found[name], wanted[name]) for name in ("dictionary", "codes"))
            print(
                f"killed with {kept[-1]} of 150 steps kept: {same} of {number + 1} runs ended with the same bits",
                flush=True,
            )
