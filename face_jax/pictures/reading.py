"""Photographs as network input, one after another; unreadable files and copies are left out, by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from ..blocks.room import Growing, Room
from ..support.memory import check_memory
from .photographs import Photograph, UnreadablePhotographError, network_input
from .preprocess import Preprocess


class Readable:
    """Photographs one after another as the network takes them; those that can't be read are left out, by name.

    **Arguments:**

    - `photographs`: what to read.
    - `preprocess`: how photographs become the network's input.
    - `once`: leave out photographs whose pixels are those of an earlier one.

    `index` says which could be read so far, `skipped` why each other one could not, `copies` which were left out as
    copies, and `faint` which have hardly used 16 bits a value.
    """

    def __init__(self, photographs: Sequence[Photograph], preprocess: Preprocess, *, once: bool = False) -> None:
        self.photographs, self.preprocess, self.once = photographs, preprocess, once
        self.index: list[int] = []
        self.skipped: list[str] = []
        self.copies: list[str] = []
        self.faint: list[str] = []

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[Float[np.ndarray, "_ _ _"]]:
        seen: dict[bytes, str] = {}
        for number, photograph in enumerate(self.photographs):
            try:
                found = photograph.decoded(self.preprocess.reads)
            except UnreadablePhotographError as error:
                self.skipped.append(str(error))
                continue
            if self.once:
                content = _digest(found.pixels)
                if content in seen:
                    self.copies.append(f"{photograph.name} (of {seen[content]})")
                    continue
                seen[content] = photograph.name
            if found.faint:
                self.faint.append(photograph.name)
            self.index.append(number)
            yield network_input(found.pixels, self.preprocess)
        if not self.index:
            raise UnreadablePhotographError(
                f"none of the {len(self)} files can be read as a picture; the first is {self.skipped[0]}"
            )


def _digest(pixels: UInt8[np.ndarray, "y x channel"]) -> bytes:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


class Gathered:
    """Maps batch by batch into one array, which is there once.

    A list of batches would be there beside the array that is made of it. Raises `NotEnoughMemoryError` as soon as it's
    clear that the maps won't fit.

    **Arguments:**

    - `total`: how many pictures there are.
    - `what`, `remedy`: what they are called where memory doesn't suffice, and what to do then.
    - `room`: where maps go that are too many for memory; None: nowhere.
    - `copies`: how many times as much memory is taken by what is done with them.
    """

    def __init__(self, total: int, what: str, remedy: str, room: Room | None = None, copies: int = 1) -> None:
        self.total, self.what, self.remedy, self.room, self.copies = total, what, remedy, room, copies
        self.growing: Growing | None = None
        self.filled = self.looked_at = 0

    def add(self, maps: np.ndarray, mask: np.ndarray) -> None:
        """Appends those of these maps that the mask chooses."""
        self.looked_at += len(maps)
        if self.growing is None:
            # Without a room, memory is all there is.
            self.growing = Growing(self.room or Room(math.inf), maps.shape[1:], maps.dtype)
        after = self.filled + int(mask.sum())
        if after > len(self.growing.array):
            self._grow(self.growing, after)
        self.growing.array[self.filled : after] = maps[mask]
        self.filled = after

    def all(self) -> np.ndarray:
        """What was gathered."""
        assert self.growing is not None
        return self.growing.done(self.filled)

    def _grow(self, growing: Growing, least: int) -> None:
        # As many as there will be if those to come are like those so far, and some more.
        room = min(self.total, max(least, math.ceil(1.25 * least / self.looked_at * self.total)))
        array = growing.array
        each = math.prod(array.shape[1:]) * array.itemsize
        shape, expected = " × ".join(map(str, array.shape[1:])), least / self.looked_at * self.total
        what = f"activations of {shape} of about {round(expected):,} {self.what}"
        if self.room is None:
            check_memory(expected * each, what, self.remedy)
        else:
            self.room.check(expected * each, what)
        growing.grow(room, math.ceil(expected * each * self.copies))
