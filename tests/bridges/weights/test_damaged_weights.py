"""Weights files that were cut off, overwritten or mixed up: refused in words, or read as they were."""

import argparse
import io
import random
import zipfile

import numpy as np
import pytest
import torch
from face_jax.bridges.weights.files import WeightsError
from torch import nn

from face_jax import bridges
from face_jax.model import Preprocess

EIGHT = Preprocess(size=8, resize=8)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def content():
    torch.manual_seed(0)
    beside = {"epoch": 3, "best": np.float64(0.9), "args": argparse.Namespace(rate=0.1), "history": np.ones(3)}
    return {"state_dict": Small().state_dict(), **beside}


def written(*, archive: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content(), file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


def members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def packed(parts: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts:
            archive.writestr(name, part)
    return file.getvalue()


def mutated(data: bytes, dice: random.Random) -> bytes:
    """One of many ways in which a file goes wrong."""
    way = dice.choice(["cut", "bits", "bytes", "zeros", "magic", "twice", "pickle", "members", "missing"])
    changed = bytearray(data)
    if way == "cut":
        return data[: dice.randrange(len(data))]
    if way == "bits":
        for _ in range(dice.choice([1, 1, 3, 30])):
            changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif way == "bytes":
        start = dice.randrange(len(data))
        changed[start : start + dice.randrange(1, 64)] = dice.randbytes(dice.randrange(64))
    elif way == "zeros":
        start = dice.randrange(len(data))
        changed[start : start + 512] = bytes(len(changed[start : start + 512]))
    elif way == "magic":
        changed[:8] = dice.choice([b"PK\x05\x06", b"<html>", b"\x89PNG\r\n", b"\x80\x02}q\x00.", b"ustar", b"GIF89a"])
    elif way == "twice":
        return data + data[dice.randrange(len(data)) :]
    elif data.startswith(b"PK"):
        parts = members(data)
        if way == "members":
            dice.shuffle(parts)
        elif way == "missing":
            parts.pop(dice.randrange(len(parts)))
        else:
            # With checksums that fit, so that the unpickler sees it.
            place = next(place for place, (name, _) in enumerate(parts) if name.endswith("data.pkl"))
            pickled = bytearray(parts[place][1])
            for _ in range(dice.choice([1, 2, 8])):
                pickled[dice.randrange(len(pickled))] = dice.randrange(256)
            parts[place] = (parts[place][0], bytes(pickled))
        return packed(parts)
    return bytes(changed)


def outcomes(count: int, data: bytes, folder, *, seed: int = 0) -> tuple[int, int, int]:
    """How many of so many mutated files were refused in words, read as they were, and read with other numbers."""
    own = content()["state_dict"]
    path, refused, right = folder / "weights.pth", 0, 0
    network = Small().eval()
    loaded_before = bridges.load(network, preprocess=EIGHT)
    assert loaded_before.model is network
    for number in range(count):
        path.write_bytes(mutated(data, random.Random(f"{seed} {number}")))
        try:
            found = bridges.load(network, weights=path, preprocess=EIGHT).model.state_dict()
        except WeightsError:
            refused += 1
        else:
            right += all(torch.equal(found[name], value) for name, value in own.items())
    return refused, right, count - refused - right


def test_damaged_archives_are_refused_in_words_or_read_as_they_were(tmp_path):
    refused, right, other = outcomes(150, written(), tmp_path)
    assert refused > 60
    assert right > 5
    assert refused + right + other == 150


def test_damaged_files_of_older_torch_are_refused_in_words_or_read(tmp_path):
    refused, right, other = outcomes(60, written(archive=False), tmp_path)
    assert refused > 20
    assert refused + right + other == 60


def test_every_flipped_bit_in_an_archives_numbers_is_noticed(tmp_path):
    data, path = written(), tmp_path / "weights.pth"
    kernel = content()["state_dict"]["conv.weight"].numpy().tobytes()
    start = data.index(kernel)
    for place in range(start, start + len(kernel), 37):
        changed = bytearray(data)
        changed[place] ^= 16
        path.write_bytes(changed)
        with pytest.raises(WeightsError, match=r"is damaged: weights/data/\d+ isn't what was saved|is damaged"):
            bridges.load(Small(), weights=path, preprocess=EIGHT)


def test_archives_without_checksums_are_read(tmp_path):
    path = tmp_path / "weights.pth"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path.write_bytes(written())
    finally:
        torch.serialization.set_crc32_options(before)
    found = bridges.load(Small().eval(), weights=path, preprocess=EIGHT).model.state_dict()
    assert torch.equal(found["conv.weight"], content()["state_dict"]["conv.weight"])
