"""An explanation from the files that `face_jax.save` wrote; nothing in them is run."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from ..blocks.room import Room
from ..model import SplitModel, check_model, photographs_for
from ..pictures.photographs import Photograph, UnreadablePhotographError
from ..pictures.preprocess import LATER_SETTINGS
from ..signs import as_explained
from ..support.atomic_folder import folder_of
from ..support.json_values import Unfit
from .codec import decode
from .parts import Settings
from .record import Explanation
from .saved_files import SavedFilesError as SavedFilesError
from .saved_files import check_text, read_text, restored, seconds_of
from .saving import FORMAT, TEXT
from .summary import plain

# Settings of preprocessing that every explanation has, and what stands for others that one doesn't have.
_EARLIEST, _NO = ("size", "resize", "interpolation", "mean", "std"), "nothing"


class WrongModelError(ValueError):
    """An explanation of another model, or of the model cut at another layer or preprocessed otherwise."""


def load(folder: str | pathlib.Path, model: SplitModel, *, images: Any = None) -> Explanation:
    """The explanation that was saved in a folder.

    Use it to encode new images with the concepts found before, to draw the report again, or to go on from there.

    **Arguments:**

    - `folder`: what was given to `face_jax.save`.
    - `model`: the same model, cut at the same layer, with the same preprocessing; functions aren't saved. What
        `signs_apart` makes of it is made again.
    - `images`: where the photographs are now, if not where they were: anything that `face_jax.photographs` takes.
        They are found again by their content (a file's bytes, or pixels that were in no file), whatever their names
        and their order.

    **Returns:** the explanation. Photographs are read when their pixels are needed: one that's gone, or another
    picture by now, is an `UnreadablePhotographError` then. `fit.path.solution` of a choice of λ is None; it's the
    explanation's own. Raises `WrongModelError` for another model, layer or preprocessing, `SavedFilesError` for files
    that are missing, damaged, of another format or of different explanations, and for `images` without the
    photographs that were explained; `ValueError` for a file in place of a folder.

    **Example:**

    >>> kept = fj.save(explanation, folder / "kept")
    >>> fj.load(kept, model).target_name
    'warm'
    """
    return loaded(folder, model, images)


def loaded(folder: str | pathlib.Path, model: SplitModel, images: Any, room: Room | None = None) -> Explanation:
    """`load`, within a room; by default one of half of the memory that is free."""
    check_model(model)
    folder = folder_of(folder)
    text = read_text(folder)
    given = None if images is None else photographs_for(model, images)
    try:
        settings = decode(Settings, _settings_of(text), {})
        model = as_explained(model, settings.fingerprint)
        try:
            _check_model(folder, settings, model)
        except WrongModelError:
            # Unless it's the text that was changed.
            check_text(folder, TEXT, text)
            raise
        explanation = restored(folder, text, model, room)
        provenance = dataclasses.replace(explanation.provenance, seconds=seconds_of(folder, text))
        pictures = explanation.pictures
        if given is not None:
            found = tuple(_found_again(pictures.photographs, given))
            pictures = dataclasses.replace(pictures, photographs=found)
        return dataclasses.replace(explanation, pictures=pictures, provenance=provenance)
    except (WrongModelError, SavedFilesError, UnreadablePhotographError):
        raise
    except (
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        ValueError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as error:
        said = str(error) if isinstance(error, Unfit) else f"{type(error).__name__}: {error}"
        raise SavedFilesError(
            f"folder={str(folder)!r}: its files don't fit together ({said}); copy all files of one explanation, or "
            "explain again"
        ) from error


def saved_settings(folder: str | pathlib.Path) -> Settings:
    """The settings of an explanation in a folder, which say what model it is of; raises `SavedFilesError`."""
    try:
        return decode(Settings, _settings_of(read_text(folder_of(folder))), {})
    except Unfit as error:
        raise SavedFilesError(f"folder={str(folder)!r} has no settings ({error}); explain again") from error


def _settings_of(text: dict[str, Any]) -> Any:
    """The settings in a text of any format, unchecked; None where there are none."""
    way = ("record", "provenance", "settings") if text["format"] == FORMAT else ("settings",)
    found: Any = text
    for step in way:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _check_model(folder: pathlib.Path, settings: Settings, model: SplitModel) -> None:
    if settings.fingerprint != model.fingerprint or settings.layer != model.layer:
        raise WrongModelError(
            f"folder={str(folder)!r} explains {settings.model} at layer {settings.layer!r} (fingerprint "
            f"{settings.fingerprint[:12]}), and model is {model.name} at layer {model.layer!r} (fingerprint "
            f"{model.fingerprint[:12]}); load the same network with the same weights and cut it at the same layer"
        )
    before, now = (
        {**plain(LATER_SETTINGS), **plain(each)} for each in (settings.preprocess, model.preprocess.settings())
    )
    if missing := [name for name in _EARLIEST if name not in before]:
        raise Unfit(f"its settings of the preprocessing have no {missing[0]}")
    if settings.outputs != repr(model.outputs):
        raise WrongModelError(
            f"folder={str(folder)!r} explains {settings.model} with outputs={settings.outputs}, and model.outputs is "
            f"{model.outputs!r}; give the model the same (multi_label of face_jax.bridges.split, outputs of SplitModel)"
        )
    # What pictures show makes no difference to the network.
    names = [*now, *(name for name in before if name not in now)]
    changed = [name for name in names if name != "shown" and before.get(name, _NO) != now.get(name, _NO)]
    if changed:
        old, new = (", ".join(f"{name}={each.get(name, _NO)}" for name in changed) for each in (before, now))
        raise WrongModelError(
            f"folder={str(folder)!r} explains {settings.model} with {old} in its preprocessing, and "
            f"model.preprocess has {new}; give the model the preprocessing that was explained"
        )


def _found_again(explained: tuple[Photograph, ...], given: tuple[Photograph, ...]) -> Iterator[Photograph]:
    """The photographs that were explained, where they are now."""
    by_name = {photograph.name: photograph for photograph in given}
    by_content = {}
    for photograph in given:
        with contextlib.suppress(UnreadablePhotographError):
            by_content[photograph.digest()] = photograph
    missing = []
    for one in explained:
        # One whose file was gone when it was saved is known by its name only.
        photograph = by_name.get(one.name) if one.expected is None else by_content.get(one.expected)
        if photograph is None:
            missing.append(one.name)
        else:
            yield dataclasses.replace(one, source=photograph.source)
    if missing:
        what = "another picture under the name" if missing[0] in by_name else "no"
        raise SavedFilesError(
            f"images has {what} {missing[0]!r}, and {len(missing)} of the {len(explained)} photographs that were "
            "explained aren't among them; give the very files or arrays that were explained"
        )
