"""Does a run that is killed at a random moment end with the same bits when it's started again?

    python benchmarks/killed_runs.py [factorize] [pull] [explain] [--times 20]

Each time a process is ended at a random moment after it has begun, and started again with the same arguments:

- `factorize`: rows in blocks, with checkpoints every three steps; killed (SIGKILL). Needs the `checkpoint` extra.
- `pull`: activations of a torch network into a store; killed (SIGKILL).
- `explain`: an explanation with activations kept (`ArrayCache`) and in files (`memory=0`), saved into a folder that
  has an earlier one; ended by SIGKILL, SIGTERM and SIGINT in turn. Between the two runs the folder has to hold the
  earlier explanation or the new one, whole, and no file that is neither's.

The last answers are in README.md, section "killed_runs".
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

FACTORIZE = """
import sys
import numpy as np
import face_jax as fj
folder, name = sys.argv[1:]
fj.keep_compilations(f"{folder}/compilations")
solver = fj.ADMM(rtol=0.0, max_steps=150)
open(f"{folder}/{name}.begun", "w").close()
found = fj.factorize(fj.RowBlocks(f"{folder}/rows.npy", rows=4096), 10, solver=solver,
                     checkpoint=fj.Checkpoint(f"{folder}/{name}", steps=3))
np.savez(f"{folder}/{name}.npz", dictionary=found.dictionary, codes=np.asarray(found.codes))
"""
PULL = """
import sys, time
import numpy as np, torch
import face_jax as fj
from face_jax import bridges
folder, name = sys.argv[1:]
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                              torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
half = bridges.split(network, "1", preprocess=fj.Preprocess(size=32, resize=32))
def picture(number):
    time.sleep(0.001)
    if number % 97 == 5:
        raise OSError("unreadable")
    return np.random.default_rng(number).random((32, 32, 3)).astype(np.float32)
pictures = [(str(number), lambda number=number: picture(number)) for number in range(2000)]
open(f"{folder}/{name}.begun", "w").close()
found = bridges.pull(half, pictures, store=f"{folder}/{name}-store.npy", batch=16)
np.savez(f"{folder}/{name}.npz", activations=found.activations, names=found.names)
"""
EXPLAIN = """
import sys
import numpy as np, jax, jax.numpy as jnp
import face_jax as fj
from face_jax.heads import Affine
folder, name, key = sys.argv[1:]
fj.keep_compilations(f"{folder}/compilations")
drawn = np.random.default_rng(0)
directions = jnp.asarray(drawn.normal(size=(48, 64)).astype(np.float32) / 7)
def features(images):
    patches = images.reshape(len(images), 8, 4, 8, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(len(images), 8, 8, 48)
    return jax.nn.relu(patches @ directions)
kernel = drawn.normal(size=(64, 4)).astype(np.float32) / 100
kernel[:, 0] = np.abs(kernel[:, 0]) + 1
model = fj.SplitModel(features=features, head=Affine(jnp.asarray(kernel), jnp.zeros(4)), layer="patches", name="a",
    preprocess=fj.Preprocess(size=32, resize=32), classes=("a", "b", "c", "d"), fingerprint="patches")
images = drawn.integers(0, 255, (60, 40, 40, 3), dtype=np.uint8)
def explained(key):
    kept = fj.ArrayCache(f"{folder}/{name}-kept")
    found = fj.explain(model, images, 0, rank=4, key=key, faithfulness=None, memory=0, cache=kept,
                       progress=False)
    fj.save(found, f"{folder}/{name}")
if key == "check":
    print(fj.load(f"{folder}/{name}", model).provenance.settings.key[-1])
else:
    if key != "0":
        explained(0)
    open(f"{folder}/{name}.begun", "w").close()
    explained(int(key))
"""
FILES = {"explanation.json", "bank.safetensors", "activations.safetensors", "seconds.json"}


def started(script: str, folder: pathlib.Path, *given: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder), *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def begun(process: subprocess.Popen, file: pathlib.Path) -> None:
    while not file.exists() and process.poll() is None:
        time.sleep(0.01)


def finished(script: str, folder: pathlib.Path, *given: str) -> float:
    """Runs to the end; seconds since it began."""
    process = started(script, folder, *given)
    begun(process, folder / f"{given[0]}.begun")
    since = time.monotonic()
    error = process.communicate()[1].decode()
    if process.returncode:
        raise SystemExit(error)
    (folder / f"{given[0]}.begun").unlink()
    return time.monotonic() - since


def ended(script: str, folder: pathlib.Path, within: float, number: int, *given: str) -> None:
    """Ends a run at a random moment by a signal."""
    process = started(script, folder, *given)
    begun(process, folder / f"{given[0]}.begun")
    time.sleep(random.uniform(0, within))
    process.send_signal(number)
    process.communicate()
    (folder / f"{given[0]}.begun").unlink(missing_ok=True)


def ask_arrays(script: str, folder: pathlib.Path, times: int, told: str) -> None:
    """Whether what a run leaves in a file is the same to the bit."""
    finished(script, folder, "compiles")
    seconds = finished(script, folder, "whole")
    wanted, same = dict(np.load(folder / "whole.npz")), 0
    for number in range(times):
        name = f"run-{number}"
        ended(script, folder, seconds, signal.SIGKILL, name)
        kept = _kept(folder, name)
        finished(script, folder, name)
        found = np.load(folder / f"{name}.npz")
        same += all(np.array_equal(found[each], array) for each, array in wanted.items())
        print(f"{told} killed {kept}: {same} of {number + 1} runs ended with the same bits", flush=True)


def _kept(folder: pathlib.Path, name: str) -> str:
    if (folder / name).is_dir():
        steps = sorted(each.name for each in (folder / name).glob("step-*"))
        return f"with {int(steps[-1].removeprefix('step-')) if steps else 0} of 150 steps kept"
    note = list(folder.glob(f"{name}-store.npy*json"))
    return f"with {note[0].read_text().count(chr(34)) if note else 0} words in the store's note" if note else "at once"


def ask_explanations(folder: pathlib.Path, times: int) -> None:
    """Whether files are the same to the byte, and whole at all times."""

    def files(name: str) -> dict[str, bytes]:
        return {each: (folder / name / each).read_bytes() for each in FILES - {"seconds.json"}}

    finished(EXPLAIN, folder, "compiles", "1")
    seconds = finished(EXPLAIN, folder, "whole", "1")
    wanted, same, whole, old = files("whole"), 0, 0, 0
    for number in range(times):
        name, way = f"run-{number}", (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3]
        ended(EXPLAIN, folder, seconds, way, name, "1")
        check = started(EXPLAIN, folder, name, "check")
        said = check.communicate()[0].decode().strip()
        strange = {each.name for each in (folder / name).iterdir()} - FILES
        if way != signal.SIGKILL:
            strange -= {".face-jax-lock"}
        whole += check.returncode == 0 and (way == signal.SIGKILL or not strange)
        old += said == "0"
        finished(EXPLAIN, folder, name, "1")
        same += files(name) == wanted and {each.name for each in (folder / name).iterdir()} == FILES
        print(
            f"explain ended by {way.name}: what was there is whole in {whole} ({old} times the old one), and "
            f"{same} of {number + 1} ended with the same bytes",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="*", choices=["factorize", "pull", "explain", []])
    parser.add_argument("--times", type=int, default=20)
    chosen = parser.parse_args()
    random.seed(0)
    for question in chosen.question or ("factorize", "pull", "explain"):
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            drawn = np.random.default_rng(0)
            if question == "factorize":
                rows = (drawn.gamma(0.5, 1, (20_000, 10)) @ drawn.gamma(0.5, 1, (10, 64))).astype("float32")
                np.save(folder / "rows.npy", rows)
            if question == "explain":
                ask_explanations(folder, chosen.times)
            else:
                ask_arrays(FACTORIZE if question == "factorize" else PULL, folder, chosen.times, question)
