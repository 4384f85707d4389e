"""What takes another file's place is on the disk before it does, and its folder after that."""

import errno
import os
import pathlib
import re

import numpy as np
import pytest
from face_jax.bridges.stores import DiskStore

import face_jax as fj
from face_jax.blocks.scratch import Scratch
from face_jax.evaluation.kept_results import Kept
from face_jax.nmf.code_stores import CodeStore
from face_jax.support import to_disk
from face_jax.support.atomic_folder import put_together
from face_jax.support.to_disk import put_at, synced

SOURCES = pathlib.Path(fj.__file__).parent, pathlib.Path(__file__).parent.parent.parent / "bridges"


@pytest.fixture
def told(monkeypatch):
    """What was brought to the disk and what was renamed, in order: ("synced", inode) and ("moved", from, to)."""
    steps, sync, replace = [], os.fsync, os.replace

    def fsync(opened):
        sync(opened)
        steps.append(("synced", os.fstat(opened).st_ino))

    def moved(file, place):
        file = pathlib.Path(file)
        parts = {each.stat().st_ino: str(each) for each in [file, *(file.rglob("*") if file.is_dir() else ())]}
        replace(file, place)
        steps.append(("moved", parts, pathlib.Path(place).parent.stat().st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", moved)
    return steps


def put_folder(folder):
    for content in ("old", "new"):
        with put_together(folder / "saved") as new:
            (new / "deep").mkdir()
            for name in ("a.txt", "deep/b.txt"):
                (new / name).write_text(content)
    assert (folder / "saved" / "deep" / "b.txt").read_text() == "new"


def put_codes(folder):
    store = CodeStore(folder / "codes.npy", (4, 2), np.float32, Scratch(folder), 2)
    store.put(0, 4, np.ones((4, 2), np.float32))
    assert store.finish().sum() == 8


def put_store(folder):
    store = DiskStore(folder / "rows.npy", {"of": "this"}, 3)
    store.append(np.ones((2, 5), np.float32), ["a", "b"], [], (8, 8, 3))
    assert DiskStore(folder / "rows.npy", {"of": "this"}, 3).names == ["a", "b"]


@pytest.mark.parametrize(
    "write",
    [
        put_folder,
        put_codes,
        put_store,
        lambda folder: fj.ArrayCache(folder)(["a"], lambda: {"x": np.ones(3)}),
        lambda folder: Kept(folder)("a", ["b"], lambda: {"x": 2.0}),
    ],
    ids=["folders", "codes", "stores", "caches", "results"],
)
def test_files_are_on_the_disk_before_they_are_renamed_and_their_folder_after(write, tmp_path, told):
    write(tmp_path)
    assert any(step[0] == "moved" for step in told)
    for number, (what, *found) in enumerate(told):
        if what == "moved":
            parts, folder = found
            before = {step[1] for step in told[:number] if step[0] == "synced"}
            assert not {path for inode, path in parts.items() if inode not in before}
            assert ("synced", folder) in told[number:]


def test_nothing_is_renamed_elsewhere():
    renames = re.compile(r"\bos\.(replace|rename)\(|\.rename\(|\.replace\([\w.]*(path|place|file)\)")
    found = [file.name for folder in SOURCES for file in folder.rglob("*.py") if renames.search(file.read_text())]
    assert found == ["to_disk.py"]


def test_a_write_that_fails_is_told_and_what_file_systems_cannot_do_isnt(tmp_path, monkeypatch):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")

    def failing(number):
        def fsync(opened):
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(to_disk.os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        put_at(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "old"
    with pytest.raises(OSError, match=r"^folder=.*No space left.*is as it was"), put_together(tmp_path / "a") as new:
        (new / "x").write_text("x")
    monkeypatch.setattr(to_disk.os, "fsync", failing(errno.EINVAL))
    synced(tmp_path)
    put_at(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
