"""An explanation from the files that `face_jax.save` wrote; nothing in them is run."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..activations import Collected, Crops
from ..faithfulness import Path
from ..faithfulness.path import Point
from ..importance import TCAV, GradientTimesCode, Sobol
from ..metrics import Curve, Fidelity, Score
from ..model import SplitModel
from ..nmf import RankScan
from ..pictures.photographs import Photograph, UnreadablePhotographError, photographs
from ..support.atomic_folder import folder_of
from .concepts import Concept
from .record import Explanation
from .saved_files import SavedFilesError as SavedFilesError
from .saved_files import check_text, read_stores, read_text, seconds_of
from .saved_text import Unfit, settings_check
from .saving import ACTIVATIONS, BANK, TEXT, plain
from .sub_concepts import Division, Recursion, SubConcept


class WrongModelError(ValueError):
    """An explanation of another model, or of the model cut at another layer or preprocessed otherwise."""


def load(folder: str | pathlib.Path, model: SplitModel, *, images: Any = None) -> Explanation:
    """The explanation that was saved in a folder.

    Use it to encode new images with the concepts found before, to draw the report again, or to go on from there.

    **Arguments:**

    - `folder`: what was given to `face_jax.save`.
    - `model`: the same model, cut at the same layer, with the same preprocessing; functions aren't saved.
    - `images`: where the photographs are now, if not where they were: anything that `face_jax.photographs` takes.
        They are found again by their content (a file's bytes, or pixels that were in no file), whatever their names
        and their order.

    **Returns:** the explanation. Photographs are read when their pixels are needed: one that's gone, or another
    picture by now, is an `UnreadablePhotographError` then. `path.solution` of a choice of λ is None; it's the
    explanation's own. Raises `WrongModelError` for another model, layer or preprocessing, `SavedFilesError` for files
    that are missing, damaged, of another format or of different explanations, and for `images` without the
    photographs that were explained; `ValueError` for a file in place of a folder.
    """
    folder = folder_of(folder)
    text = read_text(folder)
    given = None if images is None else photographs(images)
    try:
        settings_check(text.get("settings"), "settings")
        try:
            _check_model(folder, text["settings"], model)
        except WrongModelError:
            # Unless it's the text that was changed.
            check_text(folder, TEXT, text)
            raise
        stores = read_stores(folder, text, len(model.classes))
        seconds = seconds_of(folder, text)
        found = tuple(_photographs(text["photographs"], given))
        return _restored(text, seconds, stores[BANK], stores[ACTIVATIONS], model, found)
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


def _check_model(folder: pathlib.Path, settings: dict[str, Any], model: SplitModel) -> None:
    if settings["fingerprint"] != model.fingerprint or settings["layer"] != model.layer:
        raise WrongModelError(
            f"folder={str(folder)!r} explains {settings['model']} at layer {settings['layer']!r} (fingerprint "
            f"{settings['fingerprint'][:12]}), and model is {model.name} at layer {model.layer!r} (fingerprint "
            f"{model.fingerprint[:12]}); load the same network with the same weights and cut it at the same layer"
        )
    before, now = settings["preprocess"], plain(dataclasses.asdict(model.preprocess))
    changed = [name for name in now if before[name] != now[name]]
    if changed:
        old, new = (", ".join(f"{name}={each[name]}" for name in changed) for each in (before, now))
        raise WrongModelError(
            f"folder={str(folder)!r} explains {settings['model']} with {old} in its preprocessing, and "
            f"model.preprocess has {new}; give the model the preprocessing that was explained"
        )


def _restored(
    text: dict[str, Any],
    seconds: dict[str, float],
    bank: dict[str, np.ndarray],
    seen: dict[str, np.ndarray],
    model: SplitModel,
    found: tuple[Photograph, ...],
) -> Explanation:
    return Explanation(
        model=model,
        target=text["target"]["index"],
        target_chosen=text["target"]["chosen"],
        photographs=found,
        collected=Collected(seen["maps"], seen["logits"]),
        fitted=np.asarray(text["photographs"]["fitted"], np.int64),
        held_out=np.asarray(text["photographs"]["held_out"], np.int64),
        crops=Crops(bank["crop_image"], bank["crop_box"], bank.get("crop_window")),
        crop_activations=seen["crops"],
        crop_codes=bank["crop_codes"],
        dictionary=bank["dictionary"],
        codes=bank["codes"],
        importance=Sobol(
            bank["total_sobol"], bank["total_sobol_low"], bank["total_sobol_high"], text["importance_is_exact"]
        ),
        importance_index=bank["importance_index"],
        tcav=TCAV(bank["tcav_derivative"], bank["tcav_random_scores"], bank["tcav_p_value"]),
        gradient_times_code=GradientTimesCode(bank["gradient_times_code"]),
        concepts=tuple(
            Concept(
                number=entry["number"],
                importance=entry["importance"],
                low=entry["interval"][0],
                high=entry["interval"][1],
                contribution=entry["contribution"],
                coverage=entry["coverage"],
                strongest=_crops(entry),
            )
            for entry in text["concepts"]
        ),
        scores=tuple(_score(row, number, bank) for number, row in enumerate(text["scores"])),
        accuracy_of_nothing=text["accuracy_of_nothing"],
        fit=text["fit"],
        notes=tuple(text["notes"]),
        settings=text["settings"],
        seconds=seconds,
        path=None if text["path"] is None else _path(text["path"]),
        rank_scan=None if text["rank_scan"] is None else _scan(text["rank_scan"]),
        recursion=None if text["recursion"] is None else _recursion(text["recursion"], bank),
    )


def _photographs(saved: dict[str, Any], given: tuple[Photograph, ...] | None) -> Iterator[Photograph]:
    names = saved["kept"]
    contents = [None if digest is None else bytes.fromhex(digest) for digest in saved["digests"]]
    if given is None:
        for name, file, content in zip(names, saved["files"], contents, strict=True):
            # Without a digest nothing tells whether what lies there is the picture that was explained, or any other.
            yield Photograph(name, None if file is None or content is None else pathlib.Path(file), content)
        return
    by_name = {photograph.name: photograph for photograph in given}
    by_content = {}
    for photograph in given:
        with contextlib.suppress(UnreadablePhotographError):
            by_content[photograph.digest()] = photograph
    missing = []
    for name, content in zip(names, contents, strict=True):
        # One whose file was gone when it was saved is known by its name only.
        photograph = by_name.get(name) if content is None else by_content.get(content)
        if photograph is None:
            missing.append(name)
        else:
            yield Photograph(name, photograph.source, content)
    if missing:
        what = "another picture under the name" if missing[0] in by_name else "no"
        raise SavedFilesError(
            f"images has {what} {missing[0]!r}, and {len(missing)} of the {len(names)} photographs that were explained "
            "aren't among them; give the very files or arrays that were explained"
        )


def _score(row: dict[str, Any], number: int, bank: dict[str, np.ndarray]) -> Score:
    insertion, deletion = (Curve(*bank[f"score_{number}_{which}"]) for which in ("insertion", "deletion"))
    half, most, worst = (_real(value) for value in row["kl_quantiles"].values())
    return Score(
        name=row["name"],
        relative_error=_real(row["relative_squared_error"]),
        kl=_real(row["kl"]),
        kl_quantiles=(half, most, worst),
        l1=_real(row["l1"]),
        agreement=_real(row["agreement"]),
        becomes=tuple((index, count) for index, count in row["becomes_index"]),
        gini=_real(row["c_gini"]),
        fidelity=Fidelity(insertion, deletion, _real(row["c_insertion"]), _real(row["c_deletion"])),
    )


def _path(saved: dict[str, Any]) -> Path:
    points = []
    for saved_point in saved["points"]:
        values: dict[str, Any] = {
            name: value if name == "steps" else _real(value) for name, value in saved_point.items()
        }
        points.append(Point(**values))
    return Path(tuple(points), saved["chosen"], None, saved["most_error"])


def _scan(saved: dict[str, Any]) -> RankScan:
    ranks = np.asarray(saved["ranks"], np.int64)
    rest = {name: np.asarray(values, np.float64) for name, values in saved.items() if name != "ranks"}
    return RankScan(ranks=ranks, **rest)


def _recursion(saved: dict[str, Any], bank: dict[str, np.ndarray]) -> Recursion:
    return Recursion(
        spread=bank["spread"],
        layer=saved["layer"],
        threshold=saved["threshold"],
        suggested=tuple(saved["suggested"]),
        divisions=tuple(_division(entry, bank) for entry in saved["divisions"]),
        notes=tuple(saved["notes"]),
    )


def _division(saved: dict[str, Any], bank: dict[str, np.ndarray]) -> Division:
    name = saved["concept"]
    return Division(
        path=_numbers(name),
        layer=saved["layer"],
        fingerprint=saved["fingerprint"],
        crops=bank[f"{name}_crops"],
        dictionary=bank[f"{name}_dictionary"],
        codes=bank[f"{name}_codes"],
        coherence=_real(saved["coherence"]),
        floor=_real(saved["floor"]),
        spread=_real(saved["spread"]),
        parts=tuple(
            SubConcept(
                path=_numbers(part["concept"]),
                share=part["share"],
                strongest=_crops(part),
                coherence=_real(part["coherence"]),
                division=None if part["division"] is None else _division(part["division"], bank),
            )
            for part in saved["parts"]
        ),
    )


def _crops(entry: dict[str, Any]) -> tuple[int, ...]:
    return tuple(crop["crop"] for crop in entry["strongest"])


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in name.split("."))


def _real(value: float | None) -> float:
    """JSON has no NaN: it was written as null."""
    return float("nan") if value is None else float(value)
