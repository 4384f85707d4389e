"""Output of the command on a terminal: progress bars, times, errors in one line, interrupts."""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import time
import traceback
from collections.abc import Iterable, Iterator

import rich.console
import rich.markup
import rich.progress
import typer

from ..support.interrupts import go_on
from ..support.progress import Advance, nobody

# Steps of a stage that may take minutes.
_MINUTES = 5_000
# The report's address alone goes to standard output.
SAY = rich.console.Console(stderr=True, soft_wrap=True)


@contextlib.contextmanager
def timed(seconds: dict[str, float], work: str) -> Iterator[None]:
    """Note the seconds that some work took under its name."""
    begun = time.perf_counter()
    yield
    seconds[work] = time.perf_counter() - begun


@contextlib.contextmanager
def bars(stage: str, total: int) -> Iterator[Advance]:
    """A progress bar on a terminal; in a pipe a line for each tenth of what takes minutes, else nothing."""
    with _told(stage, total) as tell:

        def advance(steps: int) -> None:
            go_on()
            tell(steps)

        go_on()
        yield advance


@contextlib.contextmanager
def _told(stage: str, total: int) -> Iterator[Advance]:
    if not SAY.is_terminal:
        yield _lines(stage, total) if total >= _MINUTES else nobody
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    with rich.progress.Progress(*columns, console=SAY) as progress:
        task = progress.add_task(stage, total=total)
        yield lambda steps: progress.advance(task, steps)


def _lines(stage: str, total: int) -> Advance:
    SAY.print(f"[dim]{stage}: {total:,}[/dim]")
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        before, done = done, done + steps
        if 10 * done // total > 10 * before // total:
            SAY.print(f"[dim]{stage}: {done:,} of {total:,}[/dim]")

    return advance


@contextlib.contextmanager
def errors_in_words() -> Iterator[None]:
    """What the user can mend is said in a line; anything else is a bug and keeps its traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        if not _ours(error):
            raise
        SAY.print(f"[bold red]error:[/bold red] {rich.markup.escape(str(error))}")
        raise typer.Exit(2) from error


def writable(out: pathlib.Path) -> None:
    """Tries whether files can be written there, and leaves nothing: the run may yet be refused."""
    probe = out / ".writable"
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        for folder in missing:
            folder.rmdir()
    except OSError as error:
        raise OSError(f"--out {str(out)!r} can't be written to ({error.strerror}); name another folder") from error


def _ours(error: BaseException) -> bool:
    """Whether the error was raised by this package's own code, whose errors say what to do."""
    # In a checkout the bridges lie elsewhere than the rest.
    homes = [pathlib.Path(path).resolve() for name in ("face_jax", "face_jax.bridges") for path in _paths(name)]
    raised_in = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    return any(home in raised_in.parents for home in homes)


def _paths(package: str) -> Iterable[str]:
    return importlib.import_module(package).__path__
