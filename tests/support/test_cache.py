"""Arrays kept between runs."""

import errno
import io
import os
import subprocess
import sys

import numpy as np
import pytest

from face_jax.support.cache import ArrayCache

COMPILATIONS = """
import jax
import face_jax as fj
known = lambda: jax.config.values["jax_compilation_cache_dir"]
begun = known()
print(begun, fj.keep_compilations(), known(), fj.keep_compilations("elsewhere"))
"""


@pytest.fixture
def counted():
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3), "names": np.asarray(["x", "yz"])}

    return compute, calls


def test_computed_once_for_each_dependence(tmp_path, counted):
    compute, calls = counted
    for folder in (tmp_path, str(tmp_path)):
        cache = ArrayCache(folder)
        found = cache(["model", b"image"], compute)
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
        assert found["names"].tolist() == ["x", "yz"]
    assert len(calls) == 1
    for changed in (["modeli", b"mage"], ["model"], ["model", b"imagf"]):
        cache(changed, compute)
    assert len(calls) == 4


def test_a_damaged_file_is_computed_again(tmp_path, counted):
    compute, calls = counted
    cache = ArrayCache(tmp_path)
    cache(["key"], compute)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(cache(["key"], compute)["a"], [0, 1, 2])
    assert len(calls) == 2


def rewritten(file, **arrays):
    np.savez(file, **{**dict(np.load(file)), **arrays})


DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "no archive": lambda file: file.write_bytes(b"nonsense" * 20),
    "a pickle": lambda file: file.write_bytes(b"\x80\x04N."),
    "another array": lambda file: file.write_bytes(npy(np.arange(4))),
    "other keys": lambda file: np.savez(file, b=np.arange(3)),
    "a key more": lambda file: rewritten(file, b=np.arange(3)),
    "another shape": lambda file: rewritten(file, a=np.arange(4)),
    "another type": lambda file: rewritten(file, a=np.arange(3.0)),
    "other values": lambda file: rewritten(file, a=np.arange(3) + 1),
    "another entry": lambda file: file.write_bytes(next(file.parent.glob("other/*.npz")).read_bytes()),
}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_wrong_with_a_file_it_is_computed_anew_once(tmp_path, counted, damage):
    compute, calls = counted
    ArrayCache(tmp_path / "other")(["another key"], compute)
    cache = ArrayCache(tmp_path)
    cache(["key"], compute)
    (file,) = tmp_path.glob("*.npz")
    DAMAGES[damage](file)
    for _ in range(2):
        found = cache(["key"], compute)
        assert sorted(found) == ["a", "names"]
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert len(calls) == 3


def test_every_damaged_bit_is_noticed(tmp_path, counted):
    compute, _ = counted
    cache = ArrayCache(tmp_path)
    cache(["key"], compute)
    (file,) = tmp_path.glob("*.npz")
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found = cache(["key"], compute)
        assert sorted(found) == ["a", "names"]
        np.testing.assert_array_equal(found["a"], [0, 1, 2])
        assert found["names"].tolist() == ["x", "yz"]


def test_a_full_disk_leaves_no_parts(tmp_path, counted, monkeypatch):
    compute, _ = counted

    def full(*words, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    np.testing.assert_array_equal(ArrayCache(tmp_path)(["key"], compute)["a"], [0, 1, 2])
    assert not list(tmp_path.iterdir())


def test_the_least_recently_used_goes_first(tmp_path, counted):
    compute, calls = counted
    size = 2000
    cache = ArrayCache(tmp_path, limit=size)
    for number in range(8):
        cache([f"key {number}"], compute)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.npz")) <= size
    assert len(calls) == 8
    cache(["key 7"], compute)
    assert len(calls) == 8


def test_what_a_killed_run_left_half_written_goes_after_a_day(tmp_path, counted):
    compute, _ = counted
    old, new = tmp_path / "old.part", tmp_path / "new.part"
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    ArrayCache(tmp_path)(["key"], compute)
    assert not old.exists()
    # Another run may be writing it.
    assert new.exists()


def test_a_folder_that_cannot_be_made_costs_time_only(tmp_path, counted):
    compute, calls = counted
    (tmp_path / "file").touch()
    cache = ArrayCache(tmp_path / "file" / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(cache(["key"], compute)["a"], [0, 1, 2])
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("own", [None, "mine"])
def test_compilations_are_kept_when_asked_for_and_where_they_are_already(tmp_path, own):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"FACE_JAX_CACHE": str(tmp_path)} | ({} if own is None else {"JAX_COMPILATION_CACHE_DIR": own})
    command = [sys.executable, "-c", COMPILATIONS]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    kept = own or str(tmp_path / "compilations")
    assert told == [str(own), kept, kept, kept]


@pytest.mark.parametrize(
    ("settings", "said"), [({"folder": ""}, "folder=''"), ({"folder": "x", "limit": -1}, "limit=-1")]
)
def test_what_is_no_folder_and_no_limit_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        ArrayCache(**settings)
