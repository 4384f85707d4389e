"""Checkpoints: what was killed goes on and ends with the same bits; what can't be gone on from is refused."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from compiling import QUICKLY

import face_jax as fj
from face_jax.nmf import checkpoint as keeping
from face_jax.nmf import out_of_core

pytest.importorskip("orbax.checkpoint", reason="Orbax is optional")
RANK, SHAPE = 4, (1503, 24)
A = np.random.default_rng(0).gamma(0.5, 1, (SHAPE[0], RANK)) @ np.random.default_rng(1).gamma(0.5, 1, (RANK, SHAPE[1]))
A = A + np.random.default_rng(2).random(SHAPE)
SOLVER = fj.ADMM(rtol=1e-6, max_steps=60)


class KilledError(Exception):
    pass


def fitted(folder, rows=A, *, key=0, **changes):
    given = {"solver": SOLVER, "key": key} | changes
    if folder is not None:
        given["checkpoint"] = fj.Checkpoint(folder, steps=5)
    return fj.factorize(fj.RowBlocks(rows, rows=600), RANK, **given)


def killed(folder, monkeypatch, *, after, **changes):
    """A run that ends behind its so-manieth checkpoint."""
    save, count = keeping.Keeper.save, 0

    def saved(*given):
        nonlocal count
        save(*given)
        count += 1
        if count == after:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(keeping.Keeper, "save", saved)
        with pytest.raises(KilledError):
            fitted(folder, **changes)


def _told_to(told, load=keeping.Keeper.load):
    def loaded(self, *given):
        told.append(self.last.name)
        return load(self, *given)

    return loaded


def assert_same_bits(found, wanted):
    assert int(wanted.stats.steps) > 15
    np.testing.assert_array_equal(found.codes[:], wanted.codes[:])
    np.testing.assert_array_equal(found.dictionary, wanted.dictionary)
    np.testing.assert_array_equal(found.stats.objective, wanted.stats.objective)
    assert int(found.stats.restarts) == int(wanted.stats.restarts)
    assert found.result.message == wanted.result.message


@pytest.mark.parametrize("changes", [{}, {"codes": False}], ids=["codes kept", "codes made again"])
def test_a_run_that_was_killed_ends_with_the_same_bits(changes, tmp_path, monkeypatch):
    whole = fitted(tmp_path / "whole", **changes)
    folder, told = tmp_path / "killed", []
    killed(folder, monkeypatch, after=3, **changes)
    assert sorted(each.name for each in folder.glob("step-*")) == ["step-000000010", "step-000000015"]
    with monkeypatch.context() as patch:
        patch.setattr(keeping.Keeper, "load", _told_to(told))
        assert_same_bits(fitted(folder, **changes), whole)
    assert told == ["step-000000015"]
    # The run without checkpoints takes the same steps.
    np.testing.assert_array_equal(fitted(None, **changes).dictionary, whole.dictionary)


def test_a_run_that_was_out_of_steps_takes_more(tmp_path, monkeypatch):
    fitted(tmp_path, solver=dataclasses.replace(SOLVER, max_steps=14))
    filled = []
    monkeypatch.setattr(out_of_core, "samples_for", lambda *given: filled.append(given))
    found = fitted(tmp_path)
    # It goes on, and takes no samples to begin with.
    assert not filled
    monkeypatch.undo()
    assert_same_bits(found, fitted(None))
    with pytest.raises(fj.CheckpointError, match=r"behind max_steps=7; give the solver at least max_steps="):
        fitted(tmp_path, solver=dataclasses.replace(SOLVER, max_steps=7))


def test_a_run_that_has_ended_is_gone_on_from_as_well(tmp_path):
    assert_same_bits(fitted(tmp_path), fitted(tmp_path))


def test_activations_in_memory_can_be_kept_too(tmp_path):
    found = fj.factorize(A, RANK, solver=SOLVER, checkpoint=tmp_path / "run")
    wanted = fj.factorize(A, RANK, solver=SOLVER)
    np.testing.assert_allclose(found.dictionary, wanted.dictionary, atol=1e-10)
    assert (tmp_path / "run").is_dir()


OTHERS = {
    "numbers": {"rows": A + 1e-9},
    "key": {"key": 1, "start": fj.Random()},
    "solver": {"solver": dataclasses.replace(SOLVER, rtol=1e-5)},
    "objective": {"objective": fj.SquaredError(l2_codes=0.1, l2_dictionary=0.1)},
    "start": {"start": fj.NNDSVD()},
    "codes": {"codes": False},
}


def test_a_checkpoint_of_another_problem_is_refused_by_what_differs(tmp_path, monkeypatch):
    killed(tmp_path, monkeypatch, after=1)
    for what, changes in OTHERS.items():
        with pytest.raises(fj.CheckpointError, match=f"another problem: its .*{what}"):
            fitted(tmp_path, **changes)


def cut_codes(step):
    file = step / "codes-0"
    file.write_bytes(file.read_bytes()[:-5])


def flipped_codes(step):
    file = step / "codes-1"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def no_state(step):
    shutil.rmtree(step / "state")


def damaged_note(step):
    note = json.loads((step / "note.json").read_text())
    note["note"] = note["note"].replace('"step": 15', '"step": 16')
    (step / "note.json").write_text(json.dumps(note))


@pytest.mark.parametrize("damage", [cut_codes, flipped_codes, no_state, damaged_note])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_there(damage, tmp_path, monkeypatch):
    killed(tmp_path, monkeypatch, after=3)
    last = tmp_path / "step-000000015"
    damage(last)
    with pytest.raises(fj.CheckpointError, match=r"step-000000015', is damaged .*go on from the one before"):
        fitted(tmp_path)
    shutil.rmtree(last)
    assert int(fitted(tmp_path).stats.steps) > 15


def test_what_was_being_written_when_the_run_was_killed_is_left_out(tmp_path, monkeypatch):
    killed(tmp_path, monkeypatch, after=2)
    shutil.copytree(tmp_path / "step-000000010", tmp_path / ".part-15")
    (tmp_path / ".part-15" / "note.json").unlink()
    assert_same_bits(fitted(tmp_path), fitted(tmp_path / "other"))
    assert not list(tmp_path.glob(".part-*"))


SCRIPT = """
import sys, time
import numpy as np
import face_jax as fj
import face_jax.nmf.solvers.streamed_loop as loop
rows, folder, pause = np.load(sys.argv[1]), sys.argv[2], float(sys.argv[3])
step = loop._step
loop._step = lambda *given: (time.sleep(pause), step(*given))[1]
found = fj.factorize(fj.RowBlocks(rows, rows=600), 4, solver=fj.ADMM(rtol=0.0, max_steps=40),
                     checkpoint=fj.Checkpoint(folder, steps=1))
np.save(sys.argv[2] + ".npy", np.asarray(found.dictionary))
"""


def test_a_process_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path):
    np.save(tmp_path / "rows.npy", A.astype(np.float32))

    def run(name, pause):
        given = [sys.executable, "-c", SCRIPT, str(tmp_path / "rows.npy"), str(tmp_path / name), str(pause)]
        # Compiled once, and for the processes to come.
        kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"), "XLA_FLAGS": QUICKLY}
        kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return subprocess.Popen(given, stderr=subprocess.PIPE, env=os.environ | kept)

    with run("killed", 0.2) as process:
        while not list((tmp_path / "killed").glob("step-*")):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed.npy").exists()
    for name in ("killed", "whole"):
        with run(name, 0) as process:
            _, said = process.communicate()
        assert process.returncode == 0, said.decode()
    np.testing.assert_array_equal(np.load(tmp_path / "killed.npy"), np.load(tmp_path / "whole.npy"))


@pytest.mark.parametrize("given", [3, True, "", fj.Checkpoint])
def test_what_is_no_checkpoint_is_refused(given):
    with pytest.raises(ValueError, match="checkpoint="):
        fitted(None, checkpoint=given)


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("minutes", 0.0), ("folder", "")])
def test_settings_of_a_checkpoint_are_checked(name, value):
    given: dict[str, Any] = {"folder": pathlib.Path("run")} | {name: value}
    with pytest.raises(ValueError, match=name):
        fj.Checkpoint(**given)


def test_another_run_in_the_folder_is_refused(tmp_path):
    keeper = keeping.Keeper(fj.Checkpoint(tmp_path))
    try:
        with pytest.raises(fj.FolderInUseError, match="another run is writing"):
            fitted(tmp_path)
    finally:
        keeper.close()


def test_digests_tell_numbers_and_settings_apart():
    one = keeping.digest_of_tree(fj.Given(jnp.ones((2, 1)), jnp.ones((1, 2))))
    assert one == keeping.digest_of_tree(fj.Given(jnp.ones((2, 1)), jnp.ones((1, 2))))
    assert one != keeping.digest_of_tree(fj.Given(jnp.ones((2, 1)), 2 * jnp.ones((1, 2))))
    assert keeping.digest_of_tree(fj.Warmup()) != keeping.digest_of_tree(fj.Warmup(stages=((0.5, 2),)))
