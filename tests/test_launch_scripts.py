"""The scripts that start the example on many hosts, with stand-ins for the commands of Slurm and of the cloud."""

import pathlib
import runpy
import subprocess

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


def command(folder, name, text):
    """A program of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def run(script, *given, folder, **environment):
    """What a script says, the folder's programs being there and little else."""
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)} | environment
    return subprocess.run(
        ["bash", str(EXAMPLES / script), *given], capture_output=True, text=True, env=environment, cwd=folder
    )


def test_slurm_starts_a_process_for_each_task_with_its_processors(tmp_path):
    command(tmp_path / "bin", "srun", "printf '%s\\n' \"$@\"")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("")
    given = ["a 1.npy", "--rank", "3", "--out", "concepts"]
    for cpus, wanted in (({"SLURM_CPUS_PER_TASK": "5"}, "5"), ({}, "8")):
        done = run("slurm.sh", *given, folder=tmp_path, VENV=str(tmp_path / "venv"), **cpus)
        assert done.returncode == 0, done.stderr
        wanted = ["--kill-on-bad-exit=1", f"--cpus-per-task={wanted}", "python", "examples/many_hosts.py", *given]
        assert done.stdout.splitlines() == wanted
    # What a task fails with the job fails with.
    command(tmp_path / "bin", "srun", "exit 3")
    assert run("slurm.sh", *given, folder=tmp_path, VENV=str(tmp_path / "venv")).returncode == 3


def test_a_slice_gets_names_as_they_are_and_patterns_to_fill_in(tmp_path):
    # Each host does what it is told, by programs that say how they were called.
    command(tmp_path / "bin", "gcloud", 'echo "${@:1:7}" >> calls; cd host; bash -c "${8#--command=}"')
    command(tmp_path / "bin", "python3", "exit 0")
    host = tmp_path / "host" / "face_jax"
    command(host / ".venv" / "bin", "pip", "exit 0")
    command(host / ".venv" / "bin", "python", "printf '%s\\n' \"$@\"")
    given = ["/nowhere/*.npy", "it's $HOME.npy", "--rank", "3"]
    done = run("tpu_slice.sh", *given, folder=tmp_path, TPU="slice", ZONE="zone")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["examples/many_hosts.py", *given]
    assert set((tmp_path / "calls").read_text().splitlines()) == {
        "compute tpus tpu-vm ssh slice --zone=zone --worker=all"
    }
    for missing in ({"TPU": "slice"}, {"ZONE": "zone"}):
        assert run("tpu_slice.sh", *given, folder=tmp_path, **missing).returncode != 0


def test_patterns_that_no_shell_has_filled_in_are_filled_in_by_the_program(tmp_path):
    matching = runpy.run_path(str(EXAMPLES / "many_hosts.py"))["matching"]
    for name in ("b.npy", "a.npy", "[c].npy", "d.txt"):
        (tmp_path / name).touch()
    found = matching([str(tmp_path / "*.npy")])
    assert [each.name for each in found] == ["[c].npy", "a.npy", "b.npy"]
    assert matching([str(tmp_path / "[c].npy"), str(tmp_path / "a.npy")]) == found[:2]
    with pytest.raises(SystemExit, match=r"no file is called .*none"):
        matching([str(tmp_path / "none-*.npy")])
