"""The page as a file, and as participants use it in a browser."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.study import BeforeAndAfter, Lesson, Trial, score, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")


@pytest.fixture(scope="module")
def entries():
    explanation = fj.explain(colour_model(), pictures(14, 0), "reddish", rank=4, batch=8, key=jax.random.key(0))
    new = np.concatenate([pictures(10, 0, seed=1), pictures(10, 1, seed=1)])
    return [
        *fj.study.intruder_trials(explanation, trials=3, key=jax.random.key(1)),
        *fj.study.binary_trials(explanation, trials=2, crops=3, key=jax.random.key(2)),
        *fj.study.utility_trials(
            explanation, new, design=BeforeAndAfter(), sessions=1, training=3, tests=2, batch=8, key=jax.random.key(3)
        ),
    ]


@pytest.fixture(scope="module")
def files(entries, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return write_page(folder / "study.html", entries, title="What <b>is</b> it?", welcome="Thank you & welcome.")


def test_the_page_holds_no_answers(files, entries):
    text = files.page.read_text()
    content = json.loads(re.search(r'id="content">(.*?)</script>', text, re.DOTALL)[1])
    said = set()

    def walk(value):
        if isinstance(value, dict):
            said.update(value)
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(content)
    assert not said & {"correct", "condition", "about", "catch", "kind"}
    # Pictures that appear in one trial aren't neighbours in the list as they'd be if they were numbered as they come.
    trials = [screen for screen in content["screens"] if "trial" in screen]
    order = [option["pictures"][0]["picture"] for trial in trials[:3] for option in trial["options"]]
    assert order != sorted(order)
    key = json.loads(files.key.read_text())
    assert set(key["trials"]) == {trial["trial"] for trial in trials}
    assert [key["trials"][trial.name]["correct"] for trial in entries if isinstance(trial, Trial)] == [
        trial.correct for trial in entries if isinstance(trial, Trial)
    ]


def test_the_page_needs_no_other_file_and_escapes_what_users_say(files):
    text = files.page.read_text()
    assert "What &lt;b&gt;is&lt;/b&gt; it?" in text
    assert "Thank you &amp; welcome." in text
    assert "default-src 'none'" in text
    assert "unsafe" not in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "http" not in text.replace('http-equiv="', "")


def test_written_again_it_is_the_same(files, entries, tmp_path):
    again = write_page(tmp_path / "study.html", entries, title="What <b>is</b> it?", welcome="Thank you & welcome.")
    assert again.page.read_bytes() == files.page.read_bytes()
    assert again.key.read_bytes() == files.key.read_bytes()


def test_what_is_no_study_is_refused(entries, tmp_path):
    with pytest.raises(ValueError, match="no trial in it"):
        write_page(tmp_path / "x.html", [entry for entry in entries if isinstance(entry, Lesson)])
    with pytest.raises(ValueError, match="twice"):
        write_page(tmp_path / "x.html", [*entries, entries[0]])


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


def opened(browser, page: pathlib.Path, **options):
    context = browser.new_context(accept_downloads=True, **options)
    view = context.new_page()
    view.complaints = []
    view.on("console", lambda message: view.complaints.append(message.text))
    view.on("pageerror", lambda error: view.complaints.append(str(error)))
    view.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:", "blob:")) or view.complaints.append(request.url),
    )
    view.goto(page.as_uri())
    return view


def begin(view, name: str) -> None:
    view.get_by_label("Your name or number").fill(name)
    view.keyboard.press("Enter")


def overflow(view) -> int:
    return view.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def answer_all(view, key: dict, answers: dict[str, int] | None = None, check=None) -> list[str]:
    """Goes through the page by keyboard alone; right answers are looked up in the page's own content."""
    asked = []
    while not view.locator("#end").is_visible():
        if check:
            check(view)
        if view.locator("#lesson").is_visible():
            view.locator("#learned button").focus()
            view.keyboard.press("Enter")
            continue
        view.wait_for_function("[...document.querySelectorAll('#answer img')].every(image => image.complete)")
        values = view.locator("#options input").evaluate_all("inputs => inputs.map(input => Number(input.value))")
        asked.append(view.locator("#question").inner_text())
        wanted = values[0] if answers is None else None
        if wanted is None:
            shown = view.locator("#answer img").evaluate_all("images => images.map(image => image.src)")
            wanted = answers[frozenset(shown)]
        view.keyboard.press(str(values.index(wanted) + 1))
        view.wait_for_function("!document.getElementById('next').disabled")
        view.keyboard.press("Enter")
    return asked


def right_answers(files, key: dict) -> dict[frozenset, int]:
    content = json.loads(re.search(r'id="content">(.*?)</script>', files.page.read_text(), re.DOTALL)[1])
    found = {}
    for screen in content["screens"]:
        if "trial" in screen:
            every = [*screen["shown"], *(one for option in screen["options"] for one in option["pictures"])]
            pictured = frozenset(content["pictures"][one["picture"]] for one in every)
            found[pictured] = key["trials"][screen["trial"]]["correct"]
    return found


@browser_only
def test_somebody_who_is_always_right_scores_so(files, chromium, tmp_path):
    key = json.loads(files.key.read_text())
    for name in ("ada", "bob, the 2nd"):
        view = opened(chromium, files.page, viewport={"width": 1400, "height": 900})
        begin(view, name)
        questions = answer_all(view, key, right_answers(files, key))
        assert len(questions) == len(key["trials"])
        for kind in ("json", "csv"):
            with view.expect_download() as download:
                view.get_by_role("button", name=kind.upper()).click()
            folder = tmp_path / kind
            folder.mkdir(exist_ok=True)
            download.value.save_as(folder / download.value.suggested_filename)
        assert view.complaints == []
        view.context.close()
    results = [score(tmp_path / kind, files.key) for kind in ("json", "csv")]
    assert results[0] == results[1]
    assert results[0].participants == ("ada", "bob, the 2nd")
    assert {(one.kind, one.accuracy, one.total) for one in results[0].accuracies} == {
        ("intruder", 1.0, 6),
        ("binary", 1.0, 4),
    }
    assert results[0].utility.score == 1.0
    saved = [json.loads(file.read_text()) for file in sorted((tmp_path / "json").iterdir())]
    assert all(0 < row["seconds_to_choice"] <= row["seconds"] < 60 for file in saved for row in file["answers"])
    # Everybody's order is their own, within what belongs together.
    first, second = ([row["trial"] for row in file["answers"]] for file in saved)
    assert sorted(first[:3]) == sorted(second[:3])
    assert [row["place"] for row in saved[0]["answers"]] != [row["place"] for row in saved[1]["answers"]]


@browser_only
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark"), (400, "light"), (1400, "dark")])
def test_every_screen_fits_and_shows_its_pictures(files, chromium, width, scheme):
    key = json.loads(files.key.read_text())
    view = opened(chromium, files.page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    seen = []

    def check(view):
        visible = [name for name in ("lesson", "trial") if view.locator(f"#{name}").is_visible()]
        seen.extend(visible)
        assert overflow(view) <= 0
        broken = view.evaluate(
            "async () => { const all = [...document.querySelectorAll('section:not([hidden]) img')];"
            "await Promise.all(all.map(i => i.decode())); return all.filter(i => !i.naturalWidth || !i.alt).length; }"
        )
        assert broken == 0
        # What has just appeared is read out: the focus is on its heading.
        assert view.evaluate("document.activeElement.tagName") == "H1"

    begin(view, "ada")
    answer_all(view, key, check=check)
    assert {"lesson", "trial"} == set(seen)
    assert overflow(view) <= 0
    style = "getComputedStyle(document.body)"
    paper, ink = view.evaluate(f"[{style}.backgroundColor, {style}.color]")
    brightness = [sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in (paper, ink)]
    assert (brightness[0] < brightness[1]) == (scheme == "dark")
    assert view.complaints == []
    view.context.close()


@browser_only
def test_a_closed_page_goes_on_where_it_stopped(files, chromium):
    view = opened(chromium, files.page, viewport={"width": 1000, "height": 800})
    begin(view, "ada")
    for _ in range(2):
        view.wait_for_function("[...document.querySelectorAll('#answer img')].every(image => image.complete)")
        view.locator("#options label").first.click()
        view.locator("#next:not([disabled])").click()
    before = view.locator("#question").inner_text(), view.locator("#progress").inner_text()
    view.reload()
    view.get_by_role("button", name="Go on as ada").click()
    assert (view.locator("#question").inner_text(), view.locator("#progress").inner_text()) == before
    assert "Question 3 of" in before[1]
    view.context.close()
