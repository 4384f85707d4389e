"""A process's own peak of memory, from where one starts to count; and: how does an explanation's grow? Linux only.

    python benchmarks/peak_memory.py [--photographs 500 5000] [--memory 0.05]

What `getrusage` tells is no use for a process started by a large one: it counts the parent's peak, too.

Run by itself, each answer is a process of its own that explains so many small photographs: pieces of 64 × 64 pixels of
those in a folder (`--data`), written to files. The network is one layer of patches in JAX, 8 × 8 places of 512
channels, so that activations are what takes memory. The last answers are in README.md, section "peak_memory".
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

DATA = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "data"
CHANNELS, RANK = 512, 10


def forget_peak() -> None:
    """The peak is counted from here."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory that was resident since, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def anonymous_mib() -> float:
    """Memory that is no page of a file, now, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def pieces(data: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Small photographs: pieces of others, no two alike."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    files = sorted(file for file in data.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))[:200]
    if not files:
        raise SystemExit(f"no photographs in {data}; name a folder with some: --data FOLDER")
    for number in range(count):
        with Image.open(files[number % len(files)]) as opened:
            whole = opened.convert("RGB")
        side = int(min(whole.size) * random.uniform(0.3, 0.9))
        left, top = (int(random.integers(0, length - side + 1)) for length in whole.size)
        whole.resize((64, 64), box=(left, top, left + side, top + side)).save(folder / f"{number:05}.png")


def explained(folder: pathlib.Path, memory: float | None) -> dict:
    """An explanation of the photographs in a folder: what it took."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import face_jax as fj
    from face_jax.heads import Affine

    random = np.random.default_rng(0)
    directions = jnp.asarray(random.normal(size=(48, CHANNELS)).astype(np.float32) / 7)

    def features(images: jax.Array) -> jax.Array:
        count = len(images)
        patches = images.reshape(count, 8, 4, 8, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(count, 8, 8, 48)
        return jax.nn.relu(patches @ directions)

    kernel = random.normal(size=(CHANNELS, 10)).astype(np.float32) / 100
    kernel[:, 0] = np.abs(kernel[:, 0]) + 1  # a class that nearly all are of
    model = fj.SplitModel(
        features=features, head=Affine(jnp.asarray(kernel), jnp.zeros(10)), layer="patches", name="patches",
        preprocess=fj.Preprocess(size=32, resize=32), classes=tuple(f"class {number}" for number in range(10)),
        fingerprint="patches",
    )  # fmt: skip
    peak, going = [0.0], [True]

    def watch() -> None:
        while going[0]:
            peak[0] = max(peak[0], anonymous_mib())
            time.sleep(0.02)

    before = anonymous_mib()
    threading.Thread(target=watch, daemon=True).start()
    begun = time.perf_counter()
    found = fj.explain(model, folder, 0, rank=RANK, memory=memory, batch=64, key=0, progress=False)
    going[0] = False
    return {
        "before": before, "peak": peak[0], "seconds": time.perf_counter() - begun, "crops": len(found.crops),
        "maps": found.pictures.collected.maps.nbytes / 2**20,
        "rows": found.pictures.crop_activations.nbytes / 2**20,
        "said": [note for note in found.notes if "kept in files" in note],
    }  # fmt: skip


def table(counts: list[int], memory: float, data: pathlib.Path) -> None:
    print("| photographs | crops | activations, MiB | where | peak, MiB | before, MiB | s |")
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            pieces(data, pathlib.Path(name), count)
            for limit in (None, memory):
                done = subprocess.run(
                    [sys.executable, __file__, "explained", name, json.dumps(limit)],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                if done.returncode:
                    raise SystemExit(done.stderr)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"| {count:,} | {found['crops']:,} | {found['maps']:.0f} + {found['rows']:.0f} | "
                    f"{'files' if found['said'] else 'memory'} | {found['peak']:.0f} | {found['before']:.0f} | "
                    f"{found['seconds']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["explained"]:
        print(json.dumps(explained(pathlib.Path(sys.argv[2]), json.loads(sys.argv[3]))))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--photographs", type=int, nargs="+", default=[500, 5000])
        parser.add_argument("--memory", type=float, default=0.02, help="GiB that activations may take in files' rows")
        parser.add_argument("--data", type=pathlib.Path, default=DATA)
        chosen = parser.parse_args()
        table(chosen.photographs, chosen.memory, chosen.data)
