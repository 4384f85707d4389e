"""Takes the gallery's pictures: reports of the photographs that come with packages, as a browser shows them.

    python docs/pictures.py [--only chelsea,coffee] [--reports FOLDER]

It needs Chromium and playwright. Reports are written to `--reports` and kept there; pictures to docs/gallery/.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent / "gallery"
PHOTOGRAPHS = ("chelsea", "coffee", "motorcycle", "china", "flower")
# Of each picture: the report's photograph, what it shows, pixels wide, at most so many high, and whether it's dark.
PICTURES = (
    *((name, "#concepts", 1400, 900, False) for name in PHOTOGRAPHS),
    ("chelsea", "#where", 1400, 900, True),
    ("chelsea", "#trust", 1400, 900, False),
    ("chelsea", "body", 400, 860, False),
)
_QUALITY = 82


def report(name: str, reports: pathlib.Path) -> pathlib.Path:
    """The report of an embedded photograph, written unless it's there."""
    page = reports / name / "report.html"
    if not page.is_file():
        command = [sys.executable, "-m", "face_jax", "demo", "--photos", name, "--out", str(page.parent)]
        subprocess.run(command, check=True)
    return page


def picture(browser: Any, page: pathlib.Path, shows: str, width: int, most: int, dark: bool) -> bytes:
    """The upper part of one section of a page, as JPEG."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", device_scale_factor=1
    )
    try:
        view = context.new_page()
        view.goto(page.as_uri())
        # Pictures further down are decoded when they come into view, which they never do here.
        view.locator("img:visible").evaluate_all(
            "images => Promise.all(images.map(one => { one.loading = 'eager'; return one.decode().catch(() => 0); }))"
        )
        box = view.locator(shows).first.bounding_box()
        clip = {"x": 0, "y": box["y"], "width": width, "height": min(box["height"], most)}
        return view.screenshot(full_page=True, clip=clip, type="jpeg", quality=_QUALITY)
    finally:
        context.close()


def main() -> None:
    """Reports, then their pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PHOTOGRAPHS))
    parser.add_argument(
        "--reports", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "face-jax-gallery"
    )
    options = parser.parse_args()
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("there is no Chromium to open the reports in; install it, for instance: apt install chromium")
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    pages = {name: report(name, options.reports) for name in options.only.split(",")}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        for name, shows, width, most, dark in PICTURES:
            if name in pages:
                kind = f"{shows.strip('#')}{'-dark' if dark else ''}{'' if width > 1000 else '-narrow'}"
                file = FOLDER / f"{name}-{kind}.jpg"
                file.write_bytes(picture(browser, pages[name], shows, width, most, dark))
                print(f"{file.name}: {file.stat().st_size // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main()
