"""Files that ask for far more work than their pixels explain: refused before they are decoded, in words."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from face_jax.pictures import decoding_work
from face_jax.pictures.decoding import MOST_PIXELS, UnreadablePhotographError, decoded
from face_jax.pictures.decoding_work import MOST_WORK, CountedReads, jpeg_passes
from face_jax.pictures.photographs import photographs
from face_jax.pictures.preprocess import Preprocess
from face_jax.pictures.reading import Readable

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def saved(kind, pixels=PIXELS, mode="RGB", **how):
    written = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(written, format=kind, **how)
    return written.getvalue()


def with_scans(content, count):
    """A progressive JPEG whose last scan is there so many times more."""
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * count + content[-2:]


@pytest.fixture(scope="module")
def many_scans():
    """A picture of 2048², and with scans that go over it a thousand times more."""
    content = saved("JPEG", np.full((2048, 2048, 3), 128, np.uint8), progressive=True)
    return content, with_scans(content, 1100)


def png_chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def overlapping_tiff(side, count):
    """A grey TIFF of two strips that says so many times where the first one is."""
    rows, data = side // 2, bytes(side * side // 2)
    places, lengths = (struct.pack("<I", number) * count for number in (8, len(data)))
    first = 8 + len(data)
    entries = [(256, 1, side), (257, 1, side), (258, 1, 8), (259, 1, 1), (262, 1, 1), (273, count, first), (277, 1, 1),
               (278, 1, rows), (279, count, first + len(places))]  # fmt: skip
    return (
        b"II*\0" + struct.pack("<I", first + len(places + lengths)) + data + places + lengths
        + struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", n, 4, many, v) for n, many, v in entries)
        + bytes(4)
    )  # fmt: skip


def test_ordinary_progressive_pictures_of_the_largest_size_are_under_the_bound():
    for mode, passes in (("RGB", 14), ("CMYK", 24), ("L", 6)):
        assert jpeg_passes(saved("JPEG", mode=mode, progressive=True)) == passes
        assert passes * MOST_PIXELS < MOST_WORK
        assert jpeg_passes(saved("JPEG", mode=mode)) == len(Image.new(mode, (1, 1)).getbands())


def test_a_picture_of_many_scans_is_refused_from_files_and_of_pillow(many_scans, tmp_path):
    usual, slow = many_scans
    assert decoded(usual, "a.jpg").pixels.shape == (2048, 2048, 3)
    assert jpeg_passes(slow) == jpeg_passes(usual) + 1100
    reason = r"its 2048 × 2048 pixels are gone over 1,114 times, as in no photograph's file; save it again"
    with pytest.raises(UnreadablePhotographError, match=f"^{reason}$"):
        decoded(slow, "a.jpg")
    (tmp_path / "slow.jpg").write_bytes(slow)
    with pytest.raises(UnreadablePhotographError, match=rf"slow\.jpg: {reason}"):
        photographs(tmp_path / "slow.jpg")[0].pixels()
    with Image.open(tmp_path / "slow.jpg") as lazily:
        with pytest.raises(UnreadablePhotographError, match=f"^image: {reason}"):
            photographs(lazily)[0].pixels()
        # Who decodes it has waited already.
        lazily.tile = []
        decoding_work.check_work(lazily)


def test_pages_are_checked_each_by_itself(many_scans):
    usual, slow = (np.frombuffer(each, np.uint8) for each in many_scans)
    opened = Image.open(io.BytesIO(usual.tobytes() + slow.tobytes()))
    decoding_work.check_work(opened)
    (tile,) = opened.tile
    opened.tile = [(tile[0], tile[1], len(usual), *tile[3:])]  # pyright: ignore[reportAttributeAccessIssue]
    stood = opened.fp.tell()
    with pytest.raises(ValueError, match="gone over 1,114 times"):
        decoding_work.check_work(opened)
    assert opened.fp.tell() == stood


def test_small_pictures_may_have_many_scans_and_what_looks_like_some_is_none(many_scans):
    small = saved("JPEG", np.full((24, 32, 3), 128, np.uint8), progressive=True)
    np.testing.assert_array_equal(decoded(with_scans(small, 300), "a.jpg").pixels, decoded(small, "a.jpg").pixels)
    usual, _ = many_scans
    # In a segment, and behind the end, as telephones write videos there.
    segment = b"\xff\xe5" + struct.pack(">H", 2 + 6000) + b"\xff\xda\0\4\1\0" * 1000
    decoded(usual[:2] + segment + usual[2:] + b"\xff\xda" * 5000, "a.jpg")
    # Segments of reserved markers hide nothing: where data restarts, these are passed over without their length.
    hidden = b"\xff\x02" + struct.pack(">H", 600) + b"\xff\xda\0\x08\1\1\0\1\x3f\0" * 60
    assert jpeg_passes(usual[:-2] + hidden + usual[-2:]) == jpeg_passes(usual) + 60


@pytest.mark.parametrize(
    "content",
    [
        saved("JPEG")[:2] + b"\xff\xe1\0\2" * 20_000 + saved("JPEG")[2:],
        saved("JPEG")[:2] + b"\xff" * 40_000 + saved("JPEG")[2:],
        saved("PNG")[:33] + png_chunk(b"tEXt", b"a\0b") * 20_000 + saved("PNG")[33:],
        saved("GIF")[:-1][: 13 + 768] + b"\x21\xfe" + b"\1a" * 40_000 + b"\0" + saved("GIF")[13 + 768 :],
    ],
    ids=["segments", "filling", "chunks", "comments"],
)
def test_files_of_very_many_parts_are_refused_by_any_reader(content):
    with pytest.raises(UnreadablePhotographError, match=r"^it consists of more parts than any photograph's file"):
        decoded(content, "a")


def test_parts_are_counted_while_a_picture_is_decoded_too(monkeypatch):
    png = saved("PNG")
    split = png.index(b"IDAT") - 4
    many = png[:split] + png_chunk(b"IDAT") * 300 + png[split:]
    np.testing.assert_array_equal(decoded(many, "a.png").pixels, PIXELS)
    monkeypatch.setattr(decoding_work, "MOST_READS", (2**15, 500))
    with pytest.raises(UnreadablePhotographError, match="more parts"):
        decoded(many, "a.png")


def test_a_picture_whose_parts_overlap_is_refused():
    assert decoded(overlapping_tiff(256, 2), "a.tif").pixels.shape == (256, 256, 3)
    with pytest.raises(UnreadablePhotographError, match=r"^its \d{3},\d{3} parts are too many, or overlap"):
        decoded(overlapping_tiff(256, 2**18 + 1), "a.tif")


@pytest.mark.parametrize("kind", ["QOI", "DDS", "PPM"])
def test_what_is_decoded_in_python_has_fewer_pixels(kind, monkeypatch):
    content = saved(kind)
    if kind == "PPM":
        content = b"P3 32 24 255\n" + " ".join(map(str, PIXELS.ravel())).encode()
    elif kind == "DDS":
        # Colours by masks that Pillow has no name for.
        masks = struct.pack("<8I", 32, 0x40, 0, 24, 0xFF0000, 0xFF00, 0xFF, 0)
        content = content[:76] + masks + content[108:128] + PIXELS[..., ::-1].tobytes()
    monkeypatch.setattr(decoding_work, "MOST_READS", (2**15, 0))
    np.testing.assert_array_equal(decoded(content, "a").pixels, PIXELS)
    monkeypatch.setattr(decoding_work, "MOST_IN_PYTHON", 700)
    with pytest.raises(UnreadablePhotographError, match=r"32 × 24 pixels are more than 700.*decoded slowly.*as PNG"):
        decoded(content, "a")


def test_only_reads_are_counted():
    stream = CountedReads(b"abc" * 9)
    stream.left = 3
    assert [stream.read(1), stream.read(2), stream.read()] == [b"a", b"bc", b"abc" * 8]
    with pytest.raises(ValueError, match="more parts"):
        stream.read(1)


def test_a_slow_picture_among_others_is_skipped_by_name(many_scans, tmp_path):
    (tmp_path / "a.png").write_bytes(saved("PNG"))
    (tmp_path / "slow.jpg").write_bytes(many_scans[1])
    reading = Readable(photographs(tmp_path), Preprocess(size=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3))
    assert len(list(reading)) == 1
    (skipped,) = reading.skipped
    assert re.match(r"slow\.jpg: its 2048 × 2048 pixels are gone over", skipped)
