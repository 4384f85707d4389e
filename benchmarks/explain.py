"""How long does a whole explanation take beside craft-xai's, with the backbone's own time taken out?

    python benchmarks/explain.py               # 200 photographs fitted, 25 concepts, crops on a grid, importance
    python benchmarks/explain.py importance    # importance alone, at equal numbers of passes through the head

The peer is no dependency of the project: `pip install --no-deps craft-xai==0.0.3`. It imports TensorFlow for a sampler
that nothing here uses; an empty module stands in for it during that import, and nothing else of it is changed. The
photographs have to lie in a folder named by a manifest (`--data`); without it the script says so and ends.

Both use the same EfficientNet-Lite0 in torch, cut at the same layer, in one process, in turns, on all cores. The peer
gets the photographs that ours fits, as a user would prepare them; ours gets a quarter more, which it holds out. The
peer's grid (64 pixels of 224, every 51) leaves 7 pixels at two edges in no crop; ours reaches the edges with as many
crops. A hook on the backbone counts its own seconds in both. Ours does more in its time: it looks which photographs are
predicted as the class, scores the explanation on those held out, and compares it with controls.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import os
import pathlib
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

# Read when torch is first imported: its idle threads would spin on the cores that JAX computes on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision

import face_jax as fj
from face_jax import bridges
from face_jax.heads import Affine
from face_jax.importance import Sobol, contributions, exact_total_sobol, total_sobol
from face_jax.pictures.crop_rules import GridCrops
from face_jax.support.progress import Stopwatch

DATA = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "data"
RANK, PATCH, BATCH, DESIGNS = 25, 64, 64, 32
FITTED = 20
# The peer's step is int(0.8 × 64) = 51 pixels: 4 × 4 crops of 224 pixels. As many of ours cover the whole photograph.
GRID = GridCrops(size=PATCH / 224, overlap=10 / PATCH)


class Backbone:
    """The first part of the network, with the seconds that torch spends in it.

    Behind `averaged`, its maps are averaged over places, which is the peer's other way to use it.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.seconds, self._begun = module.eval(), 0.0, 0.0
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        self._begun = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._begun

    def averaged(self, images: torch.Tensor) -> torch.Tensor:
        return self.module(images).mean((2, 3))


@contextlib.contextmanager
def no_tensorflow() -> Iterator[None]:
    """An empty TensorFlow for the one import of the peer's that asks for it."""
    if "tensorflow" in sys.modules:
        yield
        return
    sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


def peer_class(stopwatch: Callable[[], Stopwatch]) -> Any:
    """The peer, whose factorization tells the stopwatch what it takes."""
    try:
        with no_tensorflow():
            from craft import craft_torch
    except ImportError as error:
        raise SystemExit(f"{error}; the peer needs: pip install --no-deps craft-xai==0.0.3") from error
    from sklearn.decomposition import NMF

    class Timed(NMF):
        """scikit-learn's factorization, as the peer calls it, timed."""

        def fit_transform(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Any:
            with stopwatch()("factorization"):
                return super().fit_transform(X, y, W, H)

        def transform(self, X: Any) -> Any:
            with stopwatch()("codes of whole photographs"):
                return super().transform(X)

    craft_torch.NMF = Timed
    return craft_torch.Craft


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a run took: in all, in the backbone, and by stages (which hold the backbone's time where it is in them)."""

    total: float
    backbone: float
    stages: dict[str, float]

    @property
    def outside(self) -> float:
        return self.total - self.backbone


class Bench:
    """One network, one set of photographs, and both ways to explain them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.target = arguments.target
        loaded = bridges.load("efficientnet_lite0")
        self.preprocess = loaded.preprocess
        place = bridges.suggest_layer(bridges.layers(loaded.model, size=224), classes=1000)
        self.model = loaded.split(place.name)
        assert isinstance(self.model.features, bridges.TorchFeatures)
        assert isinstance(self.model.head, Affine)
        self.head = self.model.head
        self.backbone = Backbone(self.model.features.module)
        self.linear = torch.nn.Linear(*self.head.kernel.shape)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(np.array(self.head.kernel.T)))
            self.linear.bias.copy_(torch.from_numpy(np.array(self.head.bias)))
        transforms = torchvision.transforms
        self.prepare = transforms.Compose(
            [
                transforms.Resize(self.preprocess.resize, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(self.preprocess.size),
                transforms.ToTensor(),
                transforms.Normalize(self.preprocess.mean, self.preprocess.std),
            ]
        )
        self.watch = Stopwatch()
        self.peer = peer_class(lambda: self.watch)
        self.files = self.of_class(arguments.data, round(arguments.images / 0.8))
        if len(self.files) < round(arguments.images / 0.8):
            print(f"only {len(self.files)} photographs are predicted as class {self.target}")

    def of_class(self, data: pathlib.Path, count: int) -> list[pathlib.Path]:
        """Photographs of the class that the network puts in it, which is decided before anything is timed."""
        if not (data / "manifest.csv").is_file():
            raise SystemExit(
                f"there is no {data / 'manifest.csv'}: the photographs are no part of the project (--data)"
            )
        rows = csv.DictReader((data / "manifest.csv").open())
        found: list[pathlib.Path] = []
        for row in rows:
            if row["imagenet_index"] != str(self.target) or not row["file"].startswith("images/imagenet/"):
                continue
            with torch.no_grad():
                logits = self.linear(self.backbone.averaged(self.read([data / row["file"]])))
            if int(logits.argmax()) == self.target:
                found.append(data / row["file"])
            if len(found) == count:
                break
        return found

    def read(self, files: list[pathlib.Path]) -> torch.Tensor:
        from PIL import Image

        tensors = []
        for file in files:
            with Image.open(file) as picture:
                tensors.append(self.prepare(picture.convert("RGB")))
        return torch.stack(tensors)

    def craft(self, *, averaged: bool = False) -> Any:
        head = self.linear if averaged else lambda maps: self.linear(maps.mean((2, 3)))
        features = self.backbone.averaged if averaged else self.backbone.module
        return self.peer(features, head, RANK, batch_size=BATCH, patch_size=PATCH, device="cpu")

    def ours(self) -> tuple[Timing, fj.Explanation]:
        self.backbone.seconds, begun = 0.0, time.perf_counter()
        explanation = fj.explain(
            self.model, self.files, self.target, rank=RANK, crops=GRID, faithfulness=None, batch=BATCH
        )
        total = time.perf_counter() - begun
        return Timing(total, self.backbone.seconds, dict(explanation.provenance.seconds)), explanation

    def theirs(self, files: list[pathlib.Path]) -> tuple[Timing, int, np.ndarray]:
        """Its timing, its number of crops and its importances."""
        self.watch, self.backbone.seconds, begun = Stopwatch(), 0.0, time.perf_counter()
        craft = self.craft()
        with self.watch("reading and resizing pictures"):
            images = self.read(files)
        with self.watch("crops, their resizing, the network"):
            crops, _, _ = craft.fit(images)
        with self.watch("importance and the network"):
            importance = craft.estimate_importance(images, self.target, nb_design=DESIGNS)
        total = time.perf_counter() - begun
        return Timing(total, self.backbone.seconds, dict(self.watch.seconds)), len(crops), importance


def whole(bench: Bench, repeats: int) -> None:
    """The first run of ours compiles; then both take turns."""
    first, explanation = bench.ours()
    fitted = [bench.files[number] for number in explanation.pictures.fitted]
    ours, theirs, importance = [], [], np.zeros(RANK)
    crops = 0
    for _ in range(repeats):
        timing, crops, importance = bench.theirs(fitted)
        theirs.append(timing)
        timing, explanation = bench.ours()
        ours.append(timing)
    print(
        f"class {bench.target}: {len(fitted)} photographs fitted by both (ours reads {len(bench.files)}); "
        f"crops: {crops} of theirs, {len(explanation.crops)} of ours; {RANK} concepts"
    )
    print(
        f"sums of importances: {importance.sum():.2f} of theirs, "
        f"{explanation.importance.sobol.per_class.sum():.2f} of ours"
    )
    print("\n| | craft-xai, s | ours, s | ratio | ours, first call, s |")
    print("|---|---|---|---|---|")
    for name, value in (
        ("all", lambda timing: timing.total),
        ("the backbone's forward passes", lambda timing: timing.backbone),
        ("all but these", lambda timing: timing.outside),
    ):
        middle, other = (statistics.median(map(value, timings)) for timings in (theirs, ours))
        print(f"| {name} | {middle:.2f} | {other:.2f} | {middle / other:.1f} | {value(first):.2f} |")
    for name, timings in (("craft-xai", theirs), ("ours", ours), ("ours, first call", [first])):
        stages = {key: statistics.median(timing.stages[key] for timing in timings) for key in timings[0].stages}
        shown = "; ".join(f"{stage} {seconds:.2f}" for stage, seconds in sorted(stages.items(), key=lambda x: -x[1]))
        print(f"\n{name}, s by stage (backbone included): {shown}")
    spread = [f"{timing.outside:.2f}" for timing in theirs], [f"{timing.outside:.2f}" for timing in ours]
    print(
        f"\nall but the backbone, run by run: craft-xai {', '.join(spread[0])}; ours {', '.join(spread[1])}", flush=True
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampled:
    """The affine head as any head: importance can't be had in closed form, and is sampled."""

    inside: Affine
    affine = False

    def __call__(self, maps: Any) -> Any:
        return self.inside(maps)


def importance(bench: Bench, repeats: int) -> None:
    """Codes and concepts are the peer's in all; it takes 32 × (25 + 2) masks an image, and ours 2 × 16 × (25 + 2).

    Ours is timed behind the head as any head; behind what is known of a head that pools first, which needs only the
    codes' averages; behind that head with the one logit that is looked at; and in closed form, without any pass.
    """
    files = bench.files[: round(0.8 * len(bench.files))]
    images = bench.read(files)
    print("\n| codes | images × masks | what | s | ratio | first call, s | summed distance from the exact indices |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for averaged in (False, True):
        # Which concepts they are doesn't matter to the time, so a few photographs' crops do.
        craft = bench.craft(averaged=averaged)
        craft.fit(images[:FITTED])
        with torch.no_grad():
            activations = torch.cat([craft.input_to_latent(images[i : i + BATCH]) for i in range(0, len(files), BATCH)])
        # The peer reads activations that are kept; only encoding and masks are left, of which the former isn't counted.
        found = craft.transform(None, activations)
        craft.transform = lambda inputs, kept=found: kept
        codes = jnp.asarray(found.reshape(len(files), *((1, 1) if averaged else found.shape[1:3]), RANK), jnp.float32)
        dictionary, target = jnp.asarray(craft.W), bench.target
        one = Affine(bench.head.kernel[:, target : target + 1], bench.head.bias[target : target + 1])
        means = codes.mean((1, 2), keepdims=True)
        key, settings = jax.random.key(0), {"designs": DESIGNS // 2, "scrambles": 2}
        sampled = functools.partial(total_sobol, key=key, **settings)
        runs: dict[str, Callable[[], Any]] = {
            "craft-xai": functools.partial(craft.estimate_importance, images, target, nb_design=DESIGNS),
            "any head": functools.partial(sampled, Sampled(bench.head), codes, dictionary, target),
            "a head that pools first": functools.partial(sampled, Sampled(bench.head), means, dictionary, target),
            "the same, one logit": functools.partial(sampled, Sampled(one), means, dictionary, 0),
            "closed form": functools.partial(total_sobol, bench.head, codes, dictionary, target, key=key),
        }
        first = {name: timed(run) for name, run in runs.items()}
        times = {name: [timed(run)[0] for _ in range(repeats)] for name, run in runs.items()}
        truth = exact_total_sobol(contributions(bench.head, codes, dictionary, target)).mean(0)
        theirs = statistics.median(times["craft-xai"])
        for name, spent in times.items():
            middle, (compiling, indices) = statistics.median(spent), first[name]
            away = np.abs((indices.per_class if isinstance(indices, Sobol) else indices) - truth).sum()
            shown = "averages" if averaged else "7 × 7 places"
            print(
                f"| {shown} | {len(files)} × {DESIGNS * (RANK + 2)} | {name} | {middle:.4f} | {theirs / middle:,.1f} | "
                f"{compiling:.2f} | {away:.3f} |",
                flush=True,
            )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="whole, importance; both by default")
    parser.add_argument("--images", type=int, default=200, help="photographs that are fitted")
    parser.add_argument("--target", type=int, default=0, help="their class in ImageNet; 0 is tench")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    arguments = parser.parse_args()
    # scikit-learn's word that it didn't converge, and torch's about copying a tensor: the peer's own affair.
    warnings.filterwarnings("ignore")
    bridges.share_processor()
    bench = Bench(arguments)
    for part in arguments.parts or ["whole", "importance"]:
        {"whole": whole, "importance": importance}[part](bench, arguments.repeats)


if __name__ == "__main__":
    main()
