"""The page as a file, and as participants use it in a browser."""

import contextlib
import json
import pathlib
import re

import jax
import numpy as np
import pytest
from browser import browser_only, chromium, dark, overflow, screen, undecoded
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.study import BeforeAndAfter, Lesson, Trial, score, write_page


@pytest.fixture(scope="module")
def entries():
    explanation = fj.explain(
        colour_model(), pictures(14, 0), "reddish", rank=4, batch=8, faithfulness=None, key=jax.random.key(0)
    )
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
    content = content_of(files)
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
def browser():
    with chromium() as found:
        yield found


@contextlib.contextmanager
def opened(browser, page: pathlib.Path, **options):
    """The page, by a clock that stands until it is told to run."""
    with screen(browser, **options) as view:
        view.clock.install(time=0)
        view.clock.pause_at(1000)
        view.goto(page.as_uri())
        yield view
        assert view.complaints == []
        assert all(address.startswith(("file:", "data:", "blob:")) for address in view.requests)


def begin(view, name: str) -> None:
    view.get_by_label("Your name or number").fill(name)
    view.keyboard.press("Enter")


def content_of(files) -> dict:
    return json.loads(re.search(r'id="content">(.*?)</script>', files.page.read_text(), re.DOTALL)[1])


def answer_all(view, files, answers: dict[frozenset, int] | None = None, check=None) -> list[str]:
    """Goes through the page by keyboard alone; without answers, the first is taken. Gives the questions.

    Somebody thinks for a second before the first choice, changes it a second and a half later, and goes on after
    half a second more.
    """
    from playwright.sync_api import expect

    asked, screens = [], content_of(files)["screens"]
    total = sum("trial" in one for one in screens)
    for _ in screens:
        shown = view.locator("main > section:visible").get_attribute("id")
        if check:
            check(view, shown)
        if shown == "lesson":
            view.locator("#learned button").press("Enter")
            continue
        assert shown == "trial"
        expect(view.locator("#progress")).to_have_text(f"Question {len(asked) + 1} of {total}")
        asked.append(view.locator("#question").inner_text())
        values = [int(each.get_attribute("value")) for each in view.locator("#options input").all()]
        wanted = values[0]
        if answers:
            pictures = view.locator("#answer img").all()
            wanted = answers[frozenset(picture.get_attribute("src") for picture in pictures)]
        place = values.index(wanted)
        view.keyboard.press(str((place + 1) % len(values) + 1))
        # Until the pictures can be seen there's no going on, and no time that counts.
        expect(view.locator("#next")).to_be_enabled()
        view.clock.run_for(1500)
        view.keyboard.press(str(place + 1))
        view.clock.run_for(500)
        view.keyboard.press("Enter")
    expect(view.locator("#end")).to_be_visible()
    return asked


def right_answers(files, key: dict) -> dict[frozenset, int]:
    content = content_of(files)
    found = {}
    for one in content["screens"]:
        if "trial" in one:
            every = [*one["shown"], *(each for option in one["options"] for each in option["pictures"])]
            pictured = frozenset(content["pictures"][each["picture"]] for each in every)
            found[pictured] = key["trials"][one["trial"]]["correct"]
    return found


@browser_only
def test_somebody_who_is_always_right_scores_so(files, browser, tmp_path):
    key = json.loads(files.key.read_text())
    for name in ("ada", "bob, the 2nd"):
        with opened(browser, files.page, viewport={"width": 1400, "height": 900}) as view:
            begin(view, name)
            questions = answer_all(view, files, right_answers(files, key))
            assert len(questions) == len(key["trials"])
            for kind in ("json", "csv"):
                with view.expect_download() as download:
                    view.get_by_role("button", name=kind.upper()).click()
                folder = tmp_path / kind
                folder.mkdir(exist_ok=True)
                download.value.save_as(folder / download.value.suggested_filename)
    results = [score(tmp_path / kind, files.key) for kind in ("json", "csv")]
    assert results[0] == results[1]
    assert results[0].participants == ("ada", "bob, the 2nd")
    assert {(one.kind, one.accuracy, one.total) for one in results[0].accuracies} == {
        ("intruder", 1.0, 6),
        ("binary", 1.0, 4),
    }
    assert results[0].utility.score == 1.0
    saved = [json.loads(file.read_text()) for file in sorted((tmp_path / "json").iterdir())]
    for row in (row for file in saved for row in file["answers"]):
        assert (row["seconds_to_choice"], row["seconds"], row["changes"]) == (1.5, 2.0, 1)
    # Everybody's order is their own, within what belongs together.
    first, second = ([row["trial"] for row in file["answers"]] for file in saved)
    assert sorted(first[:3]) == sorted(second[:3])
    assert [row["place"] for row in saved[0]["answers"]] != [row["place"] for row in saved[1]["answers"]]


@browser_only
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark"), (400, "light"), (1400, "dark")])
def test_every_screen_fits_and_shows_its_pictures(files, browser, width, scheme):
    seen = set()

    def check(view, shown):
        seen.add(shown)
        assert overflow(view) <= 0
        assert undecoded(view, "section:not([hidden]) img") == 0
        # What has just appeared is read out: the focus is on its heading.
        assert view.locator("h1:focus").count() == 1

    with opened(browser, files.page, viewport={"width": width, "height": 800}, color_scheme=scheme) as view:
        begin(view, "ada")
        answer_all(view, files, check=check)
        assert {"lesson", "trial"} == seen
        assert overflow(view) <= 0
        assert dark(view) == (scheme == "dark")


@browser_only
def test_a_closed_page_goes_on_where_it_stopped(files, browser):
    from playwright.sync_api import expect

    with opened(browser, files.page, viewport={"width": 1000, "height": 800}) as view:
        begin(view, "ada")
        for number in range(2):
            expect(view.locator("#progress")).to_contain_text(f"Question {number + 1} of")
            view.locator("#options label").first.click()
            view.locator("#next").click()
        before = view.locator("#question").inner_text(), view.locator("#progress").inner_text()
        view.reload()
        view.get_by_role("button", name="Go on as ada").click()
        expect(view.locator("#progress")).to_have_text(before[1])
        assert view.locator("#question").inner_text() == before[0]
        assert "Question 3 of" in before[1]
