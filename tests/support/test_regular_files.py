"""Files that somebody names: nothing but regular ones of bounded size is read, and whatever reads them says which."""

import os
import socket

import numpy as np
import pytest
from face_jax.bridges.models.folders import UnknownModelError, WeightsError, folder_tensors, read_config

import face_jax as fj
from face_jax import study
from face_jax.blocks.store_formats import opened as opened_store
from face_jax.cli.options import names_in, vocabulary_of
from face_jax.evaluation.kept_results import Kept
from face_jax.pictures.labels import files_of, labels_of
from face_jax.support.regular_files import UnfitFileError, bytes_of, opened, text_of


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    return tmp_path / "pipe.json"


def test_text_is_what_the_file_has(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffé\r\nb".encode())
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert text_of("a", tmp_path / "link.txt", "give one", most=8) == "é\r\nb"
    assert bytes_of(tmp_path / "a.txt", 8) == (tmp_path / "a.txt").read_bytes()


def test_what_isnt_a_file_of_text_is_refused_with_its_name_and_the_remedy(tmp_path, pipe, monkeypatch):
    (tmp_path / "long.txt").write_bytes(b"123456789")
    (tmp_path / "binary.txt").write_bytes(b"ab\xff")
    monkeypatch.chdir(tmp_path)  # a socket's whole path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.txt")
        for name, said in (
            ("pipe.json", "a named pipe, not a file"), ("socket.txt", "a socket, not a file"),
            ("/dev/zero", "a device, not a file"), (".", "a folder, not a file"), ("none", "No such file or directory"),
            ("long.txt", "a file of more than 8 bytes, the most that is read"), ("a\0b", "embedded null byte"),
        ):  # fmt: skip
            with pytest.raises(WeightsError) as found:
                text_of("table=x", tmp_path / name, "give a table", most=8, refused=WeightsError)
            assert str(found.value) == f"table=x can't be read ({said}); give a table"
    with pytest.raises(ValueError, match=r"^table=x isn't text in UTF-8 \(byte 2: invalid start byte\); save it so$"):
        text_of("table=x", tmp_path / "binary.txt", "give a table")
    # Somebody puts a pipe there after it was looked at.
    with monkeypatch.context() as changed:
        looked = os.stat(tmp_path / "long.txt")
        changed.setattr(os, "stat", lambda path: looked)
        with pytest.raises(UnfitFileError, match="a named pipe"), opened(pipe):
            pass


def test_no_reader_of_a_users_file_waits_for_a_pipe(tmp_path, pipe):
    pictures = fj.photographs(np.zeros((2, 8, 8, 3), np.uint8))
    (tmp_path / "shards").mkdir()
    os.mkfifo(tmp_path / "shards" / "config.json")
    os.mkfifo(tmp_path / "rows.npy")
    os.mkfifo(tmp_path / "rows.safetensors")
    for read, error, said in (
        (lambda: names_in(pipe), ValueError, "--class-names"),
        (lambda: vocabulary_of("hf/some/clip", pipe), ValueError, "--vocabulary"),
        (lambda: labels_of(pictures, str(pipe), ("a", "b")), ValueError, "labels="),
        (lambda: files_of(pipe), ValueError, "labels="),
        (lambda: study.read_answers(tmp_path), study.AnswerError, "answers="),
        (lambda: study.read_answers(pipe), study.AnswerError, "answers="),
        (lambda: study.score(pipe, pipe), study.AnswerError, "key="),
        (lambda: opened_store("activations", tmp_path / "rows.npy"), ValueError, "activations="),
        (lambda: opened_store("activations", tmp_path / "rows.safetensors"), ValueError, "activations="),
        (lambda: read_config(tmp_path / "shards", "shards"), UnknownModelError, "name='shards'"),
        (lambda: folder_tensors(tmp_path / "rows.safetensors"), WeightsError, "weights="),
    ):
        with pytest.raises(error, match=f"^{said}.*; "):
            read()


def test_caches_in_which_somebody_put_a_pipe_compute_anew(tmp_path):
    cache, kept = fj.ArrayCache(tmp_path / "arrays"), Kept(tmp_path / "results")
    for _ in range(2):
        found = cache(["a"], lambda: {"x": np.ones(3)})
        assert kept("a", ["b"], lambda: {"x": 2.0}) == {"x": 2.0}
        np.testing.assert_array_equal(found["x"], np.ones(3))
        for folder in ("arrays", "results"):
            (file,) = (tmp_path / folder).iterdir()
            file.unlink()
            os.mkfifo(file)
