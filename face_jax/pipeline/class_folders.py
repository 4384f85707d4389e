"""A folder for each class's explanation: what is there already is loaded, where the same is asked for again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
from typing import Any

from ..blocks.room import Room
from ..explanation.loading import WrongModelError, loaded
from ..explanation.record import Explanation
from ..explanation.saved_files import SavedFilesError
from ..explanation.saving import save
from ..model import SplitModel
from ..pictures.photographs import Photograph, UnreadablePhotographError
from ..support.atomic_folder import folder_of
from ..support.contents import package_digest
from ..support.regular_files import MOST_TEXT, bytes_of
from .class_groups import Group

_ASKED = "asked.json"


def folder_names(names: list[str]) -> dict[str, str]:
    """A folder's name for each class: its first name, of letters that every file system takes, each another one."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name.split(",")[0].strip(), flags=re.ASCII).strip("-.")[:60] or "class"
        word, number = plain, 2
        taken = {each.lower() for each in found.values()}
        while word.lower() in taken:
            word, number = f"{plain}-{number}", number + 1
        found[name] = word
    return found


@dataclasses.dataclass(frozen=True)
class Kept:
    """Explanations in folders.

    **Arguments:**

    - `folder`: that has a folder for each class.
    - `names`: those folders' names, by class.
    - `digests`: of what each class's explanation depends on, by class.
    - `room`: how much memory activations may take; what is loaded beyond it stays in its files.
    """

    folder: pathlib.Path
    names: dict[str, str]
    digests: dict[str, str]
    room: Room

    def load(self, group: Group, model: SplitModel, along: list[float] | None) -> Explanation | None:
        """What was made with the same settings, of the same photographs and with the same λ; None without such."""
        place = self.folder / self.names[group.name]
        try:
            asked = json.loads(bytes_of(place / _ASKED, MOST_TEXT))
            if asked != {"digest": self.digests[group.name], "along": along}:
                return None
            return loaded(place, model, group.photographs, self.room)
        except (OSError, ValueError, SavedFilesError, WrongModelError):
            return None

    def save(self, group: Group, explanation: Explanation, along: list[float] | None) -> None:
        """Puts an explanation into its folder; what says what it's of comes last."""
        place = self.folder / self.names[group.name]
        (place / _ASKED).unlink(missing_ok=True)
        save(explanation, place)
        asked: dict[str, Any] = {"digest": self.digests[group.name], "along": along}
        (place / _ASKED).write_text(json.dumps(asked), encoding="utf-8")


def kept_in(
    folder: str | pathlib.Path, groups: list[Group], words: list[str], together: tuple[int, ...] | None, room: Room
) -> Kept:
    """Explanations in a folder.

    **Arguments:**

    - `folder`: made if need be.
    - `groups`: the classes.
    - `words`: the settings.
    - `together`: all classes, if they share a bank: each then depends on the photographs of all.
    - `room`: how much memory activations may take.
    """
    cache: dict[int, str] = {}
    pictures = {group.name: _digest(group.photographs, cache) for group in groups}
    digests = {}
    for group in groups:
        of = pictures[group.name] if together is None else " ".join(map(pictures.__getitem__, pictures))
        said = "\0".join([package_digest().hex(), *words, str(together), str(group.number), of])
        digests[group.name] = hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()
    return Kept(folder_of(folder), folder_names([group.name for group in groups]), digests, room)


def _digest(photographs: tuple[Photograph, ...], known: dict[int, str]) -> str:
    if id(photographs) not in known:
        digest = hashlib.sha256()
        for photograph in photographs:
            digest.update(photograph.name.encode("utf-8", "backslashreplace") + b"\0")
            try:
                digest.update(photograph.digest())
            except UnreadablePhotographError as error:
                digest.update(str(error).encode("utf-8", "backslashreplace"))
        known[id(photographs)] = digest.hexdigest()
    return known[id(photographs)]
