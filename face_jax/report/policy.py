"""The content-security policy of a page."""

from __future__ import annotations

import base64
import hashlib
import re

from .own_styles import in_classes

_CHARSET = '<meta charset="utf-8">\n'


def with_policy(page: str, *, script: str | None = None) -> str:
    """A page that runs and shows what is written in it, and nothing else.

    No script but the one given and no style but its own, named by their digests; pictures out of the page only; no
    frames, no requests, no forms that are sent. Whatever came into the page from names of files, classes or models
    can't change that.

    **Arguments:**

    - `page`: the HTML; the policy goes to its beginning. Styles in attributes become classes, which digests can name.
    - `script`: what stands in its one script element, if it has one.
    """
    page = in_classes(page)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", page, re.DOTALL)
    rules = [
        "default-src 'none'",
        "img-src data:",
        f"style-src {_digests(styles)}",
        f"script-src {_digests([] if script is None else [script])}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    policy = f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(rules)}">\n'
    return page.replace(_CHARSET, _CHARSET + policy, 1)


def _digests(contents: list[str]) -> str:
    digests = [hashlib.sha256(content.encode("utf-8", "backslashreplace")).digest() for content in contents]
    named = dict.fromkeys(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return " ".join(named) or "'none'"
