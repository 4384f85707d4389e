"""Several processes that have rows of their own find what one finds that has them all."""

import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from compiling import compiled_as_here

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "many_hosts.py"
RANK = 3


def rows_of(lengths: tuple[int, ...]) -> list[np.ndarray]:
    """Files of so many rows."""
    rng = np.random.default_rng(7)
    dictionary = rng.gamma(0.3, 1, (RANK, 12))
    return [rng.gamma(0.3, 1, (rows, RANK)) @ dictionary + 0.1 * rng.random((rows, 12)) for rows in lengths]


def run(folder: pathlib.Path, processes: int, *more: str) -> tuple[float, np.ndarray, list[np.ndarray]]:
    """Objective, dictionary and each file's codes, from so many processes."""
    files = sorted(str(file) for file in folder.glob("*.npy"))
    out = folder / f"{processes}"
    settings = [*files, "--rank", str(RANK), "--out", str(out), "--rtol", "1e-9", "--max-steps", "400", *more]
    environment = compiled_as_here(JAX_CPU_COLLECTIVES_IMPLEMENTATION="gloo", JAX_ENABLE_X64="1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for number in range(processes):
        where = ["--coordinator", place, "--processes", str(processes), "--process", str(number)]
        command = [sys.executable, str(SCRIPT), *settings, *(where if processes > 1 else ["--alone"])]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
    try:
        said = [process.communicate() for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, error) in zip(started, said, strict=True):
        assert process.returncode == 0, error[-3000:]
    assert f"devices of {processes} processes" in said[0][0], said[0][0]
    objective = float(said[0][0].partition("objective ")[2].split()[0])
    codes = [np.load(out / f"codes-of-{pathlib.Path(file).stem}.npy") for file in files]
    return objective, np.load(out / "dictionary.npy"), codes


def test_processes_with_their_own_files_find_what_one_finds(tmp_path):
    lengths = (96, 96, 96, 96)
    for number, rows in enumerate(rows_of(lengths)):
        np.save(tmp_path / f"part-{number}.npy", rows)
    objective, dictionary, codes = run(tmp_path, 1)
    assert tuple(map(len, codes)) == lengths
    # Two files each; the test below has more processes, of a file each.
    found = run(tmp_path, 2)
    assert abs(found[0] / objective - 1) < 1e-10
    np.testing.assert_allclose(found[1], dictionary, atol=1e-10)
    for mine, theirs in zip(found[2], codes, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9 * theirs.max())


def test_files_may_have_different_numbers_of_rows(tmp_path):
    matrices = rows_of((50, 61, 77, 40))
    for number, rows in enumerate(matrices):
        np.save(tmp_path / f"part-{number}.npy", rows)
    objective, dictionary, codes = run(tmp_path, 4)
    assert [len(mine) for mine in codes] == [len(rows) for rows in matrices]
    # The objective is that of all rows, and of none twice.
    error = sum(((rows - mine @ dictionary) ** 2).sum() for rows, mine in zip(matrices, codes, strict=True))
    np.testing.assert_allclose(objective, error / 2, rtol=1e-6)


def test_processes_that_were_killed_go_on_together(tmp_path):
    pytest.importorskip("orbax.checkpoint", reason="Orbax is optional")
    for number, rows in enumerate(rows_of((96, 96))):
        np.save(tmp_path / f"part-{number}.npy", rows)
    kept = ["--checkpoint", str(tmp_path / "run"), "--checkpoint-steps", "8", "--max-steps", "20"]
    whole = run(tmp_path, 2, *kept)
    *_, last = sorted((tmp_path / "run").glob("step-*"))
    assert last.name == "step-000000016"
    # As a run leaves it that was killed before this.
    shutil.rmtree(last)
    again = run(tmp_path, 2, *kept)
    assert last.exists()
    assert again[0] == whole[0]
    np.testing.assert_array_equal(again[1], whole[1])
    np.testing.assert_array_equal(again[2], whole[2])
