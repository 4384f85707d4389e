"""Checkpoints: a run that was killed goes on from the last one, and ends as if it hadn't been."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
import zlib
from typing import Any

import jax
import numpy as np

from ..support.arguments import check_count, path_of, real, shown
from ..support.atomic_folder import claimed
from ..support.extras import installing
from ..support.to_disk import put_at

_PIECE = 32 * 2**20  # bytes that are copied at a time
_KEPT = 2  # checkpoints that stay, the last ones
_NAME = re.compile(r"step-(\d{9})")


class CheckpointError(ValueError):
    """A checkpoint that can't be gone on from: of another problem, or damaged."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where a factorization's state is kept while it runs, and how often.

    The state is written beside the last one and takes its name in one step, so that a run can be killed at any moment.
    Called again with the same arguments, `factorize` goes on from the last checkpoint and ends with the same bits, on
    as many devices of the same kind. Needs Orbax: `pip install '.[checkpoint]'`.

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
    - `problem`: what is factorized and how, by name; each entry has to be the same in a run that goes on.
    """

    def __init__(self, checkpoint: Checkpoint, problem: dict[str, Any]) -> None:
        self.checkpoint, self.folder = checkpoint, pathlib.Path(checkpoint.folder)
        self.problem = json.loads(json.dumps(problem))
        self.saved, self.at = 0, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim = claimed(self.folder)
        self._claim.__enter__()
        for torn in self.folder.glob(".part-*"):
            # A run was killed while it wrote this.
            shutil.rmtree(torn, ignore_errors=True)
        names = sorted(each.name for each in self.folder.iterdir() if _NAME.fullmatch(each.name))
        self.last = self.folder / names[-1] if names else None
        if self.last is not None:
            self._note()

    def close(self) -> None:
        """Others may use the folder again."""
        self._claim.__exit__(None, None, None)

    def load(self, like: Any, arrays: list[np.ndarray]) -> tuple[Any, dict[str, Any]]:
        """The last state, and what was said of it; fills the arrays. Raises `CheckpointError` if it's damaged."""
        assert self.last is not None
        note = self._note()
        leaves, structure = jax.tree.flatten(like)
        try:
            with _orbax().StandardCheckpointer() as keeper:
                found = keeper.restore(
                    (self.last / "state").absolute(),
                    # There is no array without entries on disk.
                    {str(number): np.zeros(leaf.shape, leaf.dtype) for number, leaf in enumerate(leaves) if leaf.size},
                )
            for number, array in enumerate(arrays):
                _filled(self.last / f"codes-{number}", array, note["codes"][number])
        # Readers raise nearly anything at damaged files.
        except Exception as error:
            raise self._damaged(error) from error
        filled = [
            found[str(number)] if leaf.size else np.zeros(leaf.shape, leaf.dtype) for number, leaf in enumerate(leaves)
        ]
        state = jax.tree.unflatten(structure, [jax.numpy.asarray(leaf) for leaf in filled])
        self.saved = int(note["step"])
        return state, note["said"]

    def wanted(self, step: int) -> bool:
        """Whether it's time for one."""
        late = self.checkpoint.minutes is not None and time.monotonic() - self.at >= 60 * self.checkpoint.minutes
        return step > self.saved and (step - self.saved >= self.checkpoint.steps or late)

    def save(self, step: int, state: Any, arrays: list[np.ndarray], said: dict[str, Any]) -> None:
        """Keep a state."""
        leaves = jax.tree.leaves(state)
        part, place = self.folder / f".part-{step}", self.folder / f"step-{step:09d}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        with _orbax().StandardCheckpointer() as keeper:
            keeper.save(
                (part / "state").absolute(),
                {str(number): np.asarray(leaf) for number, leaf in enumerate(leaves) if leaf.size},
            )
            keeper.wait_until_finished()
        digests = [_copied(array, part / f"codes-{number}") for number, array in enumerate(arrays)]
        note = {"problem": self.problem, "step": step, "said": said, "codes": digests}
        text = json.dumps(note)
        (part / "note.json").write_text(json.dumps({"note": text, "digest": hashlib.sha256(text.encode()).hexdigest()}))
        put_at(part, place)
        self.saved, self.at = step, time.monotonic()
        names = sorted(each.name for each in self.folder.iterdir() if _NAME.fullmatch(each.name))
        for name in names[:-_KEPT]:
            shutil.rmtree(self.folder / name, ignore_errors=True)

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
        return note

    def _damaged(self, error: Exception) -> CheckpointError:
        assert self.last is not None
        return CheckpointError(
            f"the last checkpoint, {str(self.last)!r}, is damaged ({error}); delete it to go on from the one before, "
            "or give another folder"
        )


def digest_of_tree(tree: Any) -> str:
    """A digest of the numbers in a pytree and of what it's made of, the same in every process."""
    leaves, structure = jax.tree.flatten(tree)
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(structure)).encode())
    for leaf in leaves:
        if jax.numpy.issubdtype(getattr(leaf, "dtype", np.float64), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:32]


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
