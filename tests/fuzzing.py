"""Damaged files and odd arguments, many of them: whatever is given, an error of ours says what is wrong with it.

    python tests/fuzzing.py --cases 100000 [--seed 0] [--only saved,pictures,lines]

A case fails if what comes back is another error than those that are promised, a message that names neither the file nor
the argument, or nothing within a minute. Failing cases are printed with the seed that gives them again. A short run of
it is part of the suite.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import fuzzed_functions
import jax
import numpy as np
from layered_model import layered_model
from PIL import Image

import face_jax as fj
from face_jax import metrics
from face_jax.explanation.saving import text_digest
from face_jax.heads import Affine

SAVED = pathlib.Path(__file__).parent / "explanation" / "saved_format_5"
# What users are promised: every error of ours is one of these.
PROMISED = (ValueError, TypeError, OSError, ImportError)
_SECONDS = 60


class FailedError(Exception):
    """What a case shouldn't do."""


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, left out, put in, doubled, repeated very often, or all behind a place cut off."""
    found = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(0, max(1, len(found))))
        # Headers decide more than what is behind them.
        if random.random() < 0.6:
            place = min(place, int(random.integers(0, 64)))
        length = int(random.choice([1, 2, 4, 8, 64, 1024]))
        change = random.integers(0, 7)
        if change == 0:
            del found[place:]
        elif change == 1:
            del found[place : place + length]
        elif change == 2:
            found[place:place] = random.bytes(length)
        elif change == 3:
            found[place:place] = found[place : place + length]
        elif change == 4:
            found[place:place] = found[place : place + length] * (200_000 // length)
        elif change == 5:
            found[place : place + length] = bytes([int(random.choice([0, 1, 127, 128, 255]))]) * length
        else:
            found[place : place + length] = random.bytes(length)
    return bytes(found)


ODD_JSON: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1.5, float("nan"), float("inf"), 1e308, "", "0", "a",
    "nan", "\0", "é" * 300, "../../etc/passwd", "/", [], {}, [[]], [None], {"": None}, [[1, 2], [3]], [0] * 100,
)  # fmt: skip


_NESTED = "nested"


def changed_json(value: Any, random: np.random.Generator) -> Any:
    """One place somewhere in it is another thing, gone, or there twice."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = list(value)[int(random.integers(len(value)))]
        if random.random() < 0.15:
            rest = {name: one for name, one in value.items() if name != key}
            return rest if random.random() < 0.5 else rest | {key + "x": value[key]}
        return value | {key: changed_json(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        place = int(random.integers(len(value)))
        if random.random() < 0.15:
            return value[:place] + (value[place:] if random.random() < 0.5 else [])
        if random.random() < 0.1:
            return [*value[:place], value[place], *value[place:]]
        return [changed_json(one, random) if number == place else one for number, one in enumerate(value)]
    return _NESTED if random.random() < 0.02 else ODD_JSON[int(random.integers(len(ODD_JSON)))]


def saved(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """Saved explanations, damaged: read, or refused by name."""
    place, model = folder / "saved", layered_model("last")
    names = sorted(file.name for file in SAVED.iterdir())
    shutil.copytree(SAVED, place)

    def case(random: np.random.Generator) -> Any:
        name = names[int(random.integers(len(names)))]
        original = (SAVED / name).read_bytes()
        if name.endswith(".json") and random.random() < 0.7:
            found = changed_json(json.loads(original), random)
            if isinstance(found, dict) and random.random() < 0.8:
                # What somebody else wrote would fit its digest.
                with contextlib.suppress(Exception):
                    found["text_digest"] = text_digest(found)
            changed = json.dumps(found)
            # Deeper than whoever writes JSON could.
            (place / name).write_text(changed.replace(f'"{_NESTED}"', "[" * 100_000 + "]" * 100_000))
        else:
            (place / name).write_bytes(damaged(original, random))
        try:
            return expected(lambda: fj.load(place, model), (fj.SavedFilesError, fj.WrongModelError), str(place), names)
        finally:
            (place / name).write_bytes(original)

    return case


def _pictures() -> dict[str, bytes]:
    random, found = np.random.default_rng(0), {}
    pixels = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    frames = {"save_all": True, "append_images": [colour.rotate(180)] * 3}
    for name, image, options in (
        ("a.jpg", colour, {}), ("b.png", colour, {}), ("c.gif", colour.convert("P"), {}), ("d.bmp", colour, {}),
        ("e.tif", colour, {}), ("f.webp", colour, {}), ("g.png", colour.convert("RGBA"), {}),
        ("h.jpg", colour.convert("CMYK"), {}), ("i.png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), {}),
        ("j.ppm", colour, {}), ("k.tif", colour, {"compression": "tiff_lzw"}), ("l.ico", colour, {}),
        ("m.jpg", colour, {"progressive": True}), ("n.tif", colour, {"compression": "jpeg"}), ("o.jp2", colour, {}),
        ("p.tif", colour, {"tiffinfo": {278: 1}}), ("q.qoi", colour, {}), ("r.webp", colour, frames),
        ("s.png", colour, frames), ("t.gif", colour, frames),
    ):  # fmt: skip
        written = io.BytesIO()
        image.save(written, format=Image.registered_extensions()[pathlib.Path(name).suffix], **options)
        found[name] = written.getvalue()
    # Scans that refine nothing, of which each goes over the whole picture.
    scan = found["m.jpg"].rindex(b"\xff\xda")
    found["u.jpg"] = found["m.jpg"][:-2] + found["m.jpg"][scan:-2] * 300 + found["m.jpg"][-2:]
    return found


def pictures(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """Pictures, damaged: decoded, or refused by name, in bounded memory."""
    place = folder / "pictures"
    place.mkdir()
    originals = _pictures()

    def case(random: np.random.Generator) -> Any:
        name = list(originals)[int(random.integers(len(originals)))]
        data = damaged(originals[name], random)
        if random.random() < 0.1:
            name = list(originals)[int(random.integers(len(originals)))]  # another suffix
        file = place / name
        file.write_bytes(data)

        def read() -> Any:
            found = fj.photographs(file)[0].pixels()
            if found.ndim != 3 or found.shape[-1] != 3 or found.dtype != np.uint8:
                raise FailedError(f"pixels of {found.shape} and {found.dtype}")
            return found

        try:
            return expected(read, (fj.UnreadablePhotographError, fj.NoPhotographsError, ValueError), name)
        finally:
            file.unlink()

    return case


def arrays(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """Archives and files of arrays, damaged or of odd shapes and types: read, or refused by name."""
    place = folder / "arrays"
    place.mkdir()
    good = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)

    def case(random: np.random.Generator) -> Any:
        file = place / ("a.npz" if random.random() < 0.5 else "a.npy")
        given = good
        if random.random() < 0.4:
            shape = tuple(int(side) for side in random.choice([0, 1, 2, 3, 4, 8], int(random.integers(0, 6))))
            dtype = np.dtype(str(random.choice(["u1", "i1", "f2", "f4", "f8", "c8", "?", "i8", "M8[s]", "U3", "S2"])))
            given = (random.random(shape) * random.choice([0.5, 1, 255, 1e300])).astype(
                "f8" if dtype.kind in "MUS" else dtype, casting="unsafe"
            )
            given = given.astype("i8").astype(dtype) if dtype.kind in "MUS" else given
        written = io.BytesIO()
        if file.suffix == ".npy":
            np.save(written, given)
        else:
            np.savez(written, **dict.fromkeys(["x", "y"][: int(random.integers(1, 3))], given))  # pyright: ignore[reportArgumentType]
        data = written.getvalue()
        file.write_bytes(damaged(data, random) if random.random() < 0.7 else data)
        try:
            return expected(
                lambda: [one.pixels() for one in fj.photographs(file)],
                (fj.UnreadablePhotographError, fj.NoPhotographsError, ValueError), file.name,
            )  # fmt: skip
        finally:
            file.unlink()

    return case


WORDS = (
    "", "0", "-1", "1", "2", "1.5", "nan", "inf", "1e400", "99999999999999999999", "auto", "none", "a", "é", "\x00",
    "--", "-", "[", "{}", "<script>", "'", '"', "a b", "/dev/null", "/nowhere/x", ".", "..", "tench", "true", "mixed",
    "resnet18", "hf:", "timm/", "file.py:", "file.py:x", "*", "~", "$HOME", "a" * 5000,
)  # fmt: skip


def lines(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """Command lines: every one ends with one of the command's own messages."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from face_jax.cli.app import app

    empty = folder / "empty"
    empty.mkdir()
    os.mkfifo(folder / "pipe.json")
    words = (*WORDS, str(folder / "pipe.json"), "/dev/zero")
    runner, group = CliRunner(), get_command(app)
    commands = {
        name: [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        for name, command in group.commands.items()  # pyright: ignore[reportAttributeAccessIssue]
        if name != "demo"  # it needs no arguments, and would run
    }

    def case(random: np.random.Generator) -> Any:
        name = list(commands)[int(random.integers(len(commands)))]
        # An empty folder: nothing that's valid by chance can start.
        given = [name, *([str(empty)] if random.random() < 0.8 else [])]
        for _ in range(int(random.integers(0, 5))):
            option = commands[name][int(random.integers(len(commands[name])))]
            if option in ("--out", "--help"):
                continue
            given.append(option)
            if random.random() < 0.8:
                given.append(words[int(random.integers(len(words)))])
        if random.random() < 0.2:
            given.insert(int(random.integers(len(given) + 1)), words[int(random.integers(len(words)))])
        found = runner.invoke(app, [*given, "--out", str(folder / "out")] if name == "explain" else given)
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise FailedError(f"{given}: {type(found.exception).__name__}: {found.exception}") from found.exception
        if "Traceback" in found.output:
            raise FailedError(f"{given}: {found.output[-500:]}")
        return "ended" if found.exit_code == 0 else "refused"

    return case


def _odd_values() -> tuple[Any, ...]:
    some = np.random.default_rng(0).random((12, 6)).astype(np.float32)
    return (
        None, True, False, 0, 1, 2, 3, -1, 10**30, 2**31, 0.0, -0.5, 1.5, float("nan"), float("inf"), 1j, "", "auto",
        "a", b"a", [], [1], [[1.0]], [[1, 2], [3]], {}, {"a": 1}, set(), {1}, object(), object, len, range(3),
        iter([1]),
        np.array([]), np.array(1.0), np.zeros(3), np.zeros((0, 6)), np.zeros((12, 0)), np.zeros((2, 2, 2)), some, -some,
        some.astype("f8"), some.astype("f2"), some.astype(complex), some.astype("i8"), some > 0.5, some.astype(str),
        some.astype(object), np.full((12, 6), np.nan), np.full((12, 6), np.inf), np.zeros((12, 6)), some * 1e-38,
        some * 1e38, some.T, some[::2], some[:, ::-1], np.asfortranarray(some), np.ma.masked_array(some, some > 0.5),
        np.datetime64("2020-01-01"), np.array(["2020-01-01"], "M8[D]"), np.array([(1, 2.0)], "i8,f8").view(np.recarray),
        some[:1], some[:, :1],
        jax.random.key(0), fj.ADMM(), fj.ADMM, fj.Warmup(), fj.SquaredError(), fj.ImplicitAdjoint(), pathlib.Path(),
    )  # fmt: skip


# What messages call an argument, which has other names elsewhere.
ALSO_CALLED = {
    "source": "image|answers",
    "ranks": "rank",
    "photographs": "photographs|image",
    "near": "near|layer",
    "random_presence": "random_presence|presence",
}


def _with_arguments() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Functions, with arguments that they take."""
    A = np.random.default_rng(0).random((12, 6)).astype(np.float32)
    bank, codes = A[:2].copy(), np.random.default_rng(1).random((3, 1, 1, 2)).astype(np.float32)
    maps = np.random.default_rng(2).random((3, 2, 2, 6)).astype(np.float32)
    head = Affine(np.ones((6, 3), np.float32), np.zeros(3, np.float32))
    solution = fj.factorize(A, 2)
    few = {"solver": fj.ADMM(max_steps=2)}
    return {
        "factorize": (fj.factorize, {
            "activations": A, "rank": 2, "objective": fj.SquaredError(), **few, "start": fj.Warmup(), "key": 0,
            "adjoint": fj.ImplicitAdjoint(), "throw": False,
        }),
        "encode": (fj.encode, {"activations": A, "dictionary": bank, "objective": fj.SquaredError()}),
        "factorize_many": (fj.factorize_many, {"activations": [A, A], "rank": 2, **few, "key": 0}),
        "rank_scan": (fj.rank_scan, {"activations": A, "ranks": (2,), "folds": 2, **few, "key": 0}),
        "kkt_residual": (fj.kkt_residual, {
            "activations": A, "codes": solution.codes, "dictionary": solution.dictionary,
        }),
        "certify_codes": (fj.certify_codes, {"activations": A, "dictionary": bank, "codes": A[:, :2].copy()}),
        "total_sobol": (fj.total_sobol, {
            "head": head, "codes": codes, "dictionary": bank, "target": 0, "designs": 4, "scrambles": 2, "key": 0,
        }),
        "gradient_times_code": (fj.gradient_times_code, {
            "head": head, "codes": codes, "dictionary": bank, "target": 0,
        }),
        "tcav": (fj.tcav, {"head": head, "codes": codes, "dictionary": bank, "target": 0, "key": 0}),
        "signs_apart": (fj.signs_apart, {"model": layered_model("last")}),
        "RandomCrops": (fj.RandomCrops, {"per_image": 2, "smallest": 0.25, "largest": 0.6}),
        "GridCrops": (fj.GridCrops, {"size": 0.5, "overlap": 0.5}),
        "Preprocess": (fj.Preprocess, {"size": 8, "resize": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3}),
        "Affine": (Affine, {"kernel": A, "bias": np.zeros(6, np.float32), "places": 1}),
        "ADMM": (fj.ADMM, {"rtol": 1e-3, "max_steps": 2}),
        "HALS": (fj.HALS, {"rtol": 1e-3, "max_steps": 2}),
        "relative_squared_error": (metrics.relative_squared_error, {"activations": maps, "rebuilt": maps}),
        "gini": (metrics.gini, {"importance": np.ones(3)}),
        "random_dictionary": (metrics.random_dictionary, {"channels": 6, "rank": 2, "key": 0}),
        "mean_direction": (metrics.mean_direction, {"rows": A, "rank": 2, "key": 0}),
        "unit_length": (metrics.unit_length, {"vectors": bank}),
        "code_sparsity": (metrics.code_sparsity, {"codes": codes}),
        "ArrayCache": (fj.ArrayCache, {"folder": "kept", "limit": 100}),
        "photographs": (fj.photographs, {"source": np.zeros((1, 8, 8, 3), np.uint8), "channels": 3}),
    }  # fmt: skip


def arguments(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """Public functions with one or two arguments that are something else: they do it, or say which one they can't."""
    del folder
    functions = _with_arguments()
    known = {name: fits(function, settings) for name, (function, settings) in functions.items()}
    odd = _odd_values()

    def case(random: np.random.Generator) -> Any:
        name = list(known)[int(random.integers(len(known)))]
        return _tried(name, functions[name][0], known[name], odd, random)

    return case


def _tried(
    name: str, function: Callable[..., Any], settings: dict[str, Any], odd: tuple[Any, ...], random: np.random.Generator
) -> str:
    """A function with one or two arguments that are something else."""
    wrong = random.choice(list(settings), size=min(len(settings), 1 + int(random.random() < 0.2)), replace=False)
    given = settings | {str(argument): odd[int(random.integers(len(odd)))] for argument in wrong}
    shown = ", ".join(f"{argument}={given[argument]!r:.60}" for argument in map(str, wrong))
    with np.errstate(all="ignore"):
        return expected(
            lambda: jax.block_until_ready(function(**given)), PROMISED, f"{name}({shown})",
            [ALSO_CALLED.get(str(one), str(one)) for one in wrong], names_it=True,
        )  # fmt: skip


def measures(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """As `arguments`: measures, studies, attributions and bridges."""
    table, known, odd = fuzzed_functions.measures(folder), {}, _odd_values()

    def case(random: np.random.Generator) -> Any:
        name = list(table)[int(random.integers(len(table)))]
        function, made = table[name]
        if name not in known:
            known[name] = fits(function, made())
        return _tried(name, function, known[name], odd, random)

    return case


def explanations(folder: pathlib.Path) -> Callable[[np.random.Generator], Any]:
    """What is no explanation, no model or no solution, given for one: refused as such, before anything else."""
    asked, odd = list(fuzzed_functions.refusing(folder)), _odd_values()

    def case(random: np.random.Generator) -> Any:
        name, call, _, meant = asked[int(random.integers(len(asked)))]
        given = odd[int(random.integers(len(odd)))]
        what = f"{name}({given!r:.60})"
        done = expected(lambda: call(given), PROMISED, what, [meant], names_it=True)
        if done == "taken":
            raise FailedError(f"{what}: taken for the {meant}")
        return done

    return case


def unfuzzed(folder: pathlib.Path) -> list[str]:
    """Public functions that are in none of the tables."""
    tables = _with_arguments() | fuzzed_functions.measures(folder)
    fuzzed = {id(getattr(function, "func", function)) for function, _ in tables.values()}
    fuzzed |= {id(function) for _, _, function, _ in fuzzed_functions.refusing(folder)}
    return sorted(name for name, thing in fuzzed_functions.public_functions().items() if id(thing) not in fuzzed)


def fits(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Those arguments that a function takes, of which it must do something sensible."""
    import inspect

    taken = {name: value for name, value in settings.items() if name in inspect.signature(function).parameters}
    function(**taken)
    return taken


def expected(
    call: Callable[[], Any], errors: tuple[type[Exception], ...], what: str, names: Any = (), *, names_it: bool = False
) -> str:
    """What a call did; raises `FailedError` for an error that isn't promised or doesn't say what it's about."""
    try:
        call()
    except FailedError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        message = str(error)
        patterns = [f"({'|'.join(re.escape(part) for part in name.split('|'))})" for name in names]
        if not isinstance(error, errors):
            raise FailedError(f"{what}: {type(error).__name__}: {message[:300]}") from error
        if not (_last_frame_is_ours(error) or any(re.search(rf"\b{name}\b", message) for name in patterns)):
            raise FailedError(f"{what}: somebody else's words: {type(error).__name__}: {message[:300]}") from error
        if names_it and not any(re.search(rf"\b{name}", message) for name in patterns):
            # Constructors and functions alike name what was given to them.
            raise FailedError(f"{what}: names no argument: {type(error).__name__}: {message[:300]}") from error
        return "refused"
    return "taken"


def _last_frame_is_ours(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and bool({"face_jax", "bridges"} & set(pathlib.Path(frames[-1].filename).parts[:-1]))


KINDS = {kind.__name__: kind for kind in (saved, pictures, arrays, lines, arguments, measures, explanations)}


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Stops what takes longer."""

    def stop(*_: Any) -> None:
        raise FailedError(f"nothing came back within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(kind: str, cases: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Counts of what happened, and the different failures."""
    counts: dict[str, int] = collections.Counter()
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        case = KINDS[kind](pathlib.Path(folder))
        for number in range(seed, seed + cases):
            try:
                with within(_SECONDS):
                    counts[case(np.random.default_rng(number))] += 1
            except FailedError as error:
                counts["failed"] += 1
                # Alike but for what was given.
                failures.setdefault(re.sub(r"0x[0-9a-f]+|\d+", "#", str(error))[:160], f"{kind} {number}: {error}")
    return dict(counts), list(failures.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS), help="some of these, with commas between them")
    parser.add_argument("--unfuzzed", action="store_true", help="only tell which public functions aren't called")
    options = parser.parse_args()
    if options.unfuzzed:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(unfuzzed(pathlib.Path(folder))))
        return 0
    warnings.simplefilter("ignore")
    kinds, wrong = options.only.split(","), 0
    for kind in kinds:
        begin = time.perf_counter()
        counts, failures = run(kind, options.cases // len(kinds), options.seed)
        print(f"{kind}: {counts}, {time.perf_counter() - begin:.0f} s", flush=True)
        for failure in failures:
            print(f"  {failure}", flush=True)
        wrong += len(failures)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
