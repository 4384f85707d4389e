"""A process's own peak of memory, from where one starts to count. Linux only.

What `getrusage` tells is no use for a process started by a large one: it counts the parent's peak, too.
"""

import pathlib


def forget_peak() -> None:
    """The peak is counted from here."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory that was resident since, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
