"""The ten ImageNet classes of the FACE paper, through torchvision's own loader."""

from __future__ import annotations

import pathlib

import torchvision

CLASSES = (
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck", "gas pump",
    "golf ball", "parachute",
)  # fmt: skip


class ImagenetteError(ValueError):
    """A class that Imagenette doesn't have, or no way to get the photographs."""


def imagenette(target: str, folder: pathlib.Path, *, split: str = "val") -> list[pathlib.Path]:
    """The photographs of one class of Imagenette (Howard), downloaded once by torchvision.

    **Arguments:**

    - `target`: one of `CLASSES`.
    - `folder`: where the photographs are kept.
    - `split`: `"val"` (about 390 photographs a class) or `"train"` (about 950).

    **Returns:** the photographs' files. Raises `ImagenetteError` without internet, and says what to do instead.

    **Example:**

    >>> files = bridges.imagenette("tench", pathlib.Path("imagenette"))  # doctest: +SKIP
    """
    names = {name.lower(): name for name in CLASSES}
    if target.lower() not in names:
        raise ImagenetteError(f"target={target!r} isn't a class of Imagenette; choose one of {', '.join(CLASSES)}")
    folder.mkdir(parents=True, exist_ok=True)
    extracted = folder / "imagenette2-320"
    try:
        data = torchvision.datasets.Imagenette(
            str(folder), split=split, size="320px", download=not extracted.is_dir(), loader=pathlib.Path
        )
    except (OSError, RuntimeError) as error:
        raise ImagenetteError(
            f"Imagenette could not be downloaded ({error}): there seems to be no internet here. Unpack "
            f"imagenette2-320.tgz in {folder} (get it where there is internet), or explain photographs of your own: "
            "face-jax explain --images FOLDER --target CLASS"
        ) from error
    wanted = data.class_to_idx[names[target.lower()]]
    return sorted(path for path, label in data if label == wanted)
