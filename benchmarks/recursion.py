"""Are the parts that a concept is taken into more alike than the concept's own crops?

    python benchmarks/recursion.py

EfficientNet-Lite0, 25 concepts of each of eight classes of photographs; concepts that spread (`face_jax.recurse`'s
default) are taken apart one grid earlier, into three parts. Within-concept cosine is the mean cosine between crops'
averaged activations there: of a part's 8 strongest crops, of the parent's 8 strongest, and of all the parent's crops
that were taken apart, of which any 8 drawn at random have as much on average. Cosines there are close to 1 whatever
crops show, so the last column tells how much of the way from all the parent's crops to equal ones the parts go. The
photographs have to lie in a folder named by a manifest (`--data`).
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from explained_classes import CACHE, CLASSES, DATA, Network

import face_jax as fj
from face_jax.explanation.sub_concepts import Division


def measured(division: Division) -> tuple[float, float, float, float]:
    """Cosines of the parts (by share), of the parent's strongest and of all its crops; and the parts' likeness."""
    parts = division.parts_coherence
    return parts, division.coherence, division.floor, division.likeness(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="*", type=int, default=CLASSES, help="numbers in ImageNet")
    parser.add_argument("--photographs", type=int, default=40, help="of each class")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    arguments = parser.parse_args()
    network = Network()
    earlier = network.earlier()
    print(f"{network.layer}, taken apart at {earlier[0].layer}")
    print("| class | taken apart | parts | parent: all | parent: strongest | > all | > strongest | likeness |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    every: list[tuple[float, float, float, float]] = []
    higher = [0, 0, 0]
    for explanation in network.explanations(arguments.data, arguments.classes, arguments.photographs):
        recursion = fj.recurse(explanation, earlier, cache=CACHE).recursion
        divisions = () if recursion is None else recursion.divisions
        if not divisions:
            print(f"| {explanation.target_name} | 0 | – | – | – | – | – | – |", flush=True)
            continue
        rows = [measured(division) for division in divisions]
        parts, strongest, floor, likeness = np.mean(rows, axis=0)
        single = [(part.coherence, division) for division in divisions for part in division.parts]
        above = [sum(value > division.floor for value, division in single)]
        above.append(sum(value > division.coherence for value, division in single))
        print(
            f"| {explanation.target_name} | {len(rows)} | {parts:.4f} | {floor:.4f} | {strongest:.4f} | "
            f"{above[0]} of {len(single)} | {above[1]} of {len(single)} | {likeness:.2f} |",
            flush=True,
        )
        every += rows
        higher = [sum(pair) for pair in zip(higher, [*above, len(single)], strict=True)]
    if not every:
        raise SystemExit("no concept spreads enough to be taken apart; give more photographs")
    parts, strongest, floor, likeness = np.mean(every, axis=0)
    print(
        f"| all | {len(every)} | {parts:.4f} | {floor:.4f} | {strongest:.4f} | {higher[0]} of {higher[2]} | "
        f"{higher[1]} of {higher[2]} | {likeness:.2f} |"
    )
    better = np.asarray([[row[0] > row[2], row[0] > row[1]] for row in every]).sum(0)
    print(
        f"\nParts, by their shares, above all the parent's crops in {better[0]} of {len(every)} concepts, above its "
        f"strongest in {better[1]}."
    )


if __name__ == "__main__":
    main()
