"""Styles that elements have by themselves, as classes: digests in a page's policy can name these, but no attributes."""

from __future__ import annotations

import html
import re

# What stands in elements of a script or a style, and in comments, is nobody's tag. Templates escape what is put into
# them, and write their attributes in double quotes; so does matplotlib.
_PIECE = re.compile(
    r"<(?P<raw>script|style)\b[^>]*>.*?</(?P=raw)>|<!--.*?-->"
    r"|<(?P<name>[a-zA-Z][\w:-]*)(?P<attributes>(?:\s+[\w:-]+(?:=\"[^\"]*\")?)*)(?P<end>\s*/?>)",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"\s+([\w:-]+)(?:=\"([^\"]*)\")?")
_END_OF_HEAD = "</head>"


def in_classes(page: str) -> str:
    """The page with a class in the place of each `style` attribute, and a style element that says what these mean.

    Equal declarations have one class. As the attributes did, they prevail over all other rules of the page, which must
    have none by these elements' ids. Raises `ValueError` for declarations that would end their rule.

    **Arguments:**

    - `page`: HTML, with attributes in double quotes.
    """
    names: dict[str, str] = {}

    def without_style(piece: re.Match[str]) -> str:
        given = piece["attributes"] or ""
        if "style=" not in given:
            return piece[0]
        attributes = dict(_ATTRIBUTE.findall(given))
        if "style" not in attributes:
            return piece[0]
        own = names.setdefault(_checked(html.unescape(attributes.pop("style"))), f"own-{len(names) + 1}")
        attributes["class"] = f"{attributes.get('class', '')} {own}".strip()
        written = "".join(f' {name}="{value}"' for name, value in attributes.items())
        return f"<{piece['name']}{written}{piece['end']}"

    page = _PIECE.sub(without_style, page)
    if not names:
        return page
    # `:not` with an id that nothing has only adds that id's precedence.
    rules = "\n".join(f".{name}:not(#_) {{ {declared} }}" for declared, name in names.items())
    return page.replace(_END_OF_HEAD, f"<style>\n{rules}\n</style>\n{_END_OF_HEAD}", 1)


def _checked(declared: str) -> str:
    if re.search(r"[<>{}@\\]|/\*", declared):
        raise ValueError(f"style={declared!r} isn't declarations alone; leave out braces, brackets, @ and comments")
    return declared
