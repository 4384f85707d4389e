"""Concepts of either sign, with or without a price on codes, or positive and negative activations as channels?

    python benchmarks/signed_layers.py [--quick]      # error, KL, agreement, stability and time of each
    python benchmarks/signed_layers.py explained      # agreement and KL of whole explanations, beside their controls
    python benchmarks/signed_layers.py coherence      # are a concept's strongest crops alike to another network?
    python benchmarks/signed_layers.py speed          # seconds of SemiNMF and of scikit-learn's NMF

Two networks whose layers have activations below zero, two classes of photographs each: DeiT-tiny behind its last layer
but one, MobileNetV3-small behind two bottlenecks and its last map. Concepts are found in crops, averaged over places,
as `explain` finds them, and in all places of some photographs, as it does to keep predictions; all are scored on
photographs held out, by non-negative least squares at every place. The photographs and weights have to lie beside the
checkout (`--data`). Activations and every answer are kept in `.cache/`, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import time
import warnings
from typing import Any

# Read when torch is first imported: its idle threads would spin on the cores that JAX computes on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jax
import jax.numpy as jnp
import numpy as np
from factorization import objective as error_of
from factorization import planted
from networks import deit_tiny, mnv2, mnv3s
from papers.tables_of_lambda import coherence_of

import face_jax as fj
from face_jax import bridges
from face_jax.heads.beside import beside
from face_jax.nmf.encoding import encode_maps
from face_jax.nmf.matching import matched
from face_jax.nmf.settings import usual_objective

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
KEPT = ROOT / ".cache" / "benchmarks" / "signed_layers"
PLACES = (
    ("deit_tiny", "encoder.layers.encoder_layer_10"),
    ("mnv3s", "features.8"),
    ("mnv3s", "features.11"),
    ("mnv3s", "features.12"),
)
EARLIER = "encoder.layers.encoder_layer_5"
CLASSES = (217, 566)  # springer, French horn
RANK = 15
# Of either sign, the same with a price on codes, which is the default, and parts as channels of their own.
WAYS = ("mixed", "sparse", "apart")
# Of as many photographs of each class, so that programs are compiled once; half of 18 is a number of them.
FITTED, HELD_OUT = 18, 10


NETWORKS = {"deit_tiny": deit_tiny, "mnv3s": mnv3s}
SPLIT: dict[tuple[str, str], fj.SplitModel] = {}


def split_at(network: str, layer: str, data: pathlib.Path) -> fj.SplitModel:
    if (network, layer) not in SPLIT:
        model, preprocess = NETWORKS[network](data)
        SPLIT[network, layer] = bridges.split(model, layer, preprocess=preprocess, name=network)
    return SPLIT[network, layer]


def files_of(network: str, label: int, count: int, data: pathlib.Path) -> list[pathlib.Path]:
    """The first photographs that the network is known to put in their class."""
    with (data / "scores_deit_mnv3.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["file"].startswith("images/imagenet/")]
    right = [row for row in rows if row["imagenet_index"] == str(label) and row[f"{network}_correct"] == "1"]
    return [data / row["file"] for row in right[:count]]


def cropped(network: str, layer: str, label: int, count: int, data: pathlib.Path) -> tuple[Any, list[Any], Any]:
    """What the network makes of photographs of a class, those that it puts there, and crops of them."""
    from face_jax.activations import survey

    photographs = fj.photographs(files_of(network, label, count, data))
    seen = survey(split_at(network, layer, data), photographs, label)
    chosen = [photographs[number] for number in seen.index]
    shapes = [photograph.pixels().shape[:2] for photograph in chosen]
    return seen, chosen, fj.RandomCrops(per_image=10)(shapes, key=jax.random.key(0))


def activations(network: str, layer: str, label: int, count: int, data: pathlib.Path) -> dict[str, np.ndarray]:
    """Maps and logits of photographs, both parts of crops averaged over places, and which photograph each crop is of.

    And the tokens beside the maps, where the layer has such.
    """
    model = split_at(network, layer, data)
    kept = KEPT / f"{network}-{layer}-{label}-{count}-parts.npz"
    if kept.exists():
        return dict(np.load(kept))
    from face_jax.activations import collect_crops, pooled

    seen, photographs, crops = cropped(network, layer, label, count, data)
    # As `explain` has them: put apart first, and averaged then, which hides signs.
    rows = collect_crops(fj.signs_apart(model), photographs, crops, keep=pooled).maps[:, 0, 0]
    found = {"maps": seen.kept.maps, "logits": seen.kept.logits, "crops": rows, "crop_of": np.asarray(crops.image)}
    if seen.kept.kept is not None:
        found["tokens"] = seen.kept.kept
    KEPT.mkdir(parents=True, exist_ok=True)
    np.savez(kept, **found)
    return found


def parts(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(rows, 0), np.maximum(-rows, 0)], axis=-1)


def whole(dictionary: np.ndarray) -> np.ndarray:
    """Directions of the layer itself, of unit length: what both ways can be compared by."""
    positive, negative = np.split(dictionary, 2, axis=1)
    return fj.metrics.unit_length(positive - negative)


def held_out_scores(way: str, head: Any, found: dict[str, np.ndarray], dictionary: np.ndarray) -> dict[str, float]:
    maps = found["maps"]
    if way == "apart":
        codes = encode_maps(parts(maps), dictionary)
        positive, negative = np.split(codes @ dictionary, 2, axis=-1)
        rebuilt = positive - negative
    else:
        rebuilt = encode_maps(maps, dictionary) @ dictionary
    said = np.asarray(beside(head, found.get("tokens"))(jnp.asarray(rebuilt)))
    certified = fj.metrics.certificates(found["logits"], said)
    return {
        "error": fj.metrics.relative_squared_error(maps, rebuilt),
        "kl": float(certified.kl.mean()),
        "agreement": float(certified.agreement.mean()),
    }


def error_as(way: str, rows: np.ndarray, rank: int) -> fj.SquaredError:
    """What is minimized: as `explain` has it for concepts of either sign, or without a price on codes."""
    return usual_objective(rows, rank, signed=way == "sparse")


def fitted(rows: np.ndarray, way: str, rank: int, **more: Any) -> tuple[np.ndarray, float, Any]:
    """Concepts of rows of a way, the seconds that they took once everything was compiled, and the solution."""
    A = jnp.asarray(rows)
    settings: dict[str, Any] = {
        "solver": fj.ADMM() if way == "apart" else fj.SemiNMF(), "start": fj.NNDSVD(),
        "objective": error_as(way, rows, rank), **more,
    }  # fmt: skip
    solution = None
    for _ in range(2 if "objective" not in more else 1):
        begun = time.perf_counter()
        solution = fj.factorize(A, rank, **settings)
        jax.block_until_ready(solution.codes)
        seconds = time.perf_counter() - begun
    return np.asarray(solution.dictionary), seconds, solution


def stability(rows: np.ndarray, way: str, of: np.ndarray, rank: int) -> tuple[float, float]:
    """Matched cosine of the concepts of two halves of the photographs, in the layer's channels; and of random rows."""
    first = np.isin(of, np.unique(of)[::2])
    halves = [fitted(rows[mask], way, rank)[0] for mask in (first, ~first)]
    generator = np.random.default_rng(0)
    drawn = [fj.metrics.unit_length(generator.permutation(rows[mask])[:rank]) for mask in (first, ~first)]
    if way == "apart":
        halves, drawn = [whole(half) for half in halves], [whole(some) for some in drawn]
    return matched(*halves)[1], matched(*drawn)[1]


def measured(network: str, layer: str, label: int, way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    kept = KEPT / f"{network}-{layer}-{label}-{way}-{arguments.fitted}-{arguments.rank}-{arguments.steps}.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    stages = {"crops": {"crops"}, "places": {"crops", "places"}, None: {"crops", "places", "faithful"}}
    if stages[arguments.only] <= set(found):
        return found
    every = activations(network, layer, label, arguments.count, arguments.data)
    head = split_at(network, layer, arguments.data).head
    fitting, last = arguments.fitted, arguments.fitted + arguments.held_out
    held_out = {name: every[name][fitting:last] for name in ("maps", "logits", "tokens") if name in every}
    mine = every["crop_of"] < fitting
    crops, of = every["crops"][mine], every["crop_of"][mine]
    crops = crops if way == "apart" else np.subtract(*np.split(crops, 2, axis=1))
    if "crops" not in found:
        dictionary, seconds, solution = fitted(crops, way, arguments.rank)
        same, floor = stability(crops, way, of, arguments.rank)
        found |= {
            "below": float((every["maps"] < 0).mean()), "crops": held_out_scores(way, head, held_out, dictionary),
            "stability": same, "floor": floor, "seconds": seconds, "steps": int(solution.stats.steps),
            "result": int(solution.result.code),
        }  # fmt: skip
        kept.write_text(json.dumps(found))
    if stages[arguments.only] <= set(found):
        return found
    # Predictions are kept in all places of some of the same photographs.
    maps = every["maps"][: arguments.pictures]
    rows = maps.reshape(-1, maps.shape[-1])
    rows = parts(rows) if way == "apart" else rows
    dictionary, found["places_seconds"], solution = fitted(rows, way, arguments.rank)
    found["places"] = held_out_scores(way, head, held_out, dictionary)
    place_of = np.repeat(np.arange(len(maps)), maps.shape[1] * maps.shape[2])
    found["places_stability"], found["places_floor"] = stability(rows, way, place_of, arguments.rank)
    if arguments.only:
        kept.write_text(json.dumps(found))
        return found
    inside = fj.signs_apart(split_at(network, layer, arguments.data)).head if way == "apart" else head
    tokens = every["tokens"][: arguments.pictures] if "tokens" in every else None
    term = fj.Faithfulness(beside(inside, tokens), grid=maps.shape[1:3])
    value = float(fj.certify(term, jnp.asarray(rows), solution).fitted.kl.sum())
    weight = float(solution.stats.final_objective) / max(value, 1e-12)
    settings = {"rtol": 1e-4, "max_steps": arguments.steps}
    faithful = fj.ADMM(**settings) if way == "apart" else fj.SemiNMF(**settings)
    start = fj.Given(solution.codes, solution.dictionary)
    dictionary, found["faithful_seconds"], _ = fitted(
        rows,
        way,
        arguments.rank,
        objective=error_as(way, rows, arguments.rank) + weight * term,
        solver=faithful,
        start=start,
    )
    found["faithful"], found["weight"] = held_out_scores(way, head, held_out, dictionary), weight
    kept.write_text(json.dumps(found))
    return found


def layers(arguments: argparse.Namespace) -> None:
    print(
        "| layer (below zero) | class | concepts | error: crops | places | with term | KL: crops | places | with term "
        "| agreement: crops | places | with term | stability (random): crops | places | s: crops | places | with term |"
    )
    print("|" + "---|" * 17)
    for network, layer in arguments.places:
        for label in arguments.classes:
            for way in WAYS:
                one = measured(network, layer, label, way, arguments)
                stages = [one.get(stage) for stage in ("crops", "places", "faithful")]
                cells = [f"{network} {layer} ({one['below']:.0%})", label, way]
                for name, digits in (("error", 3), ("kl", 2), ("agreement", 2)):
                    cells += [f"{stage[name]:.{digits}f}" if stage else "" for stage in stages]
                for before in ("", "places_"):
                    same, floor = (one.get(f"{before}{name}") for name in ("stability", "floor"))
                    cells += ["" if same is None else f"{same:.2f} ({floor:.2f})"]
                names = ("seconds", "places_seconds", "faithful_seconds")
                cells += [f"{one[name]:.2f}" if name in one else "" for name in names]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def explained(arguments: argparse.Namespace) -> None:
    """Scores of `explain` with the term and of its controls, the same without the term among them."""
    print("| layer | class | λ | concepts | error | KL | agreement | s |\n|" + "---|" * 8)
    for network, layer in arguments.places if arguments.layer else (PLACES[0], PLACES[3]):
        for label in arguments.classes:
            kept = (
                KEPT / f"{network}-{layer}-{label}-explained-{arguments.count}-{arguments.rank}-{arguments.steps}.json"
            )
            if not kept.exists():
                model = split_at(network, layer, arguments.data)
                files = files_of(network, label, arguments.count, arguments.data)
                settings = {"rank": arguments.rank, "key": 0, "cache": fj.ArrayCache(KEPT / "activations")}
                begun = time.perf_counter()
                plain = fj.explain(model, files, label, faithfulness=None, **settings)
                # λ at which both parts of the objective are alike in the pictures fitted.
                maps, own = plain.pictures.collected.maps[plain.pictures.fitted], plain.scores.own
                weight = 0.5 * own.relative_error * float((maps**2).sum()) / (own.kl * len(maps))
                solver = fj.SemiNMF(rtol=1e-3, max_steps=arguments.steps)
                found = fj.explain(model, files, label, faithfulness=weight, solver=solver, **settings)
                rows = [("found in crops, without the term", own), *((row.name, row) for row in found.scores.rows)]
                scores = [[name, row.relative_error, row.kl, row.agreement] for name, row in rows]
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps([weight, time.perf_counter() - begun, scores]))
            weight, seconds, scores = json.loads(kept.read_text())
            for name, error, kl, agreement in scores:
                cells = [f"{network} {layer}", label, f"{weight:.3g}", name, f"{error:.3f}", f"{kl:.2f}"]
                print("| " + " | ".join(map(str, [*cells, f"{agreement:.2f}", f"{seconds:.0f}"])) + " |", flush=True)


def seen_elsewhere(network: str, layer: str, label: int, arguments: argparse.Namespace) -> np.ndarray:
    """What MobileNetV2 makes of the same crops, averaged over places."""
    kept = KEPT / f"{network}-{label}-{arguments.count}-seen-by-mnv2.npy"
    if not kept.exists():
        from face_jax.activations import collect_crops, pooled

        _, photographs, crops = cropped(network, layer, label, arguments.count, arguments.data)
        model, preprocess = mnv2(arguments.data)
        other = bridges.split(model, "features.18", preprocess=preprocess, name="mnv2")
        np.save(kept, collect_crops(other, photographs, crops, keep=pooled).maps[:, 0, 0])
    return np.load(kept)


def coherence(arguments: argparse.Namespace) -> None:
    """Of photographs held out: how alike each concept's five strongest crops are to another network."""
    ways = " | ".join(f"{where}: {' | '.join(WAYS)}" for where in ("crops", "places"))
    print(f"| layer | class | {ways} | random directions | any crops |\n|" + "---|" * 10)
    for network, layer in arguments.places if arguments.layer else (("deit_tiny", EARLIER), *PLACES):
        for label in arguments.classes:
            every = activations(network, layer, label, arguments.count, arguments.data)
            seen = seen_elsewhere(network, layer, label, arguments)
            about, of = seen - seen.mean(axis=0), every["crop_of"]
            out, cells, floor = of >= arguments.fitted, [], 0.0
            maps = every["maps"][: arguments.fitted]
            places = maps.reshape(-1, maps.shape[-1])
            for way, where in (*((way, where) for where in ("crops", "places") for way in WAYS), ("random", "")):
                crops = every["crops"] if way == "apart" else np.subtract(*np.split(every["crops"], 2, axis=1))
                if way == "random":
                    dictionary = fj.metrics.random_dictionary(crops.shape[1], arguments.rank, key=0, signed=True)
                elif where == "crops":
                    dictionary = fitted(crops[~out], way, arguments.rank)[0]
                else:
                    dictionary = fitted(parts(places) if way == "apart" else places, way, arguments.rank)[0]
                codes = np.asarray(fj.encode(jnp.asarray(crops[out]), jnp.asarray(dictionary)))
                value, floor = coherence_of(codes, of[out], about[out])
                cells.append(f"{value:.3f}")
            print("| " + " | ".join([f"{network} {layer}", str(label), *cells, f"{floor:.3f}"]) + " |", flush=True)


def speed(arguments: argparse.Namespace) -> None:
    """Each to a tenth of a per cent of its own final objective, on the same matrices, which are at least 0."""
    from sklearn.decomposition import NMF

    warnings.simplefilter("ignore")
    print("| activations | SemiNMF, s (steps) | scikit-learn's NMF, s (iterations) | times faster |")
    print("|---|---|---|---|")
    for rows, channels in ((1_200, 512),) if arguments.quick else ((1_200, 512), (14_700, 2_048)):
        A = planted(rows, channels)
        device = jnp.asarray(A)

        def ours(most: int, device: Any = device) -> tuple[Any, float]:
            seconds = []
            for _ in range(4):
                begun = time.perf_counter()
                found = fj.factorize(device, 25, solver=fj.SemiNMF(max_steps=most))
                jax.block_until_ready(found.codes)
                seconds.append(time.perf_counter() - begun)
            return found, min(seconds[1:])

        def theirs(most: int, A: np.ndarray = A) -> tuple[float, float]:
            begun = time.perf_counter()
            model = NMF(25, init="nndsvda", tol=0 if most < 200 else 1e-4, max_iter=most)
            codes = model.fit_transform(A)
            return error_of(A, codes, model.components_), time.perf_counter() - begun

        found = ours(500)[0]
        enough = np.asarray(found.stats.objective) <= 1.001 * float(found.stats.final_objective)
        steps = max(1, int(enough.argmax()))
        own = ours(steps)[1]
        final, iterations, peer = theirs(200)[0], 0, 0.0
        for iterations in (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200):
            reached, peer = theirs(iterations)
            if reached <= 1.001 * final:
                break
        print(
            f"| {rows:,}×{channels:,} | {own:.3f} ({steps}) | {peer:.3f} ({iterations}) | {peer / own:.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", choices=["layers", "explained", "coherence", "speed"], default="layers")
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--count", type=int, default=40, help="photographs of each class")
    parser.add_argument("--fitted", type=int, default=FITTED, help="those of them that concepts are found in")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="those of them that are scored on")
    parser.add_argument("--pictures", type=int, default=12, help="photographs whose predictions are kept")
    parser.add_argument("--layer", choices=[layer for _, layer in PLACES], help="this one alone")
    parser.add_argument("--rank", type=int, default=RANK)
    parser.add_argument("--steps", type=int, default=4, help="steps with the term")
    parser.add_argument(
        "--only", choices=["crops", "places"], help="leave out what takes long: the term, or all places, too"
    )
    parser.add_argument("--quick", action="store_true", help="one layer, one class, few photographs")
    arguments = parser.parse_args()
    arguments.places, arguments.classes = [each for each in PLACES if arguments.layer in (None, each[1])], CLASSES
    if arguments.quick:
        arguments.places, arguments.classes = PLACES[-1:], CLASSES[:1]
        arguments.count, arguments.pictures, arguments.steps = 16, 4, 2
        arguments.fitted, arguments.held_out = 8, 4
    fj.keep_compilations()
    globals()[arguments.question](arguments)


if __name__ == "__main__":
    main()
