"""Tench without anglers: is the concept of people in ImageNet's tench found without looking, and what is owed to it?

    python benchmarks/anglers.py --data ../shared/data [--photographs 80] [--rank 10]

Most photographs of tench show an angler who holds the fish. EfficientNet-Lite0's tench are explained; which concept is
people is told by photographs of COCO, which say whether somebody is in them: the one whose codes tell these apart best.
Then: how important it is, what happens to photographs of tench that weren't explained when it is taken out, beside
controls, and how often the network is right in the quarter of them that has most of it and in the quarter with least.
Photographs are never written anywhere. The last answers are in README.md, section "anglers".
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np
from networks import network
from scipy.stats import mannwhitneyu

import face_jax as fj
from face_jax import bridges

EACH = 100  # photographs of COCO with people, and without


def with_and_without_people(data: pathlib.Path, random: np.random.Generator) -> tuple[list[pathlib.Path], np.ndarray]:
    """Photographs of COCO of which all objects are known, and whether one of these is a person."""
    said = json.loads((data / "images" / "coco" / "instances.json").read_text())
    person = next(int(number) for number, name in said["categories"].items() if name == "person")
    shown: dict[str, set[int]] = {}
    for each in said["annotations"]:
        shown.setdefault(each["file"], set()).add(int(each["category_id"]))
    files = [
        random.permutation([name for name, kinds in shown.items() if (person in kinds) == wanted])[:EACH]
        for wanted in (True, False)
    ]
    return [data / name for some in files for name in some], np.repeat([True, False], [len(some) for some in files])


def averages(explanation: fj.Explanation, files: list[pathlib.Path]) -> np.ndarray:
    """Codes of photographs, averaged over their places."""
    return np.asarray(explanation.encode(fj.photographs(files))).mean(axis=(1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--photographs", type=int, default=80)
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    fj.keep_compilations()
    bridges.share_processor()
    random = np.random.default_rng(options.seed)
    model = network("lite0", options.data).model
    files = list(random.permutation(sorted((options.data / "images" / "imagenet" / "tench").iterdir())))
    explained, others = files[: options.photographs], files[options.photographs :]
    explanation = fj.explain(model, explained, 0, rank=options.rank, key=options.seed, progress=False)

    people, there = with_and_without_people(options.data, random)
    codes = averages(explanation, people)
    apart = [
        mannwhitneyu(column[there], column[~there]).statistic / (there.sum() * (~there).sum()) for column in codes.T
    ]
    angler = int(np.argmax(apart))
    weighs = explanation.importance.deciding
    shares = weighs / weighs.sum()
    print(f"{len(there)} photographs of COCO, {there.sum()} with people; chance 0.5")
    print("| concept | tells people apart (AUC) | share of the importance |\n|---|---|---|")
    for at, (auc, share) in enumerate(zip(apart, shares, strict=True)):
        print(f"| {at + 1} | {'**' if at == angler else ''}{auc:.2f}{'**' if at == angler else ''} | {share:.3f} |")

    effect = fj.measure_edit(
        explanation, others, [model.classes[0]] * len(others), remove=[angler], key=options.seed, progress=False
    )
    right = effect.predicted[:, 0] == 0
    left = right & (effect.predicted[:, 1] != 0)
    print(f"\n{len(right)} photographs of tench that weren't explained, {right.sum()} taken for tench.")
    before, after = (outcome.accuracy.value for outcome in (effect.before, effect.after))
    controls = ", ".join(f"{one.kind} {one.accuracy.value:.3f}" for one in effect.controls)
    print(f"Without concept {angler + 1} {left.sum()} leave it; accuracy {before:.3f}, then {after:.3f} ({controls}).")
    most = np.argsort(-effect.strength)
    for words, some in (("most", most[: len(most) // 4]), ("least", most[-(len(most) // 4) :])):
        print(
            f"The quarter with {words} of it: {right[some].sum()} of {len(some)} taken for tench, "
            f"{(right & ~left)[some].sum()} without it"
        )


if __name__ == "__main__":
    main()
