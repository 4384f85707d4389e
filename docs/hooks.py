"""What the documentation's pages need besides Markdown; MkDocs calls it, by `hooks` in mkdocs.yml.

Pages that are a file of the repository (`--8<-- "benchmarks/papers.md"`) take it in with its links: to other such files
they lead to their pages, to pictures to copies of these, and to what has no page nowhere. Examples in docstrings, which
begin with `>>>`, are shown as code.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent
_INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^][]+)\]\((?![a-z]+:|#)([^()#\s]+)(#[^()\s]*)?\)")
_FENCE = re.compile(r"\s*(```|~~~)")
_PICTURES = "pictures"


class Doctests(Preprocessor):
    """Puts what begins with `>>>`, up to the next empty line, into a block of code."""

    def run(self, lines: list[str]) -> list[str]:
        """The lines with fences."""
        found: list[str] = []
        fenced = within = False
        for line in [*lines, ""]:
            if _FENCE.match(line):
                fenced = not fenced
            if within and not line.strip():
                found.append("```")
                within = False
            elif not within and not fenced and line.startswith(">>> "):
                found.append("```pycon")
                within = True
            found.append(line)
        return found[:-1]


class _Doctests(Extension):
    def extendMarkdown(self, md: Any) -> None:  # noqa: N802 (Markdown's name)
        # Before fences are looked for.
        md.preprocessors.register(Doctests(md), "doctests", 100)


def on_config(config: Any) -> Any:
    """Has examples shown as code, also those of docstrings."""
    config["markdown_extensions"].append(_Doctests())
    return config


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the pictures of files that are pages."""
    for source in _pages():
        for picture in sorted((ROOT / source).parent.glob("*.png")):
            name = f"{_PICTURES}/{picture.name}"
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A page with the files that it is, and their links led to where these are here."""
    del page, config
    pages = _pages()

    def included(found: re.Match[str]) -> str:
        source = pathlib.PurePosixPath(found[1])

        def led(link: re.Match[str]) -> str:
            shown, text, target, part = link[1], link[2], link[3], link[4] or ""
            path = (ROOT / source.parent / target).resolve()
            if not path.exists():
                return link[0]  # MkDocs says so
            known = path.relative_to(ROOT).as_posix()
            if known in pages:
                return f"{shown}[{text}]({pages[known]}{part})"
            copied = f"{_PICTURES}/{path.name}"
            return text if files.get_file_from_path(copied) is None else f"{shown}[{text}]({copied})"

        return _LINK.sub(led, (ROOT / source).read_text(encoding="utf-8"))

    return _INCLUDED.sub(included, markdown)


def _pages() -> dict[str, str]:
    """The page of each file of the repository that is one."""
    return {
        source: page.name
        for page in sorted((ROOT / "docs").glob("*.md"))
        for source in _INCLUDED.findall(page.read_text(encoding="utf-8"))
    }
