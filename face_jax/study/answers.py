"""Participants' answers, from the files that the page hands out."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from ..explanation.saving import text_digest
from ..support.arguments import path_of, several
from ..support.json_values import Check, Entries, Real, Unfit, Whole, Words, YesOrNo, anything
from ..support.regular_files import text_of

# No study has longer files, and nobody answers after longer than a day.
_LARGEST, _LONGEST = 64 * 10**6, 86_400.0
_TRIAL = Entries(
    {
        "kind": Words(),
        "condition": Words(),
        "session": Whole(0, 10**6),
        "options": Whole(2, 10**6),
        "correct": Whole(0, 10**6),
        "catch": YesOrNo(),
        "about": Entries({}, others=anything),
    }
)
_KEY = Entries({"format": anything, "study": Words(), "trials": Entries({}, others=_TRIAL)}, others=anything)
_ROUND = Entries({"round": Whole(0, 10**6)}, others=anything)
# In CSV everything is text; in the page's own JSON each value has its type.
_ROW = Entries({"trial": Words(), "choice": Real(), "seconds": Real()}, others=anything)
# What scores need of each answer; the page's files say more.
_COLUMNS = ("study", "participant", "trial", "choice", "seconds")
_FORMAT = 1


class AnswerError(ValueError):
    """A file of answers, or a key, that can't be read or doesn't fit the others."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one participant chose in one trial.

    **Arguments:**

    - `study`: the study's digest, which its page and its key carry.
    - `participant`: who.
    - `trial`: the trial's name.
    - `choice`: the option, counted from 0 in the key's order, whatever the order on the screen was.
    - `seconds`: from the pictures' appearance to the confirmed answer.
    - `file`: where it was read.
    """

    study: str
    participant: str
    trial: str
    choice: int
    seconds: float
    file: str


def read_answers(source: str | pathlib.Path | Sequence[str | pathlib.Path]) -> tuple[Answer, ...]:
    """Answers of all participants.

    **Arguments:**

    - `source`: a file that the page saved (`.json` or `.csv`; a CSV may hold several participants one below the
        other), a folder of such files, or several of either. In a folder, keys (`*.key.json`) are passed over. Who
        saved both JSON and CSV answered once: an answer that is there again, to the millisecond, is passed over too.

    **Returns:** every answer once. Raises `AnswerError` with the file, the place in it and the remedy.

    **Example:**

    >>> answers = fj.study.read_answers(["anna.json", "ben.json"])  # doctest: +SKIP
    """
    sources = [source] if isinstance(source, str | os.PathLike) else several("answers", source, "files")
    files = [file for entry in sources for file in _files(path_of("answers", entry, "a file or a folder"))]
    answers = [answer for file in files for answer in (_json(file) if file.suffix == ".json" else _csv(file))]
    if not answers:
        raise AnswerError(
            f"answers={[str(entry) for entry in sources]} hold no answers; give the .json or .csv files that "
            "participants saved, or their folder"
        )
    first: dict[tuple[str, str, str], Answer] = {}
    for answer in answers:
        earlier = first.setdefault((answer.study, answer.participant, answer.trial), answer)
        if (earlier.choice, earlier.seconds) != (answer.choice, answer.seconds):
            raise AnswerError(
                f"{answer.file}: participant {answer.participant!r} answers trial {answer.trial} a second time, "
                f"choice={answer.choice} after {answer.seconds:g} s (the first, in {earlier.file}, is {earlier.choice} "
                f"after {earlier.seconds:g} s); keep the answers that count, and give everybody a name of their own"
            )
    return tuple(first.values())


def read_key(source: str | pathlib.Path | dict[str, Any]) -> dict[str, Any]:
    """The key that `write_page` wrote, checked."""
    if isinstance(source, dict):
        return _checked_key(source, "key")
    path = path_of("key", source, "a key")
    if not path.is_file():
        raise AnswerError(f"key={str(path)!r} isn't a file; give the .key.json written beside the study's page")
    key = _load("key", path)
    if not isinstance(key, dict) or not {"format", "study", "trials"} <= set(key):
        raise AnswerError(f"key={str(path)!r} isn't a study's key; give the .key.json written beside the study's page")
    _check_format(key, path)
    if key.get("text_digest", text_digest(key)) != text_digest(key):
        raise AnswerError(
            f"key={str(path)!r} was changed after it was written (the digest of what it says is another one); give "
            "the .key.json as it was written beside the study's page"
        )
    return _checked_key(key, str(path))


def _checked_key(key: dict[str, Any], where: str) -> dict[str, Any]:
    _check(_KEY, key, where, "give the .key.json as it was written beside the study's page")
    for name, trial in key["trials"].items():
        place = f"{where}.trials.{name[:40]}"
        if trial["correct"] >= trial["options"]:
            raise AnswerError(
                f"{place}: correct={trial['correct']} of {trial['options']} options; give the key as it was"
            )
        if trial["kind"] == "utility" and not trial["catch"]:
            _check(_ROUND, trial["about"], f"{place}.about", "give the key as it was")
    return key


def _check(check: Check, value: Any, where: str, remedy: str) -> None:
    try:
        check(value, where)
    except (Unfit, RecursionError) as error:
        raise AnswerError(f"{error}; {remedy}") from error


def _files(path: pathlib.Path) -> Iterable[pathlib.Path]:
    if path.is_dir():
        return [
            file
            for file in sorted(path.iterdir())
            if file.suffix in (".json", ".csv") and not file.name.endswith(".key.json")
        ]
    if path.suffix not in (".json", ".csv") or not path.is_file():
        raise AnswerError(f"answers={str(path)!r} isn't a .json or .csv file, nor a folder; give what people saved")
    return [path]


def _json(file: pathlib.Path) -> Iterable[Answer]:
    content = _load("answers", file)
    if not isinstance(content, dict) or not isinstance(content.get("answers"), list):
        raise AnswerError(f"{file}: holds no answers of a study; give the file that the study's page saved")
    _check_format(content, file)
    for number, row in enumerate(content["answers"]):
        where = f"{file}, answer {number + 1}"
        if not isinstance(row, dict):
            raise AnswerError(f"{where}: is {row!r}, not an answer; give the file as the page saved it")
        whole = {**row, "study": content.get("study"), "participant": content.get("participant")}
        _check_there(whole, where)
        _check(_ROW, whole, where, "give the file as the page saved it")
        for name in ("study", "participant"):
            _check(Words(), whole[name], f"{file}: {name}", "give the file as the page saved it")
        yield _answer(whole, where)


def _csv(file: pathlib.Path) -> Iterable[Answer]:
    lines = _read("answers", file).splitlines()
    # Some spreadsheets write semicolons.
    separator = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    try:
        for number, row in enumerate(csv.DictReader(lines, delimiter=separator)):
            yield _answer(row, f"{file}, line {number + 2}")
    except csv.Error as error:
        raise AnswerError(f"{file}: isn't CSV ({error}); give the file as the page saved it") from error


def _answer(row: dict[str, Any], where: str) -> Answer:
    _check_there(row, where)
    try:
        # Spreadsheets like to turn 2 into 2.0.
        choice, seconds = float(row["choice"]), float(row["seconds"])
    except (TypeError, ValueError) as error:
        raise AnswerError(f"{where}: {error}; give the file as the page saved it") from error
    if not (choice >= 0 and choice == int(choice) if math.isfinite(choice) else False) or not 0 <= seconds <= _LONGEST:
        raise AnswerError(
            f"{where}: choice={row['choice']!r}, seconds={row['seconds']!r}; neither may be negative, nor seconds more "
            f"than {_LONGEST:g}"
        )
    return Answer(
        str(row["study"]), str(row["participant"]), str(row["trial"]), int(choice), seconds, where.split(", ")[0]
    )


def _check_there(row: dict[str, Any], where: str) -> None:
    missing = [name for name in _COLUMNS if row.get(name) in (None, "")]
    if missing:
        raise AnswerError(f"{where}: has no {', '.join(missing)}; give the file as the page saved it")


def _read(name: str, file: pathlib.Path) -> str:
    return text_of(
        f"{name}={str(file)!r}", file, "give the file as the page saved it", most=_LARGEST, refused=AnswerError
    )


def _load(name: str, file: pathlib.Path) -> Any:
    text = _read(name, file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else error
        raise AnswerError(f"{file}: isn't JSON ({said}); give the file as it was saved") from error


def _check_format(content: dict[str, Any], file: pathlib.Path) -> None:
    if content.get("format") != _FORMAT:
        raise AnswerError(
            f"{file}: has format {content.get('format')!r}, and this version reads {_FORMAT}; "
            "score it with the version that wrote the study"
        )
