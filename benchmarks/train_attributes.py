"""How well does a head for four attributes of faces do, trained on a network that stays as it is?

    python benchmarks/train_attributes.py                                # exactly one of four attributes
    python benchmarks/train_attributes.py --multi-label                  # each attribute by itself
    python benchmarks/train_attributes.py --celeba /data/celeba          # CelebA's own folder

Logistic regression on averaged activations of the last layer. FACE trains whole networks for 15 epochs on CelebA's
faces. Activations are kept in `.cache/` as they are computed, training every 50 epochs, and a run that was stopped
goes on. Without `--celeba` the faces kept beside the checkout are taken (`--data`). The answers are in papers.md.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from networks import network
from papers.heads import TrainedHead, train
from papers.photographs import celeba

import face_jax as fj

ROOT = pathlib.Path(__file__).resolve().parent.parent


def trained(given: Sequence[str] | None = None) -> TrainedHead:
    """The network with its new head, as the arguments of the command say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--celeba", type=pathlib.Path, metavar="FOLDER", help="the real data set's folder")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--network", default="mnv2", help="a name in networks.py, or what bridges.load understands")
    parser.add_argument("--weights", help="of a network that isn't in networks.py: DEFAULT, or a file")
    parser.add_argument("--multi-label", action="store_true", help="each attribute by itself")
    parser.add_argument("--share", type=float, default=0.8, help="of the faces, which the head is trained on")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / ".cache" / "benchmarks" / "papers")
    arguments = parser.parse_args(given)
    labelled = celeba(arguments.celeba, arguments.data, exclusive=not arguments.multi_label)
    if labelled is None:
        raise SystemExit("there are no faces beside the checkout (--data); give CelebA's folder, --celeba")
    return train(
        network(arguments.network, arguments.data, weights=arguments.weights), labelled, arguments.cache,
        seed=arguments.seed, share=arguments.share, epochs=arguments.epochs,
    )  # fmt: skip


def main() -> None:
    fj.keep_compilations()
    found = trained()
    print(f"| {found.network.model.name}, {len(found.others.files)} faces that it wasn't trained on | accuracy |")
    print("|---|---|")
    for label, accuracy in found.accuracy.items():
        print(f"| {label} | {accuracy:.3f} |")


if __name__ == "__main__":
    main()
