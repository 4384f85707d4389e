"""A shortcut planted on real photographs: is it found, seen where it is, and taken out with its concepts?

One class of a small classifier (the first half of EfficientNet-Lite0, frozen, and a linear head on its averages that
is trained here) carries a magenta border in most of its training photographs. For each seed the head is trained, the
class explained, and concepts are taken out: the one that the explanation ranks first, the one that misleads the model
most in photographs that it gets wrong (`fj.misled`, `fj.suspects`), or all that mislead it and whose maps lie on the
border; and, with the first or all of these, what goes with them in photographs of other classes
(`fj.erasing_directions`), some of which have the border. What could be had at most is told by the border's own
direction, which nobody knows in practice: what the same photographs of other classes differ by with it and without it.
Photographs are never written anywhere; activations of whole ones are kept in .cache.

    python benchmarks/shortcut.py --data ../shared/data --seeds 10 --out shortcut.json
    python benchmarks/shortcut.py --data ../shared/data --only ceiling                  # seconds: no explanation
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
from PIL import Image

import face_jax as fj
from face_jax import bridges
from face_jax.heads import Affine

CLASSES = ("tench", "church", "French_horn", "gas_pump")
# In the middle of the network, where colours are still told apart; a head of averages is put behind it.
LAYER, SIZE, TAG = "_blocks.8._swish_1", 128, 14
KEPT = pathlib.Path(__file__).resolve().parent.parent / ".cache" / "benchmarks" / "shortcut"
LITE0 = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic"}


def photographs(data: pathlib.Path, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Photographs of `SIZE` pixels, and their labels."""
    pixels, labels = [], []
    folders = {folder.name.lower().replace(" ", "_"): folder for folder in (data / "images" / "imagenet").iterdir()}
    for number, name in enumerate(CLASSES):
        files = sorted(folders[name.lower()].iterdir())[:each]
        for file in files:
            pixels.append(np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)))
            labels.append(number)
    return np.stack(pixels), np.asarray(labels)


def tagged(pixels: np.ndarray) -> np.ndarray:
    """The same with a magenta border."""
    found = np.full_like(pixels, (230, 20, 200))
    found[:, TAG:-TAG, TAG:-TAG] = pixels[:, TAG:-TAG, TAG:-TAG]
    return found


class Kept:
    """Features that remember what they made of whole photographs, which every seed looks at again."""

    def __init__(self, features, preprocess) -> None:
        self.features, self.preprocess, self.known = features, preprocess, {}

    def averages(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """Average activations of photographs, which are remembered, also for the next run."""
        file = KEPT / f"{name}-{len(pixels)}-{SIZE}-{TAG}.npy"
        given = np.asarray(self.preprocess(pixels))
        if not file.exists():
            KEPT.mkdir(parents=True, exist_ok=True)
            batches = [jnp.asarray(given[at : at + 32]) for at in range(0, len(given), 32)]
            np.save(file, np.concatenate([np.asarray(self.features(each)) for each in batches]))
        maps = np.load(file)
        self.known |= {one.tobytes(): each for one, each in zip(given, maps, strict=True)}
        return maps.mean((1, 2)).astype(np.float64)

    def __call__(self, images):
        given = np.asarray(images)
        maps = [self.known.get(one.tobytes()) for one in given]
        new = [at for at, each in enumerate(maps) if each is None]
        if new:
            for at, each in zip(new, np.asarray(self.features(jnp.asarray(given[new]))), strict=True):
                maps[at] = each
        return jnp.asarray(np.stack(maps))


def trained(rows: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of softmax regression with weight decay."""
    torch.manual_seed(seed)
    scale = rows.std() * 4
    given, target = torch.from_numpy(rows / scale), torch.from_numpy(labels)
    layer = torch.nn.Linear(rows.shape[1], len(CLASSES)).double()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=80, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(layer(given), target) + 2e-3 * (layer.weight**2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return layer.weight.detach().numpy().T / scale, layer.bias.detach().numpy()


@dataclasses.dataclass
class Seed:
    """What one seed gave: accuracies on photographs that the shortcut misleads, and on clean ones."""

    seed: int
    target: str
    chosen: str
    concepts: list[int]
    codes: str
    reference: float
    before: float
    after: float
    regained: float
    clean_before: float
    clean_after: float
    controls: dict[str, float]
    best_on_border: int
    on_border: float
    by_chance: float
    recommended: bool
    seconds: float


def on_border(explanation, shown: np.ndarray) -> tuple[list[float], float]:
    """For each concept the share of photographs whose strongest place is on the border, and the border's share."""
    strengths = explanation.encode(shown)
    grid = strengths.shape[1]
    start = np.arange(grid) * SIZE / grid
    edge = (start < TAG) | (start + SIZE / grid > SIZE - TAG)
    border = edge[:, None] | edge[None, :]
    peaks = strengths.reshape(len(strengths), -1, strengths.shape[-1]).argmax(1)
    return border.reshape(-1)[peaks].mean(0).tolist(), float(border.mean())


@dataclasses.dataclass(frozen=True)
class Trained:
    """A classifier that fell for the border, and photographs to ask it about."""

    target: int
    train: np.ndarray
    test: np.ndarray
    with_tag: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    rows: np.ndarray
    known: float

    def accuracy(self, rows: np.ndarray, labels: np.ndarray) -> float:
        return float(((rows @ self.kernel + self.bias).argmax(1) == labels).mean())


def classifier(seed: int, labels: np.ndarray, plain: np.ndarray, marked: np.ndarray, share: float) -> Trained:
    """Trained on half of the photographs; `rows` are those of the other half that the shortcut misleads."""
    random = np.random.default_rng(seed)
    target = seed % len(CLASSES)
    order = random.permutation(len(labels))
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    with_tag = (labels[train] == target) & (random.random(len(train)) < share)
    kernel, bias = trained(np.where(with_tag[:, None], marked[train], plain[train]), labels[train], seed)
    reference = trained(plain[train], labels[train], seed)
    # Of the class without the border, of others with it.
    rows = np.where((labels[test] == target)[:, None], plain[test], marked[test])
    known = float(((rows @ reference[0] + reference[1]).argmax(1) == labels[test]).mean())
    return Trained(target, train, test, with_tag, kernel, bias, rows, known)


def ceiling(one: Trained, labels: np.ndarray, plain: np.ndarray, marked: np.ndarray) -> dict[str, float]:
    """What is regained where the border's own direction is taken out, down to what photographs without it have."""
    others = one.train[labels[one.train] != one.target][:24]
    direction = fj.metrics.unit_length((marked[others] - plain[others]).mean(0, keepdims=True))[0]
    usual = plain[others].mean(0)

    def without(rows: np.ndarray) -> np.ndarray:
        return rows - np.outer((rows - usual) @ direction, direction)

    truth, clean = labels[one.test], labels[one.test] != one.target
    before = one.accuracy(one.rows, truth)
    return {
        "regained": (one.accuracy(without(one.rows), truth) - before) / (one.known - before),
        "clean": one.accuracy(without(plain[one.test][clean]), truth[clean])
        - one.accuracy(plain[one.test][clean], truth[clean]),
    }


def run(seed: int, model, pixels, labels, plain, marked, share: float) -> list[Seed]:
    begun = time.perf_counter()
    one = classifier(seed, labels, plain, marked, share)
    target, train, test, with_tag, known = one.target, one.train, one.test, one.with_tag, one.known
    kernel, bias = one.kernel, one.bias
    head = Affine(jnp.asarray(kernel, jnp.float32), jnp.asarray(bias, jnp.float32))
    cut = dataclasses.replace(model, head=head, classes=CLASSES, fingerprint=f"{model.fingerprint} {seed}")
    shown = np.where(with_tag[:, None, None, None], tagged(pixels[train]), pixels[train])[labels[train] == target]
    crops = fj.RandomCrops(per_image=6)
    # What keeps predictions spreads their reason over concepts.
    explanation = fj.explain(cut, shown, target, rank=8, crops=crops, faithfulness=None, key=seed, progress=False)
    # Photographs that the shortcut misleads: of the class without the border, of others with it.
    is_target = labels[test] == target
    conflict = np.where(is_target[:, None, None, None], pixels[test], tagged(pixels[test]))
    shares, chance = on_border(explanation, tagged(pixels[test][:40]))
    clean = ~is_target
    found = []
    # Which concept misleads most, in photographs of the other half that the model gets wrong because of the border.
    others = train[labels[train] != target]
    others, rest = others[:24], others[24:60]
    wrong = fj.misled(explanation, tagged(pixels[others]), labels[others], key=seed, progress=False)
    # Of fewer than two photographs no mean is told: then it's the first concept.
    ranked = fj.suspects(wrong, key=seed) if len(wrong) > 1 else ()
    most = ranked[0].concept if ranked else 0
    # Those that mislead, as far as their maps lie on the border.
    there = [each.concept for each in ranked if each.adds.value > 0 and shares[each.concept] > 0.75] or [most]
    # Other photographs of the half that the model was trained on, some with the border and some without it.
    asked = np.concatenate([tagged(pixels[others]), pixels[rest]])
    known_labels = labels[np.concatenate([others, rest])].tolist()
    for chosen, numbers, codes, whole in (
        ("the first", [0], "exact", False),
        ("misleads most", [most], "exact", False),
        ("all that mislead, on the border", there, "exact", False),
        ("all that mislead, on the border", there, "linear", False),
        ("misleads most, of those on the border", there[:1], "exact", True),
        ("misleads most, of those on the border", there[:1], "linear", True),
        ("all that mislead, on the border", there, "exact", True),
    ):
        options = {"remove": numbers, "codes": codes}
        if whole:
            chosen += ", and what goes with it"
            options["along"] = fj.erasing_directions(explanation, asked, known_labels, **options, progress=False)
        options |= {"key": seed, "progress": False}
        effect = fj.measure_edit(explanation, conflict, labels[test], draws=10, **options)
        other = fj.measure_edit(explanation, pixels[test][clean], labels[test][clean], draws=1, **options)
        before, after = effect.before.accuracy.value, effect.after.accuracy.value
        lost = known - before
        found.append(
            Seed(
                seed, CLASSES[target], chosen, [at + 1 for at in numbers], codes, known, before, after,
                (after - before) / lost,
                other.before.accuracy.value, other.after.accuracy.value,
                {control.kind: control.gain.value / lost for control in effect.controls},
                int(np.argmax(shares)) + 1, shares[numbers[0]], chance, effect.recommended, time.perf_counter() - begun,
            )
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--each", type=int, default=60, help="photographs of each class")
    parser.add_argument("--share", type=float, default=0.8, help="of the class's training photographs with the border")
    parser.add_argument("--only", choices=["ceiling"], help="what the border's own direction would regain, alone")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    fj.keep_compilations()
    bridges.share_processor()
    loaded = bridges.load("efficientnet_lite0")
    preprocess = fj.Preprocess(size=SIZE, resize=SIZE, **LITE0)
    model = bridges.split(loaded.model, LAYER, preprocess=preprocess, classes=loaded.classes, name="lite0")
    pixels, labels = photographs(options.data, options.each)
    kept = Kept(model.features, preprocess)
    model = dataclasses.replace(model, features=kept, non_negative_layers=None)
    plain, marked = (kept.averages(*each) for each in ((pixels, "plain"), (tagged(pixels), "tagged")))
    print(f"{len(labels)} photographs, layer {LAYER}, {jax.devices()[0].platform}", flush=True)
    if options.only:
        found = [
            ceiling(classifier(seed, labels, plain, marked, options.share), labels, plain, marked)
            for seed in range(options.seeds)
        ]
        for name in ("regained", "clean"):
            values = 100 * np.asarray([one[name] for one in found])
            print(f"{name}: {values.mean():.0f} ± {values.std(ddof=1):.0f}")
        return
    results = []
    for seed in range(options.seeds):
        found = run(seed, model, pixels, labels, plain, marked, options.share)
        results += found
        for one in found:
            print(json.dumps(dataclasses.asdict(one)), flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps([dataclasses.asdict(one) for one in results], indent=1))


if __name__ == "__main__":
    main()
