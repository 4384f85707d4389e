"""What a network's passes free is used again, and given back at the end."""

import os
import platform
import subprocess
import sys
import textwrap

import pytest

from face_jax.support import freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")

# In a process of its own, whose allocator nobody else has told anything.
PREAMBLE = """
import ctypes, pathlib, resource
from face_jax.support.freed_memory import freed_memory_kept, keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
library.memset.argtypes, library.free.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), (ctypes.c_void_p,)
MIB = 2**20

def block(size):
    "How often a page had to be asked for, for a block that is written once and freed."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    address = library.malloc(size)
    library.memset(address, 1, size)
    library.free(address)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
"""


def lines(program, **environment):
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
        env=plain | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def test_blocks_are_used_again_while_it_lasts_and_go_back_afterwards():
    plain, kept, nested, held, after, again = lines("""
        block(64 * MIB)
        print(block(64 * MIB))
        with freed_memory_kept():
            block(64 * MIB)
            print(block(64 * MIB))
            with freed_memory_kept():
                pass
            print(block(64 * MIB))
            before = resident()
        print(before, resident(), block(64 * MIB))
    """)
    # With pages of 2 MiB these are 32 instead of 16,384.
    assert plain >= 32
    assert kept < 8
    assert nested < 8
    assert held - after > 48 * 2**20
    assert again >= 32


def test_a_program_may_keep_it_for_good():
    said, faults, inside = lines("""
        print(int(keep_freed_memory()))
        block(64 * MIB)
        print(block(64 * MIB))
        with freed_memory_kept():
            pass
        print(block(64 * MIB))
    """)
    assert said == 1
    assert max(faults, inside) < 8


def test_an_error_ends_it_too():
    (faults,) = lines("""
        try:
            with freed_memory_kept():
                block(64 * MIB)
                raise KeyError
        except KeyError:
            print(block(64 * MIB))
    """)
    assert faults >= 32


@pytest.mark.parametrize(
    "environment", [{"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}, {"MALLOC_MMAP_THRESHOLD_": "65536"}]
)
def test_what_the_environment_says_stands(environment):
    said, faults = lines(
        """
        print(int(keep_freed_memory()))
        with freed_memory_kept():
            block(64 * MIB)
            print(block(64 * MIB))
        """,
        **environment,
    )
    assert said == 0
    assert faults >= 32


def test_other_allocators_are_left_alone(monkeypatch):
    class Library:
        def __init__(self, name):
            raise OSError

    freed_memory._allocator.cache_clear()
    try:
        monkeypatch.setattr(freed_memory.ctypes, "CDLL", Library)
        with freed_memory.freed_memory_kept():
            assert freed_memory.keep_freed_memory() is False
    finally:
        freed_memory._allocator.cache_clear()
