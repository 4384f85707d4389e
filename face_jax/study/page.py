"""The page that asks: one file that needs no other, and beside it the key, which participants don't get."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..explanation.saving import text_digest
from ..report.pictures import data_uri
from ..report.policy import with_policy
from ..report.templates import templates
from ..support.arguments import path_of, several, text
from ..support.atomic_folder import put_together
from .trials import Lesson, Option, Picture, Trial

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class StudyFiles:
    """What `write_page` wrote.

    **Arguments:**

    - `page`: for participants.
    - `key`: the correct answers, for whoever scores; not for participants.
    """

    page: pathlib.Path
    key: pathlib.Path


def write_page(
    path: str | pathlib.Path, trials: Sequence[Lesson | Trial], *, title: str = "A study", welcome: str = ""
) -> StudyFiles:
    """Writes a study as one HTML page that works without a network, and its answer key as a JSON file.

    The page asks for a name or number, shows lessons and trials by mouse, touch or keyboard, and hands out the answers
    as a JSON and a CSV file: which option of which trial, when, and after how many seconds. Each participant gets
    their own order of trials within a session and, for pictures, of options. Correct answers and conditions are not
    in the page at all: `score` takes them from the key.

    **Arguments:**

    - `path`: the page's file, such as `study.html`; the key goes beside it, as `study.key.json`.
    - `trials`: what `intruder_trials`, `binary_trials` and `utility_trials` returned, one behind the other.
    - `title`: the page's title.
    - `welcome`: what participants are told first, such as who asks and what becomes of the answers.

    **Returns:** both files. Raises `ValueError` for an empty study or trials of the same name, and `ImportError` if
    the report's packages aren't installed.

    **Example:**

    >>> files = fj.study.write_page(folder / "study.html", fj.study.intruder_trials(explanation, trials=2, crops=2))
    >>> files.page.suffix
    '.html'
    """
    path = path_of("path", path, "a file for the page")
    if not path.name:
        raise ValueError(f"path={str(path)!r} isn't a file's name; give one such as 'study.html'")
    title, welcome = text("title", title, "a title"), text("welcome", welcome, "what participants are told")
    trials = several("trials", trials, "lessons and trials")
    asked = [entry for entry in trials if isinstance(entry, Trial)]
    if not asked:
        raise ValueError("trials has no trial in it; give what intruder_trials, binary_trials or utility_trials return")
    names = [trial.name for trial in asked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"trials has {len(twice)} names twice ({', '.join(twice[:3])}); make each part with a key of its own"
        )
    environment = templates("face_jax.study", "writing a study")
    identity = hashlib.sha256("\0".join(names).encode()).hexdigest()[:12]
    content = json.dumps(_content(identity, trials), ensure_ascii=False, separators=(",", ":"))
    script = environment.get_template("page.js").render()
    # No name may end the script element it stands in.
    content = content.replace("<", "\\u003c")
    page = environment.get_template("page.html").render(
        title=title,
        welcome=welcome,
        count=len(asked),
        content=content,
        script=script,
        pictures=any(t.kind != "utility" for t in asked),
    )
    page = with_policy(page, script=script)
    key = path.with_suffix(".key.json")
    said = answer_key(identity, title, asked)
    said = json.dumps({**said, "text_digest": text_digest(said)}, indent=1, ensure_ascii=False) + "\n"
    with put_together(path.parent) as new:
        (new / path.name).write_text(page, encoding="utf-8")
        (new / key.name).write_text(said, encoding="utf-8")
    return StudyFiles(path, key)


def answer_key(identity: str, title: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """What `score` needs to know of a study."""
    return {
        "format": FORMAT,
        "study": identity,
        "title": title,
        "trials": {
            trial.name: {
                "kind": trial.kind,
                "condition": trial.condition,
                "session": trial.session,
                "options": len(trial.options),
                "correct": trial.correct,
                "catch": trial.catch,
                "about": trial.about,
            }
            for trial in trials
        },
    }


def _content(identity: str, entries: Sequence[Lesson | Trial]) -> dict[str, Any]:
    """What the page shows, as plain data. Pictures are listed once, in an order that groups nothing."""
    addresses: dict[str, None] = {}

    def note(picture: Picture) -> tuple[str, str]:
        address = data_uri(picture.pixels, quality=85)
        addresses.setdefault(address)
        return address, picture.says

    def option(one: Option) -> dict[str, Any]:
        return {"label": one.label, "pictures": [note(picture) for picture in one.pictures]}

    blocks: dict[tuple[str, int], int] = {}
    screens: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry, Trial):
            block = blocks.setdefault((entry.kind, entry.session), len(blocks))
            screens.append(
                {
                    "trial": entry.name,
                    "block": block,
                    "question": entry.question,
                    "shown": [note(picture) for picture in entry.shown],
                    "options": [option(one) for one in entry.options],
                }
            )
        else:
            screens.append(
                {
                    "block": blocks.setdefault(("utility", entry.session), len(blocks)),
                    "text": entry.text,
                    "examples": [
                        {
                            "picture": note(one.picture),
                            "decision": one.decision,
                            "details": [note(p) for p in one.details],
                        }
                        for one in entry.examples
                    ],
                    "concepts": [option(one) for one in entry.concepts],
                }
            )
    # Sorted by digest: neighbours in the list have nothing in common, and a page written again is the same.
    ordered = sorted(addresses, key=lambda address: hashlib.sha256((identity + address).encode()).digest())
    place = {address: number for number, address in enumerate(ordered)}
    return {"study": identity, "pictures": ordered, "screens": _numbered(screens, place)}


def _numbered(value: Any, place: dict[str, int]) -> Any:
    """Pictures' addresses replaced by their places in the list."""
    if isinstance(value, tuple):
        return {"picture": place[value[0]], "says": value[1]}
    if isinstance(value, list):
        return [_numbered(item, place) for item in value]
    if isinstance(value, dict):
        return {name: _numbered(item, place) for name, item in value.items()}
    return int(value) if isinstance(value, np.integer) else value
