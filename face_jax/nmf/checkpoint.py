"""Checkpoints: a run that was killed goes on from the last one, and ends as if it hadn't been."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..support.arguments import check_count, path_of, real, shown
from ..support.atomic_folder import claimed
from ..support.extras import installing
from ..support.to_disk import put_at

_PIECE = 32 * 2**20  # bytes that are copied at a time
_KEPT = 2  # checkpoints that stay, the last ones
_LONGEST = 2000  # bytes that processes tell each other
_NAME = re.compile(r"step-(\d{9})")


class CheckpointError(ValueError):
    """A checkpoint that can't be gone on from: of another problem, or damaged."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where a factorization's state is kept while it runs, and how often.

    The state is written beside the last one and takes its name in one step, so that a run can be killed at any moment.
    Called again with the same arguments, `factorize` goes on from the last checkpoint and ends with the same bits, on
    as many devices of the same kind. The solver's `max_steps` may differ: a run that was out of steps takes more, and
    ends as if it had been allowed them from the beginning. Activations that are spread over devices may lie on others
    then, which changes the rounding. Needs Orbax: `pip install '.[checkpoint]'`.

    **Arguments:**

    - `folder`: where; for this factorization alone.
    - `steps`: steps from one to the next.
    - `minutes`: minutes from one to the next at most, which counts for steps that take long; None for no limit.

    **Example:**

    >>> fj.factorize(A, 3, checkpoint=fj.Checkpoint(folder / "run", steps=5)).dictionary.shape
    (3, 12)
    """

    folder: str | os.PathLike[str]
    steps: int = 20
    minutes: float | None = 10.0

    def __post_init__(self) -> None:
        path_of("folder", self.folder, "a folder")
        check_count("steps", self.steps, "steps")
        if self.minutes is not None:
            real("minutes", self.minutes, "time", above=0)


def check_checkpoint(checkpoint: Any) -> Checkpoint | None:
    """A checkpoint, checked: a folder stands for one in it."""
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        found = checkpoint
    elif isinstance(checkpoint, (str, pathlib.PurePath)) and str(checkpoint):
        found = Checkpoint(checkpoint)
    else:
        raise ValueError(f"checkpoint={shown(checkpoint)} isn't valid; give a folder, or Checkpoint(folder, steps=...)")
    if found is not None:
        _orbax()
    return found


class Keeper:
    """Keeps one run's states.

    **Arguments:**

    - `checkpoint`: where and how often.
    - `together`: whether it's one run of all of JAX's processes, each of which keeps what lies on its devices; the
        folder's names are the first process's business then.
    """

    def __init__(self, checkpoint: Checkpoint, *, together: bool = False) -> None:
        self.checkpoint, self.folder = checkpoint, pathlib.Path(checkpoint.folder)
        self.together = together and jax.process_count() > 1
        self.problem, self.max_steps = dict[str, Any](), 0
        self.saved, self.at = 0, time.monotonic()
        self._claim = contextlib.ExitStack()
        name = self._by_one(self._open)
        self.last = self.folder / name if name else None

    def check(self, problem: dict[str, Any], max_steps: int) -> None:
        """Raises `CheckpointError` where the last state isn't one that this run can go on from.

        **Arguments:**

        - `problem`: what is factorized and how, by name; each entry has to be the same in a run that goes on.
        - `max_steps`: how many steps there may be.
        """
        self.problem, self.max_steps = json.loads(json.dumps(problem)), max_steps

        def checked() -> str:
            if self.last is not None:
                self._note()
            return ""

        self._by_one(checked)

    def close(self) -> None:
        """Others may use the folder again."""
        self._claim.close()

    def _open(self) -> str:
        """Takes the folder; the name of the last checkpoint in it, if there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim.enter_context(claimed(self.folder))
        try:
            for torn in self.folder.glob(".part-*"):
                # A run was killed while it wrote this.
                shutil.rmtree(torn, ignore_errors=True)
            names = self._names()
        except BaseException:
            self.close()
            raise
        return names[-1] if names else ""

    def _names(self) -> list[str]:
        return sorted(each.name for each in self.folder.iterdir() if _NAME.fullmatch(each.name))

    def _by_one(self, work: Callable[[], str]) -> str:
        """What a process's work gives; of several together what the first one's does, and where it raises, all do."""
        if not self.together:
            return work()
        found, error = "", None
        if jax.process_index() == 0:
            try:
                found = work()
            except Exception as raised:
                found, error = str(raised), raised
        text = found.encode()[:_LONGEST]
        told = np.zeros(_LONGEST + 1, np.uint8)
        told[0], told[1 : 1 + len(text)] = error is not None, np.frombuffer(text, np.uint8)
        told = np.asarray(multihost_utils.broadcast_one_to_all(told))
        if error is not None:
            raise error
        found = told[1:].tobytes().rstrip(b"\0").decode(errors="ignore")
        if told[0]:
            raise CheckpointError(found)
        return found

    def load(self, like: Callable[[int], Any], arrays: list[np.ndarray]) -> tuple[Any, dict[str, Any]]:
        """The last state, and what was said of it; fills the arrays. Raises `CheckpointError` if it's damaged.

        **Arguments:**

        - `like`: from how many steps its run could take to a state of these shapes; where they say how they are spread
            over devices, this one is spread in that way.
        - `arrays`: beside it.
        """
        assert self.last is not None
        note = self._note()
        leaves, structure = jax.tree.flatten(like(int(note["max_steps"])))
        try:
            with _orbax().StandardCheckpointer() as keeper:
                found = keeper.restore(
                    (self.last / "state").absolute(),
                    # There is no array without entries on disk.
                    {str(number): _wanted(leaf) for number, leaf in enumerate(leaves) if leaf.size},
                )
            for number, array in enumerate(arrays):
                _filled(self.last / f"codes-{number}", array, note["codes"][number])
        # Readers raise nearly anything at damaged files.
        except Exception as error:
            raise self._damaged(error) from error
        filled = [
            found[str(number)] if leaf.size else np.zeros(leaf.shape, leaf.dtype) for number, leaf in enumerate(leaves)
        ]
        filled = [leaf if isinstance(leaf, jax.Array) else jax.numpy.asarray(leaf) for leaf in filled]
        state = jax.tree.unflatten(structure, filled)
        if note["seal"] is not None and note["seal"] != digest_of_tree(state):
            raise self._damaged(ValueError("its state isn't what was written"))
        self.saved = int(note["step"])
        return state, note["said"]

    def wanted(self, step: int) -> bool:
        """Whether it's time for one; processes together have to agree on that."""
        late = self.checkpoint.minutes is not None and time.monotonic() - self.at >= 60 * self.checkpoint.minutes
        return step > self.saved and (step - self.saved >= self.checkpoint.steps or late)

    def save(self, step: int, state: Any, arrays: list[np.ndarray], said: dict[str, Any]) -> None:
        """Keep a state."""
        leaves = jax.tree.leaves(state)
        spread = any(map(_spread, leaves))
        part, place = self.folder / f".part-{step}", self.folder / f"step-{step:09d}"

        def begin() -> str:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            return ""

        def end() -> str:
            digests = [_copied(array, part / f"codes-{number}") for number, array in enumerate(arrays)]
            note = {
                "problem": self.problem, "max_steps": self.max_steps, "step": step, "said": said, "codes": digests,
                "seal": seal,
            }  # fmt: skip
            text = json.dumps(note)
            sealed = {"note": text, "digest": hashlib.sha256(text.encode()).hexdigest()}
            (part / "note.json").write_text(json.dumps(sealed))
            put_at(part, place)
            for name in self._names()[:-_KEPT]:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            return ""

        self._by_one(begin)
        seal = digest_of_tree(state) if spread else None
        with _orbax().StandardCheckpointer() as keeper:
            keeper.save(
                (part / "state").absolute(),
                {
                    str(number): leaf if _spread(leaf) else np.asarray(leaf)
                    for number, leaf in enumerate(leaves)
                    if leaf.size
                },
            )
            keeper.wait_until_finished()
        self._by_one(end)
        self.saved, self.at = step, time.monotonic()

    def _note(self) -> dict[str, Any]:
        assert self.last is not None
        try:
            sealed = json.loads((self.last / "note.json").read_text())
            if hashlib.sha256(sealed["note"].encode()).hexdigest() != sealed["digest"]:
                raise ValueError("its note isn't what was written")
            note = json.loads(sealed["note"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        different = [name for name, value in self.problem.items() if note["problem"].get(name) != value]
        if different:
            raise CheckpointError(
                f"checkpoint={str(self.folder)!r} is of another problem: its {' and '.join(different)} "
                f"{'is' if len(different) == 1 else 'are'} not this one's; delete it, or give another folder"
            )
        if note["step"] > self.max_steps:
            raise CheckpointError(
                f"the last checkpoint, {str(self.last)!r}, is behind max_steps={self.max_steps}; give the solver at "
                f"least max_steps={note['step']}, or give another folder"
            )
        return note

    def _damaged(self, error: Exception) -> CheckpointError:
        assert self.last is not None
        return CheckpointError(
            f"the last checkpoint, {str(self.last)!r}, is damaged ({error}); delete it to go on from the one before, "
            "or give another folder"
        )


def agreed(*numbers: int) -> tuple[int, ...]:
    """Small numbers as the first process has them."""
    if jax.process_count() == 1:
        return numbers
    return tuple(map(int, multihost_utils.broadcast_one_to_all(np.asarray(numbers, np.int32))))


def digest_of_tree(tree: Any) -> str:
    """A digest of the numbers in a pytree and of what it's made of, the same in every process."""
    leaves, structure = jax.tree.flatten(tree)
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(structure)).encode())
    for leaf in leaves:
        if jax.numpy.issubdtype(getattr(leaf, "dtype", np.float64), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if _spread(leaf):
            digest.update(f"{leaf.dtype} {leaf.shape};".encode())
            digest.update(np.asarray(_mixed(leaf)).data)
            continue
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


def _spread(leaf: Any) -> bool:
    """Whether an array lies on several devices."""
    return isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1


def _wanted(leaf: Any) -> Any:
    """What Orbax restores an array as."""
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else np.zeros(leaf.shape, leaf.dtype)


@jax.jit
def _mixed(x: jax.Array) -> jax.Array:
    """128 bits of an array, each device's share summed up there: they don't depend on how it is spread.

    Whole numbers below 2³²: each word times an odd number that is its place's, four times over.
    """
    if x.dtype == bool:
        x = x.astype(jax.numpy.uint8)
    words = jax.lax.bitcast_convert_type(x, f"uint{8 * min(x.dtype.itemsize, 4)}").astype(jax.numpy.uint32)
    place = jax.numpy.zeros(words.shape, jax.numpy.uint32)
    for axis in range(words.ndim):
        place = _scrambled(place ^ jax.lax.broadcasted_iota(jax.numpy.uint32, words.shape, axis))
    each = [jax.numpy.sum(words * (_scrambled(place + np.uint32(seed)) | np.uint32(1)), dtype=jax.numpy.uint32)
            for seed in range(1, 5)]  # fmt: skip
    return jax.numpy.stack(each)


def _scrambled(x: jax.Array) -> jax.Array:
    """The last steps of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def _copied(array: np.ndarray, path: pathlib.Path) -> list[int]:
    """Writes an array to a file; its length and its checksum."""
    raw, crc = array.reshape(-1).view(np.uint8), 0
    with path.open("wb") as file:
        for start in range(0, raw.size, _PIECE):
            piece = raw[start : start + _PIECE].tobytes()
            crc = zlib.crc32(piece, crc)
            file.write(piece)
    return [raw.size, crc]


def _filled(path: pathlib.Path, array: np.ndarray, noted: list[int]) -> None:
    raw, crc = array.reshape(-1).view(np.uint8), 0
    if path.stat().st_size != noted[0] or raw.size != noted[0]:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes and {noted[0]} were written")
    with path.open("rb") as file:
        for start in range(0, raw.size, _PIECE):
            piece = file.read(min(_PIECE, raw.size - start))
            crc = zlib.crc32(piece, crc)
            raw[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
    if crc != noted[1]:
        raise ValueError(f"{path.name} isn't what was written")


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ModuleNotFoundError as error:
        raise ImportError(f"checkpoint= needs Orbax, which is not installed; {installing('checkpoint')}") from error
    return orbax.checkpoint
