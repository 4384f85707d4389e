"""Decoding of picture files; whatever is wrong with one is an `UnreadablePhotographError` in words."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..support.extras import installing
from ..support.regular_files import UnfitFileError, bytes_of
from .decoding_work import CountedReads, check_work
from .tiff_samples import tiff_samples

# What is read, in the order in which it's tried. Pillow's other readers start another program (PostScript), leave the
# work to one (WMF, GRIB, HDF5), or are for formats in which nobody has photographs. HEIF and JXL are read where
# somebody installed them.
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000", "JXL", "PPM", "ICO", "ICNS", "DIB", "DDS",
    "PCX", "QOI", "SGI", "PSD", "TGA",
)  # fmt: skip
# Pixels of the largest picture that is read: 11,585 × 11,585. A file of a kilobyte can claim any number of them.
MOST_PIXELS = 2**27
# Bytes of the largest file that is read: so many pixels of 16 bits a colour are fewer.
MOST_BYTES = 2**30
# A picture of 16 bits a value is faint if its largest is under this share of what they reach.
_FAINT = 0.1
# Pillow's readers that a picture opened elsewhere may be waiting for.
_STARTS_PROGRAMS = ("EPS", "WMF", "BUFR", "GRIB", "HDF5")
# How files begin that aren't read: the bytes, where they are, and what is said.
_UNREAD: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (0, (b"%!PS", b"\xc5\xd0\xd3\xc6"), "PostScript, which is a program; save it as PNG"),
    (0, (b"%PDF",), "a PDF; save its picture as PNG or JPEG"),
    (0, (b"\xd7\xcd\xc6\x9a", b"<svg", b"<?xml"), "a drawing of lines, not of pixels; save it as PNG"),
    (8, (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"),
     "a format that Pillow doesn't read here (HEIC: pip install pillow-heif)"),
    (8, (b"avif", b"avis"), "a format that Pillow doesn't read here (AVIF: pip install --upgrade pillow)"),
    (0, (b"\xff\x0a", b"\x00\x00\x00\x0cJXL "),
     "a format that Pillow doesn't read here (JPEG XL: pip install pillow-jxl-plugin)"),
    (8, (b"crx ",), "a camera's raw file; develop it and save it as JPEG, PNG or TIFF"),
    (0, (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FOVb"),
     "a camera's raw file; develop it and save it as JPEG, PNG or TIFF"),
    (4, (b"ftyp",), "a video; save pictures of it"),
    (0, (b"\x93NUMPY", b"PK\x03\x04"), "arrays or an archive; give an .npz or .npy by itself"),
)  # fmt: skip
_SHOWN = {"HEIC": "HEIF", "AVIF": "AVIF", "JPEG XL": "JXL"}
_RAW = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip


class UnreadablePhotographError(ValueError):
    """A file that isn't a picture, or a picture that's damaged."""


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """A picture's pixels.

    **Arguments:**

    - `pixels`: red, green and blue, or the channels asked for, 0…255, upright.
    - `faint`: whether it had 16 bits a value, and its largest was under a tenth of what they reach.
    """

    pixels: UInt8[np.ndarray, "y x channel"]
    faint: bool = False


def decoded(content: bytes, name: str, channels: int = 3) -> Decoded:
    """What a file's content shows: its first picture. Raises `UnreadablePhotographError` with the reason.

    `name` is for formats whose content doesn't tell what they are; `channels` is how many are wanted.
    """
    image_module, _ = pillow()
    if pathlib.PurePath(name).suffix.lower() in _RAW:
        # Pillow takes some for TIFFs, and shows the thumbnail in them.
        raise UnreadablePhotographError("a camera's raw file; develop it and save it as JPEG, PNG or TIFF")
    try:
        with _failures_in_words(content):
            formats = tuple(each for each in FORMATS if each in image_module.OPEN)
            stream = CountedReads(content)
            with image_module.open(stream, formats=formats) as picture:
                stream.count_anew(picture)
                return _upright(picture, channels)
    except UnreadablePhotographError:
        samples = None if channels in (1, 3) else tiff_samples(content, channels, MOST_PIXELS)
        if samples is None:
            raise
        return Decoded(samples)


def of_pillow(picture: Any, channels: int = 3) -> Decoded:
    """What a picture shows that was opened or made with Pillow: what its file would, in the frame where it stands."""
    if picture.format in _STARTS_PROGRAMS:
        raise UnreadablePhotographError(
            f"Pillow would hand {picture.format} to another program; give picture.convert('RGB')"
        )
    _check_size(picture)
    if getattr(picture, "fp", True) is None and not _is_loaded(picture):
        raise UnreadablePhotographError("its file was closed before its pixels were read; call load() on it before")
    with _failures_in_words(b""):
        return _upright(picture, channels)


def is_pillow(source: Any) -> bool:
    """Whether this is a picture of Pillow's, which needn't be installed."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(source, module.Image)


def content_of(file: pathlib.Path) -> bytes:
    """A file's bytes, if it's a regular one that isn't too large; raises `UnreadablePhotographError`, `OSError`."""
    try:
        return bytes_of(file, MOST_BYTES)
    except UnfitFileError as error:
        raise UnreadablePhotographError(str(error)) from error


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    said = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return said if said and isinstance(error, OSError | ValueError) else f"damaged ({said or type(error).__name__})"


@functools.cache
def pillow(doing: str = "reading photographs") -> tuple[Any, Any]:
    """Pillow's modules, with all formats that are installed; `doing` is what they are for, in words."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(f"{doing} needs Pillow; {installing('report')}") from error
    Image.init()
    if "HEIF" not in Image.OPEN:
        with contextlib.suppress(ImportError):
            import pillow_heif  # pyright: ignore[reportMissingImports]

            pillow_heif.register_heif_opener()
    return Image, ImageOps


@contextlib.contextmanager
def _failures_in_words(content: bytes) -> Iterator[None]:
    """Readers may raise anything at a damaged picture, and warn of what they go on with."""
    image_module, _ = pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except UnreadablePhotographError:
            raise
        except image_module.UnidentifiedImageError as error:
            raise UnreadablePhotographError(_unread(content)) from error
        except image_module.DecompressionBombError as error:
            raise UnreadablePhotographError(f"more than {MOST_PIXELS:,} pixels, the most that are read") from error
        except Exception as error:
            raise UnreadablePhotographError(reason_of(error)) from error


def _unread(content: bytes) -> str:
    begins = content.lstrip(b"\xef\xbb\xbf \t\r\n\x04")
    for where, marks, said in _UNREAD:
        if any((begins if where == 0 else content)[where:].startswith(mark) for mark in marks):
            image_module, _ = pillow()
            # Named like this, a format is read where somebody installed it.
            installed = any(f"({name}:" in said for name in _SHOWN if _SHOWN[name] in image_module.OPEN)
            return "damaged" if installed else said
    return "not a picture"


def _upright(picture: Any, channels: int) -> Decoded:
    _, ops = pillow()
    _check_size(picture)
    if picture.format == "TIFF" and picture.tag_v2.get(254, 0) & 1:
        raise UnreadablePhotographError("its first picture is a small copy of another one; save that one by itself")
    check_work(picture)
    sixteen = picture.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    turned = ops.exif_transpose(picture)
    # Icons hold pictures with sizes of their own.
    _check_size(turned)
    # Of files of these formats Pillow brings whatever is over 8 bits to 0…65535, also in its mode I.
    deep = picture.format in ("PPM", "PNG")
    if channels not in (1, 3):
        pixels = _channels(picture, turned, channels)
        return Decoded(pixels, sixteen and 0 < int(pixels.max()) < _FAINT * 255)
    pixels = _rgb(turned, deep=deep)
    if picture.format == "TIFF" and picture.mode.startswith("I;16") and picture.tag_v2.get(262) == 0:
        # White is zero in it, which Pillow heeds up to 8 bits a value.
        pixels = 255 - pixels
    return Decoded(grey(pixels) if channels == 1 else pixels, sixteen and 0 < int(pixels.max()) < _FAINT * 255)


def grey(pixels: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "y x 1"]:
    """Red, green and blue in one, as Pillow's mode L weighs them."""
    image_module, _ = pillow()
    return np.asarray(image_module.fromarray(pixels).convert("L"))[..., None]


def _channels(picture: Any, turned: Any, channels: int) -> UInt8[np.ndarray, "y x channel"]:
    """Colours and opacity, or the grey pages of a file, as so many channels."""
    plain = turned.convert({"La": "LA", "RGBa": "RGBA"}[turned.mode]) if turned.mode in ("La", "RGBa") else turned
    opacity = plain.has_transparency_data
    if channels == 4 and opacity:
        return np.asarray(plain.convert("RGBA"))
    if channels == 2 and plain.mode == "LA":
        return np.asarray(plain)
    pages = getattr(picture, "n_frames", 1)
    if pages == channels:
        # Whoever opened it finds it where it stood.
        stood, found = picture.tell(), []
        for number in range(pages):
            picture.seek(number)
            _check_size(picture)
            check_work(picture)
            if picture.mode not in ("1", "L") and not picture.mode.startswith("I;16"):
                raise UnreadablePhotographError(f"page {number + 1} isn't grey (Pillow's mode {picture.mode})")
            found.append(_rgb(picture, deep=False)[..., 0])
        picture.seek(stood)
        if len({page.shape for page in found}) > 1:
            raise UnreadablePhotographError("its pages have several sizes, so that they aren't channels of one picture")
        return np.stack(found, axis=-1)
    raise UnreadablePhotographError(other_channels(len(plain.getbands()), channels, f"Pillow's mode {turned.mode}"))


def other_channels(there: int, wanted: int, kind: str = "an array") -> str:
    """What to say of a picture with other channels than the network takes."""
    return (
        f"{there} {'channel' if there == 1 else 'channels'} ({kind}), and the network, by the numbers in its "
        f"preprocess's mean, takes {wanted}; give pictures of {wanted}, such as arrays y x {wanted}, or another network"
    )


def _check_size(picture: Any) -> None:
    width, height = picture.size
    if not width * height:
        raise UnreadablePhotographError(f"{width} × {height} pixels, which show nothing")
    if width * height > MOST_PIXELS:
        raise UnreadablePhotographError(
            f"{width} × {height} pixels are more than {MOST_PIXELS:,}, the most that are read; make it smaller"
        )


def _rgb(picture: Any, *, deep: bool) -> UInt8[np.ndarray, "y x 3"]:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and deep):
        # Pillow's own conversion takes everything above 255 for white.
        grey = np.round(np.asarray(picture) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.mode in ("I", "F"):
        raise UnreadablePhotographError(
            f"its values (Pillow's mode {picture.mode}) may mean anything; save it with 8 or 16 bits a value"
        )
    # Pillow has no way from colours multiplied by their opacity straight to the others.
    plain = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode]) if picture.mode in ("La", "RGBa") else picture
    return np.asarray(plain.convert("RGB"))


def _is_loaded(picture: Any) -> bool:
    try:
        picture.load()
    except Exception:
        # Whatever a closed file raises when it's read.
        return False
    return True
