"""Whose photographs: folders laid out as the real data sets are, what lies beside the checkout, or those in packages.

    --imagenet FOLDER   FOLDER/n03028079/….JPEG (or FOLDER/val/…, FOLDER/train/…; folders may have classes' names)
    --coco FOLDER       FOLDER/annotations/instances_val2017.json and FOLDER/val2017/….jpg (or both of train2017)
    --celeba FOLDER     FOLDER/list_attr_celeba.txt and FOLDER/img_align_celeba/….jpg

FACE takes the ten classes of Imagenette; the photographs of COCO that show exactly one of five classes; and faces with
exactly one of four attributes.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# Folder, number among ImageNet's classes, name.
IMAGENET = (
    ("n02102040", 217, "English springer"), ("n03028079", 497, "church"), ("n03445777", 574, "golf ball"),
    ("n03394916", 566, "French horn"), ("n03425413", 571, "gas pump"), ("n01440764", 0, "tench"),
    ("n03000684", 491, "chain saw"), ("n02979186", 482, "cassette player"), ("n03417042", 569, "garbage truck"),
    ("n03888257", 701, "parachute"),
)  # fmt: skip
COCO = ("train", "umbrella", "teddy bear", "hot dog", "zebra")
CELEBA = ("Black_Hair", "Blond_Hair", "Wearing_Hat", "Gray_Hair")
# Networks get a head of their own for these.
HEADS_OF_OURS = ("COCO", "CelebA", "CelebA as labels")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# Of the embedded photograph: how many, and the smallest share of its short side.
_VIEWS, _SMALLEST = 40, 0.55


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Photographs with labels.

    **Arguments:**

    - `setting`: what tables call them.
    - `labels`: names of the labels.
    - `files`: paths, or arrays of pixels.
    - `has`: which labels each has, `photograph × label`.
    - `source`: where they come from, for the page.
    - `multi_label`: whether a network of theirs says each label by itself, instead of one of them.
    """

    setting: str
    labels: tuple[str, ...]
    files: Sequence[Any]
    has: np.ndarray
    source: str
    multi_label: bool = False

    def of(self, label: int) -> list[Any]:
        """The photographs with a label, in an order drawn once for all."""
        some = np.flatnonzero(self.has[:, label])
        return [self.files[number] for number in np.random.default_rng(label).permutation(some)]


def imagenet(folder: pathlib.Path | None, data: pathlib.Path) -> Labelled | None:
    """Photographs of the ten classes, or of those that are there; None without a folder where none are at hand."""
    if folder is None:
        if not (data / "manifest.csv").is_file():
            return None
        number = {str(index): name for _, index, name in IMAGENET}
        rows = [row for row in _rows(data / "manifest.csv") if row["file"].startswith("images/imagenet/")]
        found = [(data / row["file"], number[row["imagenet_index"]]) for row in rows]
        return _labelled(
            "ImageNet", [name for *_, name in IMAGENET], found, "beside the checkout: eight of ten classes"
        )
    roots = [each for each in (folder, folder / "val", folder / "train") if each.is_dir()]
    found = []
    for wnid, _, name in IMAGENET:
        places = [root / called for root in roots for called in (wnid, name, name.replace(" ", "_"))]
        found += [(file, name) for place in places if place.is_dir() for file in _pictures(place)]
    if not found:
        raise SystemExit(
            f"--imagenet {folder} has none of the ten classes' folders; expected is {folder}/n03028079/….JPEG, also "
            "under val/ or train/, with ImageNet's or classes' names"
        )
    return _labelled("ImageNet", [name for *_, name in IMAGENET], found, "ImageNet's folder")


def coco(folder: pathlib.Path | None, data: pathlib.Path) -> Labelled | None:
    """Photographs that show exactly one of the five classes."""
    if folder is None:
        table = data / "images" / "coco" / "five_classes.csv"
        if not table.is_file():
            return None
        found = [(data / row["file"], row["class"]) for row in _rows(table)]
        return _labelled("COCO", COCO, found, "beside the checkout: 268 photographs of five classes")
    found, read = [], []
    for part in ("val2017", "train2017"):
        table = folder / "annotations" / f"instances_{part}.json"
        if not (table.is_file() and (folder / part).is_dir()):
            continue
        read.append(part)
        said = json.loads(table.read_text())
        names = {each["id"]: each["name"] for each in said["categories"]}
        shown: dict[int, set[str]] = {}
        for each in said["annotations"]:
            if names[each["category_id"]] in COCO:
                shown.setdefault(each["image_id"], set()).add(names[each["category_id"]])
        files = {each["id"]: folder / part / each["file_name"] for each in said["images"]}
        found += [(files[image], next(iter(one))) for image, one in sorted(shown.items()) if len(one) == 1]
    if not read:
        raise SystemExit(
            f"--coco {folder} isn't COCO's folder; expected are {folder}/annotations/instances_val2017.json and "
            f"{folder}/val2017/….jpg, or both of train2017"
        )
    return _labelled("COCO", COCO, found, f"COCO, {' and '.join(read)}")


def celeba(folder: pathlib.Path | None, data: pathlib.Path, *, exclusive: bool = True) -> Labelled | None:
    """Faces with exactly one of the four attributes; with any of them, or none, if not `exclusive`."""
    if folder is None:
        table = data / "images" / "celeba" / "manifest.csv"
        if not table.is_file():
            return None
        rows = [(data / row["file"], [row[name] == "1" for name in CELEBA]) for row in _rows(table)]
        source = "beside the checkout: 2,056 faces"
    else:
        table = folder / "list_attr_celeba.txt"
        if not (table.is_file() and (folder / "img_align_celeba").is_dir()):
            raise SystemExit(
                f"--celeba {folder} isn't CelebA's folder; expected are {table} and {folder}/img_align_celeba/….jpg"
            )
        _, names, *lines = table.read_text().splitlines()
        columns = [names.split().index(name) for name in CELEBA]
        rows = []
        for line in filter(None, lines):
            file, *values = line.split()
            rows.append((folder / "img_align_celeba" / file, [values[column] == "1" for column in columns]))
        source = "CelebA's folder"
    has = np.asarray([each for _, each in rows], bool)
    kept = has.sum(axis=1) == 1 if exclusive else np.full(len(has), True)
    files = [file for (file, _), one in zip(rows, kept, strict=True) if one]
    return Labelled("CelebA" if exclusive else "CelebA as labels", CELEBA, files, has[kept], source, not exclusive)


def celeba_as_labels(folder: pathlib.Path | None, data: pathlib.Path) -> Labelled | None:
    """Faces with any of the four attributes, or none; each attribute is told by itself."""
    return celeba(folder, data, exclusive=False)


def embedded(count: int = _VIEWS) -> Labelled:
    """Parts of the cat in scikit-image: no substitute for photographs, but every table has its form."""
    from face_jax.cli.demo_photograph import embedded_photograph

    pixels, random = embedded_photograph("chelsea").pixels(), np.random.default_rng(0)
    height, width = pixels.shape[:2]
    views = []
    for _ in range(count):
        side = int(min(height, width) * random.uniform(_SMALLEST, 1))
        top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
        views.append(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    has = np.ones((count, 1), bool)
    return Labelled("one embedded photograph", ("cat",), views, has, "parts of scikit-image's chelsea: for form only")


def _labelled(setting: str, labels: Iterable[str], found: list[tuple[Any, str]], source: str) -> Labelled:
    there = tuple(label for label in labels if any(name == label for _, name in found))
    has = np.asarray([[name == label for label in there] for _, name in found], bool).reshape(len(found), len(there))
    return Labelled(setting, there, [file for file, _ in found], has, source)


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)


def _rows(table: pathlib.Path) -> list[dict[str, str]]:
    with table.open() as opened:
        return list(csv.DictReader(opened))
