"""How much sooner is the faithful factorization where the published algorithm ends, and what does λ buy on photographs?

    python benchmarks/faithfulness.py adam         # all 22,000 steps of Adam-and-clamp in torch, kept for the next two
    python benchmarks/faithfulness.py speed        # time to the final objective of Adam-and-clamp
    python benchmarks/faithfulness.py longer       # objectives, Adam-and-clamp ten times as long
    python benchmarks/faithfulness.py tradeoff     # held-out KL and error along λ, eight classes of photographs
    python benchmarks/faithfulness.py tradeoff --mirrored   # the same, mirror images beside the photographs fitted
    python benchmarks/faithfulness.py memory       # memory beyond the activations

Activations of EfficientNet-Lite0 (1,280 channels, 1,000 classes) on photographs; 512 channels are those with the
largest mean, with the head's kernel at these. Rows are averages of random windows of the maps. The photographs have to
lie in a folder of class folders' pictures named by a manifest (`--data`); activations are kept in `.cache/`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / ".cache" / "benchmarks" / "lite0"
DATA = ROOT.parent / "shared" / "data"
RANK, CLASSES = 25, ("0", "217", "482", "491", "497", "566", "571", "574")
PUBLISHED = 1e-5
FAITHFUL_CODES = 0.1  # of the dictionary's λ: codes of one image follow its predictions more easily than concepts do


def collect(data: pathlib.Path, *, mirrored: bool = False) -> None:
    """Maps of the photographs that the network puts in their class, and of their mirror images, kept class by class."""
    wanted = ["maps", "mirrored"] if mirrored else ["maps"]
    if all((KEPT / f"{label}-{kind}.npy").exists() for label in CLASSES for kind in wanted):
        return
    from face_jax import bridges
    from face_jax.pictures.photographs import network_input, photographs

    KEPT.mkdir(parents=True, exist_ok=True)
    loaded = bridges.load("efficientnet_lite0")
    places = bridges.layers(loaded.model, size=loaded.preprocess.size)
    model = loaded.split(bridges.suggest_layer(places, classes=1000).name)
    np.savez(KEPT / "head.npz", kernel=np.asarray(model.head.kernel), bias=np.asarray(model.head.bias))
    rows = [row for row in csv.DictReader((data / "manifest.csv").open()) if row["file"].startswith("images/imagenet/")]
    for label in CLASSES:
        files = [data / row["file"] for row in rows if row["imagenet_index"] == label and row["lite0_correct"] == "1"]
        found: dict[str, list[np.ndarray]] = {kind: [] for kind in wanted}
        for first in range(0, len(files), 32):
            pixels = [photographs([file])[0].pixels() for file in files[first : first + 32]]
            given = np.stack([network_input(p, model.preprocess) for p in pixels])
            maps = np.asarray(model.features(jnp.asarray(given)))
            right = np.asarray(model.head(jnp.asarray(maps))).argmax(-1) == int(label)
            found["maps"].append(maps[right])
            if mirrored:
                # Mirrored as the network gets them, all columns of them.
                found["mirrored"].append(np.asarray(model.features(jnp.asarray(given[right][:, :, ::-1]))))
        for kind, some in found.items():
            np.save(KEPT / f"{label}-{kind}.npy", np.concatenate(some))


def maps_of(label: str, kind: str = "maps") -> np.ndarray:
    return np.load(KEPT / f"{label}-{kind}.npy")


def resampled(maps: np.ndarray, times: int) -> np.ndarray:
    """Photographs whose places are drawn from a photograph's own, `photograph × time × height × width × channel`."""
    places = maps.reshape(len(maps), -1, maps.shape[-1])
    drawn = np.random.default_rng(0).integers(places.shape[1], size=(len(maps), times, places.shape[1]))
    found = np.take_along_axis(places[:, None], drawn[..., None], axis=2)
    return found.reshape(len(maps), times, *maps.shape[1:])


def windows(count: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, kernel and bias."""
    generator = np.random.default_rng(0)
    head = np.load(KEPT / "head.npz")
    kernel, bias = head["kernel"], head["bias"]
    rows = []
    maps = [maps_of(label) for label in CLASSES]
    total = sum(map(len, maps))
    for one in maps:
        for _ in range(-(-count * len(one) // total)):
            side = generator.integers(2, 6)
            top, left = generator.integers(0, 8 - side, 2)
            image = one[generator.integers(len(one))]
            rows.append(image[top : top + side, left : left + side].mean((0, 1)))
    rows = np.stack(rows)[generator.permutation(len(rows))[:count]]
    if channels < rows.shape[1]:
        chosen = np.sort(np.argsort(-rows.mean(0))[:channels])
        rows, kernel = rows[:, chosen], kernel[chosen]
    return np.ascontiguousarray(rows), np.ascontiguousarray(kernel), bias


def torch_adam(rows, kernel, bias, codes, dictionary, weight, *, steps=22_000, atol=1e-3, seconds=np.inf):
    """The published algorithm as it was published: autograd through the head, one Adam on both factors, clamped.

    Gives the losses (mean squared error plus λ times the mean divergence), the seconds spent, and whether it ended.
    """
    import torch
    from torch.nn import functional

    a, k, b = (torch.from_numpy(np.array(x)) for x in (rows, kernel, bias))
    u, w = (torch.from_numpy(np.array(x)).requires_grad_() for x in (codes, dictionary))
    head = torch.nn.Linear(*kernel.shape)
    with torch.no_grad():
        head.weight.copy_(k.T)
        head.bias.copy_(b)
        target = functional.softmax(head(a), -1)
    head.requires_grad_(False)
    optimizer = torch.optim.Adam([u, w], lr=5e-4)
    losses, begun, ended = [], time.perf_counter(), False
    for _ in range(steps):
        optimizer.zero_grad()
        rebuilt = u @ w
        divergence = functional.kl_div(functional.log_softmax(head(rebuilt), -1), target, reduction="batchmean")
        loss = functional.mse_loss(rebuilt, a) + weight * divergence
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            u.clamp_(min=0)
            w.clamp_(min=0)
        losses.append(loss.item())
        if len(losses) > 1 and abs(losses[-1] - losses[-2]) < atol:
            ended = True
            break
        if time.perf_counter() - begun > seconds:
            break
    return losses, time.perf_counter() - begun, ended


def problem(count: int, channels: int, weight: float, *, kept: bool = True):
    from face_jax.faithfulness import Faithfulness, InMeans
    from face_jax.heads import Affine
    from face_jax.nmf import NNDSVD, SquaredError

    rows, kernel, bias = windows(count, channels)
    head = Affine(jnp.asarray(kernel), jnp.asarray(bias))
    objective = SquaredError() + weight * Faithfulness(head, unit=InMeans(), keep_predictions=kept)
    codes, dictionary = NNDSVD()(jnp.asarray(rows), RANK, signed=False, key=jax.random.key(0))
    return rows, kernel, bias, objective, np.asarray(codes.T), np.asarray(dictionary)


def kept_losses(count: int, channels: int, weight: float) -> pathlib.Path:
    """Where a run of all the steps is kept."""
    return KEPT / f"adam-{count}-{channels}-{weight:g}.npy"


def adam(arguments) -> None:
    """Every step of the peer without its stopping rule; its objectives don't depend on what else the machine does."""
    for count, channels, weight in cases(arguments):
        rows, kernel, bias, _, codes, dictionary = problem(count, channels, weight)
        losses, seconds, _ = torch_adam(rows, kernel, bias, codes, dictionary, weight, atol=-1.0)
        np.save(kept_losses(count, channels, weight), losses)
        shown = ", ".join(f"{step:,}: {losses[step - 1]:.5f}" for step in (10, 100, 1000, 10_000, len(losses)))
        print(f"n={count:,} p={channels} λ={weight:g}: {seconds:.0f} s; objective after {shown}", flush=True)


def ours(rows, objective, goal: float):
    """Seconds (a median), starts, steps and objective of the shortest run that gets below a goal (published unit).

    A start that converges above the goal is followed by the library's next one, and its time counts.
    """
    from face_jax.nmf import ADMM, NNDSVD, NNDSVDa, NNDSVDar, Random, Warmup, factorize

    activations = jnp.asarray(rows)
    starts = [Warmup(start) for start in (NNDSVD(), NNDSVDa(), NNDSVDar(), Random())]

    def run(start, steps: int):
        begun = time.perf_counter()
        solver = ADMM(max_steps=steps, rtol=1e-4)
        found = factorize(activations, RANK, objective=objective, solver=solver, start=start)
        jax.block_until_ready(found.codes)
        value = float(found.stats.final_objective) * 2 / activations.size
        return time.perf_counter() - begun, int(found.stats.steps), value

    spent, number = 0.0, 0
    for start in starts:
        number += 1
        for steps in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256):
            _, taken, value = run(start, steps)
            if value <= goal or taken < steps:
                break
        spent += statistics.median(run(start, steps)[0] for _ in range(3))
        if value <= goal:
            break
    return spent, number, taken, value


def speed(arguments) -> None:
    """The peer as published, without its rule for `--seconds`, and after all its steps where they have been kept."""
    print(
        "| n | p | λ (code's unit) | Adam | steps | s | its objective | ours: s | starts | steps | objective | faster |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for count, channels, weight in cases(arguments):
        rows, kernel, bias, objective, codes, dictionary = problem(count, channels, weight)
        torch_adam(rows, kernel, bias, codes, dictionary, weight, steps=3)  # threads and caches are warm
        found = []
        for name, atol in (("stops at 1e-3", 1e-3), ("doesn't stop", -1.0)):
            losses, seconds, _ = torch_adam(
                rows, kernel, bias, codes, dictionary, weight, atol=atol, seconds=arguments.seconds
            )
            found.append((name, len(losses), seconds, losses[-1]))
        if kept_losses(count, channels, weight).exists():
            every = np.load(kept_losses(count, channels, weight))
            _, steps, seconds, _ = found[-1]
            found.append(("doesn't stop, s a step × steps", len(every), seconds / steps * len(every), every[-1]))
        for name, number, seconds, last in found:
            seconds_of_ours, starts, steps, value = ours(rows, objective, last)
            faster = f"{seconds / seconds_of_ours:.0f}" if value <= last else "not reached"
            print(
                f"| {count:,} | {channels} | {weight:g} | {name} | {number:,} | {seconds:.1f} | {last:.5f} | "
                f"{seconds_of_ours:.3f} | {starts} | {steps} | {value:.5f} | {faster} |",
                flush=True,
            )


def longer(arguments) -> None:
    """Ten times the steps that the published rule allows, and all 22,000 where they have been kept."""
    from face_jax.nmf import ADMM, factorize

    print("| n | p | λ (code's unit) | Adam: steps | its objective | ours: s | steps | objective | residual |")
    print("|---|---|---|---|---|---|---|---|---|")
    for count, channels, weight in cases(arguments):
        rows, kernel, bias, objective, codes, dictionary = problem(count, channels, weight)
        short, _, _ = torch_adam(rows, kernel, bias, codes, dictionary, weight)
        losses, _, _ = torch_adam(rows, kernel, bias, codes, dictionary, weight, steps=10 * len(short), atol=-1)
        peers = [losses]
        if kept_losses(count, channels, weight).exists():
            peers.append(np.load(kept_losses(count, channels, weight)))
        begun = time.perf_counter()
        solver = ADMM(max_steps=arguments.steps, rtol=1e-4)
        found = factorize(jnp.asarray(rows), RANK, objective=objective, solver=solver)
        value, seconds = float(found.stats.final_objective) * 2 / rows.size, time.perf_counter() - begun
        for peer in peers:
            print(
                f"| {count:,} | {channels} | {weight:g} | {len(peer):,} | {peer[-1]:.5f} | "
                f"{seconds:.1f} (compilation too) | {int(found.stats.steps)} | {value:.5f} | "
                f"{float(found.stats.final_residual):.1e} |",
                flush=True,
            )


def cases(arguments):
    if arguments.n:
        return [(n, p, weight) for n in arguments.n for p in arguments.p for weight in arguments.weight]
    small = [(2000, p, weight) for weight in (PUBLISHED, 1e3 * PUBLISHED) for p in (512, 1280)]
    return small + [(20_000, p, PUBLISHED) for p in (512, 1280)]


def tradeoff(arguments) -> None:
    """A share of a class's photographs is held out; a quarter of the others chooses λ, then all of them are fitted."""
    from face_jax.faithfulness import Faithfulness, certify, faithfulness_path
    from face_jax.heads import Affine
    from face_jax.metrics import certificates
    from face_jax.nmf import ADMM, NNDSVD, Given, SquaredError, encode, factorize

    head = np.load(KEPT / "head.npz")
    term = Faithfulness(Affine(jnp.asarray(head["kernel"]), jnp.asarray(head["bias"]), places=49))
    solver = ADMM(max_steps=arguments.steps, rtol=1e-4)
    # Predictions at a higher temperature say more of all classes; what's judged and scored stays as it is.
    softened = dataclasses.replace(
        term, head=Affine(term.head.kernel / arguments.temperature, term.head.bias / arguments.temperature, places=49)
    )
    rows_of = lambda maps: jnp.asarray(maps.reshape(-1, maps.shape[-1]))  # noqa: E731
    print(
        "| class | fitted + held out | λ | KL: λ=0 | KL: auto | ratio | error: λ=0 | error: auto | ratio | "
        "faithful codes, KL: λ=0 | auto | error: λ=0 | auto | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for label in arguments.classes or CLASSES:
        maps = maps_of(label)
        order = np.random.default_rng(0).permutation(len(maps))
        half = round((1 - arguments.held_out) * len(maps))
        fitted, held_out = maps[order[:half]], maps[order[half:]]
        quarter = half // 4
        begun = time.perf_counter()
        # Each beside its mirror image, but for those that are chosen by, and scored.
        pairs = np.stack([maps, maps_of(label, "mirrored")], 1) if arguments.mirrored else maps[:, None]
        if arguments.resampled:
            pairs = np.concatenate([pairs, resampled(maps, arguments.resampled)], 1)
        more = pairs[order[:half]].reshape(-1, *maps.shape[1:])
        chosen_from = pairs[order[quarter:half]].reshape(-1, *maps.shape[1:])
        weighed = choosing = softened
        if arguments.weighed:
            alone = factorize(rows_of(fitted), RANK, solver=solver, start=NNDSVD())
            said = [term.head(rows_of(fitted)), term.head(alone.codes @ alone.dictionary)]
            weights = certificates(*map(np.asarray, said)).kl ** arguments.weighed
            weighed, choosing = (
                dataclasses.replace(softened, weights=w / w.mean()) for w in (weights, weights[quarter:])
            )
        path = faithfulness_path(
            rows_of(chosen_from), RANK, choosing, rows_of(fitted[:quarter]), held_out_term=term, solver=solver
        )
        heeding = SquaredError() + FAITHFUL_CODES * path.weight * term
        both = []
        if arguments.mirrored or arguments.resampled:  # plain NMF has the photographs alone
            plain = factorize(rows_of(fitted), RANK, solver=solver, start=NNDSVD())
            both = [
                certify(term, rows_of(fitted), plain, held_out=rows_of(held_out), objective=objective)
                for objective in (SquaredError(), heeding)
            ]
        start, warm = None, None
        if arguments.warm:
            some = rows_of(fitted[::2])
            for weight in sorted({0.0, *(point.weight for point in path.points[: path.chosen + 1])}):
                begin = NNDSVD() if warm is None else Given(warm.codes, warm.dictionary)
                warm = factorize(some, RANK, objective=SquaredError() + weight * softened, solver=solver, start=begin)
        for weight in sorted({0.0, *(point.weight for point in path.points[: path.chosen + 1])}):
            if warm is not None and weight == path.weight > 0:
                start = dataclasses.replace(warm, codes=encode(rows_of(more), warm.dictionary))
            found = factorize(
                rows_of(more), RANK, objective=SquaredError() + weight * weighed, solver=solver,
                start=NNDSVD() if start is None else Given(start.codes, start.dictionary),
            )  # fmt: skip
            start = found
            if weight in (0.0, path.weight):
                for objective in (SquaredError(), heeding):
                    both.append(certify(term, rows_of(more), found, held_out=rows_of(held_out), objective=objective))
        plain, plain_heeding, chosen, chosen_heeding = both[:2] + both[-2:]
        kl = [float(one.held_out.kl.mean()) for one in (plain, chosen)]
        error = [one.held_out_error for one in (plain, chosen)]
        ratios.append((kl[1] / kl[0], error[1] / error[0]))
        print(
            f"| {label} | {half} + {len(held_out)} | {path.weight:.3g} | "
            f"{kl[0]:.3f} | {kl[1]:.3f} | {kl[1] / kl[0]:.2f} | "
            f"{error[0]:.4f} | {error[1]:.4f} | {error[1] / error[0]:.3f} | "
            f"{plain_heeding.held_out.kl.mean():.3f} | {chosen_heeding.held_out.kl.mean():.3f} | "
            f"{plain_heeding.held_out_error:.4f} | {chosen_heeding.held_out_error:.4f} | "
            f"{time.perf_counter() - begun:.0f} |",
            flush=True,
        )
        for point in path.points:
            print(
                f"<!-- {label} λ={point.weight:.3g} "
                f"chosen on: error {point.held_out_error:.4f} KL {point.held_out_loss:.4f} "
                f"fitted: error {point.error:.4f} KL {point.loss:.4f} residual {point.residual:.1e} -->",
                flush=True,
            )
    print("mean ratios of KL and error:", np.mean(ratios, axis=0).round(3))


def memory(arguments) -> None:
    """What the compiled programs ask for beside their input, MiB, and seconds of a step once compiled."""
    from face_jax.nmf import ADMM, NNDSVD, factorize
    from face_jax.nmf.solvers.solver import _factorize_with_terms
    from face_jax.nmf.terms import lambda_weights

    print("| n | rows | one row × concept | predictions | kept | needs | s a step |")
    print("|---|---|---|---|---|---|---|")
    for count in arguments.n or (2000, 20_000, 40_000):
        for kept in (True, False):
            rows, _, _, objective, _, _ = problem(count, 1280, PUBLISHED, kept=kept)
            activations, terms = jnp.asarray(rows), objective.terms
            prepared = lambda_weights.prepare(terms, activations)
            first = lambda_weights._prepare.lower(tuple(one.term for one in terms), activations)
            then = _factorize_with_terms.lower(
                activations, RANK, objective, prepared, ADMM(max_steps=12), NNDSVD(), jax.random.key(0)
            )
            needs = [one.compile().memory_analysis() for one in (first, then)]
            most = max(
                needs[0].temp_size_in_bytes + needs[0].output_size_in_bytes,
                needs[1].temp_size_in_bytes + needs[1].output_size_in_bytes + needs[0].output_size_in_bytes,
            )
            times = []
            for steps in (2, 12, 2, 12):
                begun = time.perf_counter()
                solver = ADMM(max_steps=steps, rtol=0.0)
                factorize(activations, RANK, objective=objective, solver=solver).codes.block_until_ready()
                times.append(time.perf_counter() - begun)
            mib = count * 4 / 2**20
            print(
                f"| {count:,} | {1280 * mib:.0f} | {RANK * mib:.1f} | {1000 * mib:.0f} | {'yes' if kept else 'no'} | "
                f"{most / 2**20:.0f} | {(times[3] - times[2]) / 10:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=["adam", "speed", "longer", "tradeoff", "memory"])
    parser.add_argument("--data", type=pathlib.Path, default=DATA)
    parser.add_argument("--n", type=int, nargs="*", default=[])
    parser.add_argument("--p", type=int, nargs="+", default=[512, 1280])
    parser.add_argument("--weight", type=float, nargs="+", default=[PUBLISHED])
    parser.add_argument("--seconds", type=float, default=60.0, help="cut a peer's run off after so long")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--classes", nargs="*")
    parser.add_argument("--held-out", type=float, default=0.5)
    parser.add_argument(
        "--mirrored", action="store_true", help="of tradeoff: mirror images beside the photographs fitted"
    )
    parser.add_argument(
        "--weighed", type=float, default=0.0, metavar="POWER",
        help="of tradeoff: each photograph fitted counts as this power of its KL without the term",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="of tradeoff: of the predictions that are fitted"
    )
    parser.add_argument(
        "--resampled", type=int, default=0, metavar="TIMES",
        help="of tradeoff: beside each photograph fitted so many whose places are drawn from its own",
    )  # fmt: skip
    parser.add_argument("--warm", action="store_true", help="of tradeoff: begin with the concepts of every other one")
    arguments = parser.parse_args()
    if (arguments.mirrored or arguments.resampled) and (arguments.weighed or arguments.warm):
        parser.error("--mirrored and --resampled add photographs, which --weighed and --warm don't know; give one")
    collect(arguments.data, mirrored=arguments.mirrored)
    globals()[arguments.question](arguments)


if __name__ == "__main__":
    main()
