"""How torch and JAX share a machine."""

import os
import subprocess
import sys

import pytest
import torch
from face_jax.bridges import machine

from face_jax import bridges


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_torch_gets_as_many_threads_as_there_are_cores(threads):
    torch.set_num_threads(7)
    share = bridges.share_processor()
    assert share.cores == machine.available_cores() == torch.get_num_threads() == share.torch_threads


def test_threads_asked_for(threads):
    assert bridges.share_processor(threads=1).torch_threads == 1
    with pytest.raises(ValueError, match="threads=0 isn't a number of threads; give 1 to 4096"):
        bridges.share_processor(threads=0)


@pytest.mark.parametrize(
    ("content", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64), ("", 64)]
)
def test_containers_quota_counts(monkeypatch, content, cores):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(machine.pathlib.Path, "read_text", lambda self: content)
    assert machine.available_cores() == cores


def test_spinning_threads_are_pointed_out(monkeypatch, threads):
    for value in ("ACTIVE", ""):
        monkeypatch.setenv("OMP_WAIT_POLICY", value)
        assert "OMP_WAIT_POLICY=passive" in bridges.share_processor().advice
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert bridges.share_processor().advice == ""


@pytest.mark.parametrize(
    ("first", "given", "expected"),
    [("", None, "passive"), ("", "active", "active"), ("import torch", None, "None")],
)
def test_threads_wait_quietly_if_torch_is_not_there_yet(first, given, expected, tmp_path):
    program = f"{first}\nfrom face_jax import bridges\nimport os\nbridges.share_processor()\n"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", program + "print(os.environ.get('OMP_WAIT_POLICY'))"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == expected


ON_ONE_CORE = """
import faulthandler, os
faulthandler.dump_traceback_later(900, exit=True)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, torch
from torch import nn
from face_jax import bridges
from face_jax.model import Preprocess

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    nn.Softplus(), nn.Linear(3, 3),
).eval()
split = bridges.split(network, "1", preprocess=Preprocess(size=16, resize=16), classes=("a", "b", "c"))
maps, twice = jnp.ones((100, 16, 16, 64)), jax.jit(lambda maps: 2 * maps)
# Programs that aren't over in an instant are run by a thread of JAX's own, of which there is one then.
logits = jax.jit(lambda maps: split.head(jax.lax.fori_loop(0, 3, lambda _, x: 1.001 * x, maps)))
slopes = jax.jit(jax.grad(lambda maps: jnp.sum(split.head(maps * 2))))
for _ in range(4):
    found = [function(twice(maps)) for function in (logits, split.head, slopes)]
print(type(split.head).__name__, jax.block_until_ready(found)[0].shape)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be chosen on this system")
def test_a_torch_head_in_jax_ends_on_a_single_core(tmp_path):
    done = subprocess.run([sys.executable, "-c", ON_ONE_CORE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[0] == "TorchHead"


def test_accelerators_memory(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    bridges.share_accelerator(jax_fraction=0.4)
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.400"
    with pytest.raises(ValueError, match=r"jax_fraction=1\.0 isn't a share; give a number between 0 and 1"):
        bridges.share_accelerator(jax_fraction=1.0)


def test_memory_that_jax_took_before_is_an_error(monkeypatch):
    class Device:
        local_hardware_id = 0

        def memory_stats(self):
            return {"bytes_limit": 75}

    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    monkeypatch.setattr(machine.jax, "local_devices", lambda backend: [Device()])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 100))
    with pytest.raises(RuntimeError, match="JAX had already taken 75%"):
        bridges.share_accelerator(jax_fraction=0.5)
    bridges.share_accelerator(jax_fraction=0.75)


@pytest.mark.parametrize("value", [True, 1.0, "2", [1], float("nan"), 10**30, -1])
def test_what_is_no_number_of_threads_is_refused(threads, value):
    before = torch.get_num_threads()
    with pytest.raises((ValueError, TypeError), match="threads"):
        bridges.share_processor(threads=value)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("value", [True, None, "0.5", [0.5], float("nan"), 0, 1, 0.5j])
def test_what_is_no_share_of_the_memory_is_refused(monkeypatch, value):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.3")
    with pytest.raises((ValueError, TypeError), match="jax_fraction"):
        bridges.share_accelerator(jax_fraction=value)
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.3"
