"""How much work a picture's file asks of its decoder, which its pixels and bytes don't bound."""

from __future__ import annotations

import io
import re
from typing import Any

# Passes over the largest picture that is read, times its pixels. A progressive JPEG of three colours makes 14, and one
# of four colours 24; an empty one is 10 bytes, and takes about a nanosecond a pixel.
MOST_WORK = 2**32
# Pixels of the largest picture that one of Pillow's readers in Python decodes, at about a microsecond each.
MOST_IN_PYTHON = 2**25
# Reads until a picture is opened, and while it's decoded: Pillow's loops over what a file consists of make a few a
# turn.
MOST_READS = (2**15, 2**22)
# A pass, or a part with pixels of its own, costs as much as these pixels at least.
_SMALLEST = 2**14
_CHUNK = 2**20
_SCAN = b"\xff\xda"
# Neither what data has in place of 255, nor what stands between its restarts, nor what's reserved: libjpeg looks for
# the next marker right behind these.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")


class CountedReads(io.BytesIO):
    """A file's content that can be read from so many times: `left`, from which each time takes one.

    Readers of Pillow's go through chunks, segments, blocks and tags with loops in Python, so that a file of a few bytes
    each would keep them for minutes; some join up all they found at each turn.
    """

    def __init__(self, content: bytes):
        super().__init__(content)
        self.left = MOST_READS[0]

    def read(self, size: int | None = -1, /) -> bytes:
        """What `io.BytesIO` reads; raises `ValueError` when it was read from too often."""
        self.left -= 1
        if self.left < 0:
            raise ValueError("it consists of more parts than any photograph's file; save it again")
        return super().read(size)

    def count_anew(self, picture: Any) -> None:
        """Allows the reads that decoding a picture takes which was opened from here."""
        width, height = picture.size
        # Readers in Python take values one by one.
        self.left = MOST_READS[1] + (4 * width * height if _in_python(picture) else 0)


def _in_python(picture: Any) -> bool:
    from PIL import Image

    return any(tile[0] in Image.DECODERS for tile in getattr(picture, "tile", ()))


def check_work(picture: Any) -> None:
    """Refuses a picture of Pillow's that isn't decoded yet if that would take far longer than its pixels explain."""
    width, height = picture.size
    tiles = getattr(picture, "tile", ())
    if _in_python(picture) and width * height > MOST_IN_PYTHON:
        raise ValueError(
            f"{width} × {height} pixels are more than {MOST_IN_PYTHON:,}, the most that are read of this kind of "
            "file, which is decoded slowly; save it as PNG"
        )
    work = 0
    for codec, extents, offset, *_ in tiles:
        left, upper, right, lower = extents or (0, 0, width, height)
        pixels = max((right - left) * (lower - upper), _SMALLEST)
        passes = _passes(picture.fp, offset, MOST_WORK // pixels) if codec == "jpeg" else 1
        work += pixels * passes
        if work > MOST_WORK:
            what = f"its {width} × {height} pixels are gone over {passes:,} times"
            if passes == 1:
                what = f"its {len(tiles):,} parts are too many, or overlap"
            raise ValueError(f"{what}, as in no photograph's file; save it again")


def _passes(file: Any, offset: int, most: int) -> int:
    """How many times the colours of the JPEG at this place are gone over, all together; exact if over `most`."""
    stood = file.tell()
    try:
        file.seek(offset)
        at_most = 4 * _scans_at_most(file)
        if at_most <= most:
            return at_most
        file.seek(offset)
        return jpeg_passes(file.read())
    finally:
        file.seek(stood)


def _scans_at_most(file: Any) -> int:
    """How often the bytes of a scan's beginning are there, be it as data of something else."""
    count, last = 0, b""
    while chunk := file.read(_CHUNK):
        count += (last + chunk).count(_SCAN)
        last = chunk[-1:]
    return count


def jpeg_passes(content: bytes) -> int:
    """The colours of all scans of a JPEG, by its markers, up to its end."""
    passes, at = 0, 0
    while found := _MARKER.search(content, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            break
        if marker == 0xD8:
            continue
        if marker == 0xDA:
            passes += min(max(content[at + 2 : at + 3] or b"\1", b"\1")[0], 4)
        at += max(2, int.from_bytes(content[at : at + 2], "big"))
    return passes
