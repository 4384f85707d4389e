"""Strict mode for every test: float64 on, no silent promotion of ranks or dtypes, compilations cheap and kept."""

import gc
import os
import pathlib
import random
import re
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Torch's idle threads would otherwise spin on the cores that JAX computes on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import jax
import pytest
import reseeding
from compiling import QUICKLY
from heartbeat import Heartbeat

# XLA reads its flags when the first device is asked for; they are put back, so that the command is compiled as for its
# users.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XLA_FLAGS", f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}")
    jax.devices()

# Where a shell has started the run in its background it ignores interrupts, which some tests send themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

# Files that take longest come first: a worker that began one last would end alone.
LONGEST = (
    "test_notebooks.py", "cli/test_app.py", "test_sklearn.py", "nmf/test_beta_divergence.py", "nmf/test_devices.py",
    "bridges/flax_import/test_families.py", "test_sklearn_minibatch.py", "nmf/test_kept_parts.py",
    "nmf/solvers/test_solver_promises.py", "nmf/derivative/test_adjoints.py", "nmf/test_stored_entries.py",
    "nmf/test_out_of_core.py", "test_docs.py", "nmf/test_magnitude.py", "nmf/test_many.py", "pipeline/test_several.py",
)  # fmt: skip

# Imports and traces make objects by the million; JAX listens to each collection besides.
gc.set_threshold(20_000, 20, 20)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

reseeding.by(int(os.environ.get("FACE_JAX_TEST_SEED", "0")))


def pytest_addoption(parser):
    group = parser.getgroup("face_jax")
    group.addoption("--heartbeat", type=float, default=30, metavar="SECONDS", help="how often to say what goes on")
    group.addoption("--shuffle", type=int, metavar="SEED", help="run files and their tests in another order")


def pytest_configure(config):
    # Workers of pytest-xdist tell the process that started them.
    if not hasattr(config, "workerinput") and config.option.heartbeat > 0:
        config.pluginmanager.register(Heartbeat(config.option.heartbeat), "heartbeat")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One worker for each core that may be used, if its compiled programs have room: up to 4 GiB each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for file, unit in (("/proc/meminfo", 2**10), ("/sys/fs/cgroup/memory.max", 1), ("/sys/fs/cgroup/cpu.max", None)):
        try:
            text = pathlib.Path(file).read_text()
        except OSError:
            continue
        if unit is None:
            quota, period = text.split()
            limit = cores if quota == "max" else int(quota) / int(period)
        elif text.strip() == "max":
            continue
        else:
            number = re.search(r"(?:MemAvailable:\s*)?(\d+)", text[max(text.find("MemAvailable"), 0) :])[1]
            limit = int(number) * unit / 2**32
        cores = min(cores, int(limit))
    return max(cores, 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """What imports have made stays for good: the collector needn't look through these millions again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.relative_to(ROOT / "tests").as_posix(), len(order)))
    if config.option.shuffle is not None:
        chance = random.Random(config.option.shuffle)
        items.sort(key=lambda item: (chance.random(), item.nodeid))
        places = {path: chance.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: places[item.path])


def _room_is_short():
    """Whether this process's compiled programs fill much of its 65,530 maps of memory, or of a worker's 4 GiB."""
    own = pathlib.Path("/proc/self")
    try:
        maps = own.joinpath("maps").read_bytes().count(b"\n")
        resident = int(own.joinpath("statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return True
    return maps > 20_000 or resident > 2 * 2**30


@pytest.fixture(autouse=True, scope="module")
def _forget_compilations():
    """Compiled code is kept for the next file, and let go when room is short: each piece is mapped into memory."""
    yield
    if _room_is_short():
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of real weights and photographs that is kept beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs real weights and photographs, which are kept beside the checkout and are not here")
    return SHARED
