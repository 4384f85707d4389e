"""A browser to look at pages with, which is given the time that it takes.

Wait for what a page shows with `expect`, never with `wait_for_function`: a page whose policy forbids code from strings
lets it look once, and refuses it the second time.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")

# Milliseconds, as much as a test waits for what never comes.
PATIENCE = 300_000
# FACE_JAX_TEST_BROWSER_SLOWDOWN=20 makes the browser's processor twenty times as slow.
SLOWDOWN = float(os.environ.get("FACE_JAX_TEST_BROWSER_SLOWDOWN", "1"))


@contextlib.contextmanager
def chromium() -> Iterator:
    """A browser without a window."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    # Containers often have little shared memory, and then pages die.
    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=options, timeout=PATIENCE)
        yield browser
        browser.close()


@contextlib.contextmanager
def screen(browser, **options) -> Iterator:
    """An empty page of its own, which keeps what is complained of in it (`complaints`) and asked for (`requests`)."""
    context = browser.new_context(accept_downloads=True, **options)
    context.set_default_timeout(PATIENCE)
    view = context.new_page()
    view.complaints, view.requests = [], []
    view.on("console", lambda message: view.complaints.append(message.text))
    view.on("pageerror", lambda error: view.complaints.append(str(error)))
    view.on("request", lambda request: view.requests.append(request.url))
    context.new_cdp_session(view).send("Emulation.setCPUThrottlingRate", {"rate": SLOWDOWN})
    yield view
    context.close()


def overflow(view, element: str = "html") -> int:
    """By how many pixels something is wider than its place."""
    return view.locator(element).evaluate("element => element.scrollWidth - element.clientWidth")


def undecoded(view, pictures: str) -> int:
    """How many of the pictures named by a selector can't be shown, or have no words for those who don't see them."""
    return view.locator(pictures).evaluate_all("""async pictures => {
        for (const picture of pictures) { picture.loading = "eager"; await picture.decode().catch(() => {}); }
        return pictures.filter(picture => !picture.naturalWidth || !picture.alt).length;
    }""")


def dark(view) -> bool:
    """Whether the page has light letters on dark paper."""
    colours = view.locator("body").evaluate(
        "body => { const style = getComputedStyle(body); return [style.backgroundColor, style.color]; }"
    )
    paper, ink = (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in colours)
    return paper < ink


@contextlib.contextmanager
def shown(browser, page, theme: str, width: int) -> Iterator:
    """A page that is as it should be: nothing is complained of, every picture is there, nothing is too wide."""
    with screen(browser, color_scheme=theme, viewport={"width": width, "height": 900}) as view:
        view.goto(page.as_uri())
        assert view.complaints == []
        assert undecoded(view, "img") == 0
        assert overflow(view) == 0
        assert dark(view) == (theme == "dark")
        yield view
