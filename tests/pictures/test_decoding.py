"""Pictures in every format and mode people have, opened by whomever; and whatever is damaged, in words."""

import io
import os
import re
import socket
import struct
import sys
import types
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from face_jax.pictures import decoding
from face_jax.pictures.decoding import UnreadablePhotographError, decoded
from face_jax.pictures.photographs import photographs

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def made(mode):
    """The picture in a mode, and what Pillow says it is in red, green and blue."""
    if mode == "LAB":
        picture = Image.frombytes("LAB", (32, 24), PIXELS.tobytes())
    elif mode in ("La", "RGBa"):
        clear = PICTURE.convert({"La": "LA", "RGBa": "RGBA"}[mode])
        clear.putalpha(100)
        picture = clear.convert(mode)
        return picture, np.asarray(picture.convert(clear.mode).convert("RGB"))
    elif mode.startswith("I;16"):
        picture = Image.new(mode, (32, 24), 257 * 100)
        return picture, np.full((24, 32, 3), 100, np.uint8)
    else:
        picture = PICTURE.convert("P").convert("PA") if mode == "PA" else PICTURE.convert(mode)
    return picture, np.asarray(picture.convert("RGB"))


MODES = ("RGB", "L", "LA", "P", "PA", "1", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "RGBX")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")


@pytest.mark.parametrize("mode", MODES + DEEP)
def test_pictures_made_with_pillow_in_every_mode_become_rgb(mode):
    picture, expected = made(mode)
    (found,) = photographs(picture)
    np.testing.assert_array_equal(found.pixels(), expected)


@pytest.mark.parametrize(
    ("mode", "file"),
    [
        *((mode, "a.png") for mode in ("RGB", "L", "LA", "P", "RGBA", "1", "I;16")),
        *((mode, "a.tiff") for mode in ("RGB", "CMYK", "YCbCr", "LAB", "LA", "P", "1", "I;16B")),
        *(("RGB", f"a.{suffix}") for suffix in ("jpg", "bmp", "webp", "ppm", "tga", "pcx", "sgi", "gif", "jp2", "dds")),
        ("CMYK", "a.jpg"),
    ],
)
def test_a_picture_opened_with_pillow_is_what_its_file_is(tmp_path, mode, file):
    exif = Image.Exif()
    exif[0x0112] = 6
    settings: dict[str, Any] = {"exif": exif} if file[2:] in ("png", "jpg", "webp") else {}
    made(mode)[0].save(tmp_path / file, **settings)
    (of_file,) = photographs(tmp_path / file)
    with Image.open(tmp_path / file) as opened:
        (lazily,) = photographs(opened)
    with Image.open(tmp_path / file) as opened:
        opened.load()
    (closed,) = photographs(opened)
    for found in (lazily, closed):
        np.testing.assert_array_equal(found.pixels(), of_file.pixels())
    if file[2:] in ("png", "jpg", "webp"):
        assert of_file.pixels().shape == (32, 24, 3)


@pytest.mark.parametrize("file", ["a.gif", "a.tiff", "a.png", "a.webp"])
def test_of_several_pictures_in_a_file_the_first_is_taken(tmp_path, file):
    first = Image.fromarray(np.full((24, 32, 3), 200, np.uint8))
    first.save(tmp_path / file, save_all=True, append_images=[PICTURE])
    (of_file,) = photographs(tmp_path / file)
    assert np.abs(of_file.pixels().astype(int) - 200).max() <= 2
    with Image.open(tmp_path / file) as opened:
        np.testing.assert_array_equal(photographs(opened)[0].pixels(), of_file.pixels())
        # Whoever turned to another frame means that one.
        opened.seek(1)
        assert np.ptp(photographs(opened)[0].pixels()) > 200


@pytest.mark.parametrize("largest", [65535, 1000])
def test_grey_maps_of_more_than_eight_bits_are_brought_to_eight(tmp_path, largest):
    grey = PIXELS[..., 0]
    values = np.round(grey / 255 * largest).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 32 24 %d\n" % largest + values.tobytes())
    (found,) = photographs(tmp_path / "a.pgm")
    np.testing.assert_array_equal(found.pixels(), np.repeat(grey[..., None], 3, axis=-1))
    with Image.open(tmp_path / "a.pgm") as picture:
        np.testing.assert_array_equal(photographs(picture)[0].pixels(), found.pixels())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("white_is_zero", [True, False])
def test_tiffs_in_which_white_is_zero_are_no_negatives(tmp_path, bits, white_is_zero):
    grey = PIXELS[..., 0]
    values = grey.astype("<u2") * 257 if bits == 16 else grey
    stored = (2**bits - 1 - values if white_is_zero else values).astype(f"<u{bits // 8}").tobytes()
    entries = [(256, 32), (257, 24), (258, bits), (259, 1), (262, int(not white_is_zero)), (273, 200), (277, 1),
               (278, 24), (279, len(stored))]  # fmt: skip
    head = (
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", n, 4, 1, v) for n, v in entries)
    )
    (tmp_path / "a.tif").write_bytes(head.ljust(200, b"\0") + stored)
    (found,) = photographs(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.pixels(), np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pillow_images_without_a_range_are_refused_like_their_files(mode):
    with pytest.raises(UnreadablePhotographError, match=rf"image: its values \(Pillow's mode {mode}\)"):
        photographs(PICTURE.convert("L").convert(mode))[0].pixels()


def test_pillow_images_that_cannot_be_read_any_more_are_named(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    cut = Image.open(io.BytesIO((tmp_path / "a.png").read_bytes()[:600]))
    for picture, said in ((closed, "image 1: its file was closed"), (cut, "image 1: image file is truncated")):
        whole, broken = photographs([PICTURE, picture])
        np.testing.assert_array_equal(whole.pixels(), PIXELS)
        with pytest.raises(UnreadablePhotographError, match=said):
            broken.pixels()


@pytest.mark.parametrize("name", ["a.eps", "a.jpg", "a"])
def test_postscript_is_handed_to_nobody(tmp_path, monkeypatch, name):
    def started(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    PICTURE.save(tmp_path / name, format="EPS")
    with pytest.raises(UnreadablePhotographError, match=rf"{name}: PostScript, which is a program; save it as PNG"):
        photographs(tmp_path / name)[0].pixels()
    with Image.open(tmp_path / name) as opened:
        (found,) = photographs(opened)
    with pytest.raises(UnreadablePhotographError, match="Pillow would hand EPS to another program"):
        found.pixels()


def test_no_reader_in_the_list_starts_a_program():
    assert not set(decoding.FORMATS) & {"EPS", "WMF", "MPEG", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "IPTC", "PDF"}


@pytest.mark.parametrize(
    ("begins", "name", "said"),
    [
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "a.jpg", r"\(HEIC: pip install pillow-heif\)"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00", "a", r"\(HEIC: pip install pillow-heif\)"),
        (b"\xff\x0a\x00\x00", "a.jxl", r"\(JPEG XL: pip install pillow-jxl-plugin\)"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", "a.mp4", "a video"),
        (b"%PDF-1.7", "a.png", "a PDF"),
        (b"<svg xmlns=''/>", "a.svg", "a drawing of lines"),
        (b"II*\x00 and so on", "a.NEF", "a camera's raw file; develop it"),
        (b"FUJIFILMCCD-RAW ", "a", "a camera's raw file; develop it"),
        (b"PK\x03\x04", "a.npz", "give an .npz or .npy by itself"),
        (b"words", "a.txt", "not a picture"),
    ],
)
def test_other_formats_are_called_by_their_names(begins, name, said):
    with pytest.raises(UnreadablePhotographError, match=said):
        decoded(begins + bytes(40), name)


def test_heic_is_read_where_its_reader_is_installed(monkeypatch):
    calls = []
    monkeypatch.setitem(
        sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=lambda: calls.append("registered"))
    )
    decoding.pillow.cache_clear()
    decoding.pillow()
    decoding.pillow.cache_clear()
    assert calls == ["registered"]


def test_a_small_copy_in_a_tiff_is_no_picture_of_it(tmp_path):
    PICTURE.save(tmp_path / "a.tiff", tiffinfo={254: 1})
    with pytest.raises(UnreadablePhotographError, match="a small copy of another one"):
        photographs(tmp_path / "a.tiff")[0].pixels()


def test_pictures_beyond_the_limits_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(_claiming(13_000, 13_000))
    with pytest.raises(UnreadablePhotographError, match=r"bomb.png: 13000 × 13000 pixels are more than 134,217,728"):
        photographs(tmp_path / "bomb.png")[0].pixels()
    (tmp_path / "bomb.png").write_bytes(_claiming(20_000, 20_000))
    with pytest.raises(UnreadablePhotographError, match=r"bomb.png: more than 134,217,728 pixels"):
        photographs(tmp_path / "bomb.png")[0].pixels()
    monkeypatch.setattr(decoding, "MOST_BYTES", 60)
    with pytest.raises(UnreadablePhotographError, match=r"bomb.png: a file of more than 60 bytes"):
        photographs(tmp_path / "bomb.png")[0].pixels()
    monkeypatch.setattr(decoding, "MOST_PIXELS", 24 * 32 - 1)
    with pytest.raises(UnreadablePhotographError, match=r"image: 32 × 24 pixels are more than 767"):
        photographs(PICTURE)[0].pixels()


def _claiming(width, height):
    """A PNG that says it's so large, and has next to nothing in it."""
    content = bytearray(_saved(Image.new("L", (1, 1)), "PNG"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("source", [Image.new("RGB", (0, 3)), np.zeros((3, 0, 3), np.uint8)])
def test_pictures_without_pixels_are_unreadable(source):
    with pytest.raises(UnreadablePhotographError, match="image: 0 × 3 pixels, which show nothing"):
        photographs(source)[0].pixels()


@pytest.mark.parametrize(("share", "faint"), [(4095, True), (65535, False), (0, False)])
@pytest.mark.parametrize("file", ["a.png", "a.tiff"])
def test_twelve_bits_in_sixteen_are_noticed(tmp_path, file, share, faint):
    ramp = np.linspace(0, share, 24 * 32).reshape(24, 32).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / file)
    (of_file,) = photographs(tmp_path / file)
    assert of_file.decoded().faint is faint
    with Image.open(tmp_path / file) as opened:
        assert photographs(opened)[0].decoded().faint is faint
    # Dark pictures of eight bits are dark.
    assert not decoded(_saved(Image.fromarray((PIXELS // 20).astype(np.uint8)), "PNG"), "a.png").faint


def _saved(picture, kind, **how):
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **how)
    return buffer.getvalue()


def test_damaged_pictures_are_unreadable_and_nothing_else():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    kinds = [
        _saved(PICTURE, "PNG", exif=exif), _saved(PICTURE.convert("P"), "PNG", transparency=3),
        _saved(PICTURE, "JPEG", exif=exif), _saved(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)]),
        _saved(PICTURE, "BMP"), _saved(PICTURE, "TIFF"), _saved(PICTURE, "WEBP", exif=exif), _saved(PICTURE, "ICO"),
        _saved(PICTURE, "DDS"), _saved(PICTURE, "TGA"), _saved(PICTURE, "JPEG2000"), _saved(PICTURE, "QOI"),
    ]  # fmt: skip
    if "AVIF" in decoding.pillow()[0].SAVE:
        kinds.append(_saved(PICTURE, "AVIF", exif=exif))
    generator, reasons = np.random.default_rng(0), set()
    for number in range(40 * len(kinds)):
        content = bytearray(kinds[number % len(kinds)])
        for place in generator.integers(len(content), size=generator.integers(1, 6)):
            content[place] = generator.integers(256)
        if number % 3 == 0:
            del content[generator.integers(len(content)) :]
        elif number % 3 == 1:
            # Headers are where readers trust what they read.
            content[generator.integers(min(len(content), 80))] = generator.choice([0, 1, 127, 128, 255])
        try:
            pixels = decoded(bytes(content), "a").pixels
        except UnreadablePhotographError as error:
            reasons.add(str(error))
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[-1] == 3
    assert len(reasons) > 10
    assert all(re.fullmatch(r".{1,400}", reason) for reason in reasons)


def test_whatever_a_reader_raises_is_a_reason(monkeypatch):
    def broken(error):
        def raises(*_, **__):
            raise error

        return raises

    for error, said in (
        (RuntimeError("decoder"), r"damaged \(decoder\)"),
        (NotImplementedError(), r"damaged \(NotImplementedError\)"),
        (MemoryError(), "more memory than there is"),
        (RecursionError("deep"), r"damaged \(deep\)"),
    ):
        monkeypatch.setattr(Image, "open", broken(error))
        with pytest.raises(UnreadablePhotographError, match=said):
            decoded(b"", "a")


def test_what_is_no_file_is_named_and_never_opened(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "good.png")
    (tmp_path / "a.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    with socket.socket(socket.AF_UNIX) as listening:
        # A socket's whole path must be short.
        monkeypatch.chdir(tmp_path)
        listening.bind("s.png")
    found = {one.name: one for one in photographs(tmp_path)}
    reasons = {}
    for name, one in found.items():
        try:
            np.testing.assert_array_equal(one.pixels(), PIXELS)
        except UnreadablePhotographError as error:
            reasons[name] = str(error)
            with pytest.raises(UnreadablePhotographError):
                one.digest()
    assert set(found) - set(reasons) == {"good.png", "link.png"}
    assert reasons["a.jpg"] == "a.jpg: a folder under the name of a picture; give it by itself"
    assert reasons["pipe.png"] == "pipe.png: a named pipe, not a file"
    assert reasons["s.png"] == "s.png: a socket, not a file"
    assert reasons["device.png"] == "device.png: a device, not a file"
    assert reasons["up"] == "up: a link to a folder, which isn't followed; give that folder"
    assert "nowhere.png', where there is no file" in reasons["broken.png"]
    assert "symbolic links" in reasons["circle.png"]


def test_a_file_and_a_folder_without_permission_are_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    for name in ("a.png", "b.png", "locked/c.png"):
        PICTURE.save(tmp_path / name)
    really, scan = os.open, os.scandir

    def refusing(of):
        def refuses(path, *rest, **how):
            if str(path).endswith(("a.png", "locked")):
                raise PermissionError(13, "Permission denied", str(path))
            return of(path, *rest, **how)

        return refuses

    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "open", refusing(really))
    monkeypatch.setattr(os, "scandir", refusing(scan))
    first, second, locked = photographs(tmp_path)
    np.testing.assert_array_equal(second.pixels(), PIXELS)
    with pytest.raises(UnreadablePhotographError, match=r"^a.png: Permission denied$"):
        first.pixels()
    with pytest.raises(UnreadablePhotographError, match=r"^a.png: Permission denied$"):
        first.digest()
    with pytest.raises(
        UnreadablePhotographError, match=r"^locked: a folder that can't be listed \(Permission denied\)$"
    ):
        locked.pixels()
