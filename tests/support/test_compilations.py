"""Compilations kept between runs: damaged ones are dropped, and written anew."""

import math
import os
import subprocess
import sys
import zlib

import pytest

from face_jax.support.compilations import drop_damaged, note_digests

RUN = """
import sys, pathlib, warnings
from face_jax.support.compilations import keep_compilations
import jax, jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", None)
keep_compilations(pathlib.Path(sys.argv[1]))
print(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 3)))[0, 0])
"""


def run(folder):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", RUN, str(folder)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(3 * math.sin(1))
    assert done.stderr == ""
    return {file.name: file.read_bytes() for file in folder.glob("*-cache")}


def test_damaged_compilations_are_written_anew_without_a_word(tmp_path):
    first = run(tmp_path)
    assert first
    for name, content in first.items():
        half = len(content) // 2
        (tmp_path / name).write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    again = run(tmp_path)
    assert again.keys() == first.keys()
    assert all(zlib.decompress(content) for content in again.values())


def entry(folder):
    file = folder / "jit_f-1-cache"
    file.write_bytes(zlib.compress(b"compiled"))
    return file


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="JAX packs with zstd there")
def test_what_is_not_what_was_written_is_dropped(tmp_path):
    for damaged in (b"", b"x", zlib.compress(b"compiled")[:-3], zlib.compress(b"something else")):
        file = entry(tmp_path)
        note_digests(tmp_path)
        drop_damaged(tmp_path)
        assert file.exists()
        file.write_bytes(damaged)
        drop_damaged(tmp_path)
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="JAX packs with zstd there")
def test_entries_of_a_run_that_was_killed_are_looked_at_too(tmp_path):
    file = entry(tmp_path)
    drop_damaged(tmp_path)
    assert file.exists()
    (tmp_path / f"{file.name}.sha256").unlink()
    file.write_bytes(file.read_bytes()[:-1])
    drop_damaged(tmp_path)
    assert not file.exists()


def test_a_folder_that_is_not_there_is_no_mistake(tmp_path):
    drop_damaged(tmp_path / "nowhere")
    note_digests(tmp_path / "nowhere")
