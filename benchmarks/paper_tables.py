"""FACE's and CRAFT's tables and figures, with controls, ceilings and pictures held out in each.

    python benchmarks/paper_tables.py --quick            # the form of every table, in minutes
    python benchmarks/paper_tables.py                    # everything; goes on where it was stopped
    python benchmarks/paper_tables.py quality kl-term    # these tables
    python benchmarks/paper_tables.py --network resnet34 --weights DEFAULT --imagenet /data/imagenet/val
    python benchmarks/paper_tables.py --method mine.py:Brightest quality

Tables: TABLES. Each is written as JSON, Markdown and PNG to `--out`; what was computed is kept in `--cache`. The
photographs are those of `--imagenet`, `--coco` and `--celeba` (their layout is in papers/photographs.py), else those
kept beside the checkout (`--data`), else parts of a photograph in scikit-image, which give tables their form only.
For COCO and CelebA a head is trained on half of their photographs; tables are made of the other half. The answers are
in papers.md. `--quick` has programs compiled in haste, so that its seconds say nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from networks import KNOWN, Network, network
from papers import photographs, tables_of_lambda, tables_of_scores, tables_of_settings
from papers.heads import train
from papers.materials import Material, activator, material
from papers.runs import Asked
from papers.written import Made, write

import face_jax as fj
from face_jax import bridges
from face_jax.methods.by_name import method_in
from face_jax.recursion.earlier_layers import earlier_layers

ROOT = pathlib.Path(__file__).resolve().parent.parent
# `--quick` runs each program a few times on small matrices, so that nearly all of its time would be XLA's.
QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
TABLES: dict[str, tuple[str, Callable[..., Made]]] = {
    "quality": ("Reconstruction and predictions (FACE, table 1)", tables_of_scores.quality),
    "faithfulness": ("Faithfulness and complexity (FACE, table 2)", tables_of_scores.faithfulness),
    "published": ("The papers' own rules", tables_of_scores.published),
    "lambda": ("λ (FACE, table 4 and figure 4)", tables_of_lambda.weights),
    "searched": ("λ searched, λ at its balance", tables_of_lambda.searched),
    "starts": ("Starts (FACE, table 5)", tables_of_lambda.starts),
    "losses": ("Losses (FACE, table 6)", tables_of_lambda.losses),
    "ace": ("ACE (FACE, table 7)", tables_of_scores.ace),
    "rank": ("Rank (FACE, figure 5)", tables_of_settings.rank),
    "patch": ("Size of crops (FACE, figure 17)", tables_of_settings.patch),
    "curves": ("Insertion and deletion by method (CRAFT, figure 5)", tables_of_scores.curves),
    "importance": ("Insertion and deletion by importance (CRAFT, figure 6)", tables_of_scores.importance),
    "sanity": ("Sanity check (CRAFT, appendix G)", tables_of_settings.sanity),
    "cost": ("Time and memory (FACE, table 3)", tables_of_settings.cost),
    "inference": ("Which inference?", tables_of_lambda.inference),
    "kl-term": ("Does the KL term help?", tables_of_lambda.kl_term),
    "ranking": ("Is the ranking the same with other seeds?", tables_of_settings.ranking),
}


def run(
    names: Sequence[str],
    asked: Asked,
    materials: Sequence[Material],
    out: pathlib.Path,
    *,
    seen: Callable[[Material], np.ndarray] | None = None,
    source: str = "",
) -> list[str]:
    """Makes tables of one network and setting.

    **Arguments:**

    - `names`: of `TABLES`.
    - `asked`, `materials`: how much, and of what.
    - `out`: a folder.
    - `seen`: what another network makes of the crops; needed by `kl-term`.
    - `source`: whose photographs, in words.

    **Returns:** the Markdown of each. Raises `RuntimeError` at the end for tables that failed.
    """
    first, found = materials[0], []
    said = (
        f"{first.setting} ({source}), {first.model.name} at {first.model.layer}; "
        f"{', '.join(each.label for each in materials)}: {len(first.pictures)} photographs each that the network puts "
        f"in the class; {asked.rank} concepts, {asked.folds} folds, seeds {', '.join(map(str, asked.seeds))}. Mean ± "
        "standard deviation over folds and seeds, of means over classes."
    )
    failed = []
    for name in names:
        title, build = TABLES[name]
        begun, spent = time.perf_counter(), time.process_time()
        stem = f"{first.setting.lower().replace(' ', '-')}-{first.network.name}-{name}"
        try:
            made = build(asked, materials, seen) if name == "kl-term" else build(asked, materials)
        except Exception as error:  # a run of hours makes the other tables, and fails at its end
            traceback.print_exc()
            failed.append(f"{stem}: {error}")
            continue
        settings = {
            "said": said, "seeds": asked.seeds, "folds": asked.folds, "rank": asked.rank, "command": sys.argv[1:]
        }  # fmt: skip
        found.append(write(out, stem, title, made, settings))
        seconds = f"{time.perf_counter() - begun:.0f} s, {time.process_time() - spent:.0f} s of them computing"
        print(f"{stem}: {seconds}", file=sys.stderr, flush=True)
    if failed:
        raise RuntimeError("; ".join(failed))
    return found


def settings_of(arguments: argparse.Namespace) -> list[photographs.Labelled]:
    """The data sets asked for; by default ImageNet, or parts of an embedded photograph where there is none.

    Raises `SystemExit` for a data set that was asked for and isn't there, and for labels that none of them has.
    """
    found = []
    for name in arguments.settings or ["imagenet"]:
        folder = name.partition("-")[0]
        one = getattr(photographs, name.replace("-", "_"))(getattr(arguments, folder), arguments.data)
        if one is None and arguments.settings:
            raise SystemExit(
                f"--settings {name}: {arguments.data} has none of its photographs; give the data set's folder by "
                f"--{folder} FOLDER"
            )
        found.append(photographs.embedded() if one is None else one)
    known = [label for one in found for label in one.labels]
    if wrong := [label for label in arguments.labels or () if label not in known]:
        raise SystemExit(f"--labels {wrong[0]!r}: there is no such class; there are {', '.join(map(repr, known))}")
    return found


def prepared(arguments: argparse.Namespace, name: str, labelled: photographs.Labelled) -> list[Material]:
    """Materials of a setting's classes; heads are trained first where the network doesn't know them."""
    taken = network(name, arguments.data, weights=arguments.weights, layer=arguments.layer)
    if labelled.setting in photographs.HEADS_OF_OURS:
        if not taken.model.head.affine:
            print(f"{labelled.setting} is left out: the head of {name} doesn't average first", file=sys.stderr)
            return []
        trained = train(taken, labelled, arguments.cache, seed=0)
        print(f"{labelled.setting}, {name}: held-out accuracy {trained.accuracy}", file=sys.stderr, flush=True)
        taken, labelled = trained.network, trained.others
    found = []
    for number, label in enumerate(labelled.labels):
        if len(found) == arguments.classes:
            break
        if arguments.labels and label not in arguments.labels:
            continue
        target = _target(taken, labelled, label, number)
        one = material(
            taken, labelled.setting, label, target, labelled.of(number), arguments.photographs, arguments.folds,
            arguments.cache, per_image=arguments.crops,
        )  # fmt: skip
        # As many pictures for every class, so that means over classes weigh them alike.
        if one is not None and (not found or len(one.pictures) == len(found[0].pictures)):
            found.append(one)
        else:
            print(f"{label} is left out: too few photographs that {name} puts there", file=sys.stderr)
    return found


def _target(taken: Network, labelled: photographs.Labelled, label: str, number: int) -> int:
    if labelled.setting == "ImageNet":
        return next(index for _, index, name in photographs.IMAGENET if name == label)
    if labelled.setting in photographs.HEADS_OF_OURS:
        return number
    # Whatever the network sees in most of them.
    said = taken.model.head(taken.model.features(taken.model.preprocess(list(labelled.files[:8]))))
    return int(np.bincount(np.asarray(said).argmax(axis=1)).argmax())


def beside_it(arguments: argparse.Namespace, name: str) -> Network:
    """Another network, or an earlier layer of the same where there is none."""
    other = "mnv2" if name != "mnv2" else "lite0"
    if name in KNOWN and (arguments.data / "weights").is_dir():
        return network(other, arguments.data)
    own = network(name, arguments.data, weights=arguments.weights, layer=arguments.layer)
    places = bridges.layers(own.module, size=own.model.preprocess.size)
    layer = earlier_layers(places, own.model.layer, 1)[0]
    split = bridges.split(own.module, layer, preprocess=own.model.preprocess, classes=own.model.classes)
    return dataclasses.replace(own, model=split)


def seen_by(arguments: argparse.Namespace, name: str) -> Callable[[Material], np.ndarray]:
    """Averaged activations of crops elsewhere, loaded when they are asked for."""
    beside = functools.cache(lambda: beside_it(arguments, name))

    def seen(one: Material) -> np.ndarray:
        run = activator(beside().model, one.cache)
        return run.crops(one.photographs, one.boxes, maps=False).maps[:, 0, 0]

    return seen


def own_methods(given: Sequence[str]) -> tuple[Any, ...]:
    """Methods in files, `FILE.py:NAME`."""
    try:
        return tuple(method_in(pathlib.Path(each.rpartition(":")[0]), each.rpartition(":")[2]) for each in given)
    except ValueError as error:
        raise SystemExit(f"--method: {error}") from error


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    text = (__doc__ or "").replace("Tables: TABLES", f"Tables: {', '.join(TABLES)}")
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="all by default")
    parser.add_argument("--quick", action="store_true", help="every table's form, of one class and few photographs")
    for name in ("imagenet", "coco", "celeba"):
        parser.add_argument(f"--{name}", type=pathlib.Path, metavar="FOLDER", help="the real data set's folder")
    parser.add_argument("--data", type=pathlib.Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--settings", nargs="+", choices=["imagenet", "coco", "celeba", "celeba-as-labels"],
        help="data sets, CelebA's four attributes also each by itself; imagenet, or a stand-in for form only where "
        "there is none",
    )  # fmt: skip
    parser.add_argument(
        "--network", nargs="+", default=["lite0"], help=f"{', '.join(KNOWN)}, or what bridges.load knows"
    )
    parser.add_argument("--weights", help="of a network that isn't known here: DEFAULT, or a file")
    parser.add_argument("--layer", help="where to split it")
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument(
        "--labels", nargs="+", metavar="NAME", help="these classes only, say in one of several processes"
    )
    parser.add_argument("--photographs", type=int, default=60, help="of each class")
    parser.add_argument("--crops", type=int, default=10, help="of each photograph")
    parser.add_argument("--rank", type=int, default=25)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--share", type=float, help="FACE's λ over its balance, in place of a search for each fit")
    parser.add_argument("--method", action="append", default=[], metavar="FILE.py:NAME", help="a method of one's own")
    parser.add_argument("--cache", type=pathlib.Path, default=ROOT / ".cache" / "benchmarks" / "papers")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results" / "papers")
    arguments = parser.parse_args(given)
    if wrong := [name for name in arguments.tables if name not in TABLES]:
        raise SystemExit(f"there is no table {wrong[0]!r}; there are {', '.join(TABLES)}")
    # Whoever names a folder wants it used.
    for name in ("imagenet", "coco", "celeba"):
        named = [each.partition("-")[0] for each in arguments.settings or ()]
        if getattr(arguments, name) is not None and name not in named:
            arguments.settings = [*(arguments.settings or ()), name]
    if arguments.quick:
        arguments.classes, arguments.photographs, arguments.crops = 1, 12, 3
        arguments.share = 1.0
        arguments.rank, arguments.folds, arguments.starts, arguments.seeds = 4, 2, 2, [0, 1]
    return arguments


def main() -> None:
    arguments = parsed()
    if arguments.quick:  # read when the first device is asked for, which nothing has done yet
        os.environ["XLA_FLAGS"] = f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}"
    fj.keep_compilations()
    asked = Asked(
        arguments.cache, arguments.rank, arguments.folds, arguments.starts, tuple(arguments.seeds), arguments.quick,
        arguments.share, own_methods(arguments.method),
    )  # fmt: skip
    names, made = arguments.tables or list(TABLES), 0
    for labelled in settings_of(arguments):
        for name in arguments.network:
            if materials := prepared(arguments, name, labelled):
                seen, made = seen_by(arguments, name), made + 1
                print("\n".join(run(names, asked, materials, arguments.out, seen=seen, source=labelled.source)))
    if not made:
        raise SystemExit("no table was made: no class is left, for the reasons above")


if __name__ == "__main__":
    main()
