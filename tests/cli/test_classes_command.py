"""The command explain-classes and its pages, on a small model."""

import json
import pathlib
import re
from unittest.mock import create_autospec

import numpy as np
import PIL.Image
import pytest
from browser import browser_only, chromium, overflow, shown
from toy_model import colour_model, pictures
from typer.testing import CliRunner

import face_jax as fj
from face_jax.cli import classes
from face_jax.cli.app import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("classes")
    for name, colour, count in (("reddish", 0, 12), ("greenish", 1, 9), ("bluish", 2, 15), ("<b>purple", 2, 2)):
        (found / "photos" / name).mkdir(parents=True)
        for number, pixels in enumerate(pictures(count, colour)):
            PIL.Image.fromarray(pixels).save(found / "photos" / name / f"{number}.png")
    return found


@pytest.fixture(scope="module")
def command(folder):
    with pytest.MonkeyPatch.context() as patch:
        model = create_autospec(classes.split_of, side_effect=lambda *_, **__: (None, colour_model(), []))
        patch.setattr(classes, "split_of", model)
        patch.setenv("FACE_JAX_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield lambda *words: CliRunner().invoke(app, ["explain-classes", *words])


@pytest.fixture(scope="module")
def pages(command, folder):
    """The index of both kinds."""
    found = {}
    for kind in ("each", "shared"):
        words = ["photos", f"--{kind}", "--rank", "3", "--batch", "8", "--faithfulness", "none", "--out", kind]
        done = command(*words)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip().endswith(f"{kind}/index.html")
        assert "purple isn't explained" in done.output.replace("\n", " ")
        found[kind] = folder / kind / "index.html"
    return found


def test_the_index_leads_to_every_report_and_its_concepts(pages):
    for page in pages.values():
        text = page.read_text()
        addresses = set(re.findall(r'href="([^"#][^"]*)"', text))
        assert {address.partition("#")[0] for address in addresses} == {
            f"{name}/report.html" for name in ("reddish", "greenish", "bluish")
        }
        for address in addresses:
            file, _, anchor = address.partition("#")
            assert not anchor or f'id="{anchor}"' in (page.parent / file).read_text()
        assert "&lt;b&gt;purple" in text
        assert "<b>purple" not in text


def test_reports_lead_back_and_to_other_classes_that_use_a_concept(pages):
    leads = 0
    for kind, page in pages.items():
        told = json.loads((page.parent / "classes.json").read_text())
        for one in told["classes"]:
            report = page.parent / one["report"]
            text = report.read_text()
            addresses = re.findall(r'href="(\.\.[^"]*)"', text)
            assert addresses[0] == "../index.html"
            linked = [address for address in addresses if address != "../index.html"]
            stated = [f"../{use['report']}" for some in one["also_used_by"].values() for use in some]
            assert sorted(linked) == sorted(stated)
            leads += len(linked)
            for address in linked:
                file, _, anchor = address.partition("#")
                assert f'id="{anchor}"' in (report.parent / file).read_text()
            for number, some in one["also_used_by"].items():
                column = next(each for each in told["usage"]["columns"] if each.get(one["class"]) == int(number))
                for use in some:
                    at = told["usage"]["columns"].index(column)
                    row = [each["class"] for each in told["classes"]].index(use["class"])
                    assert use["importance"] == told["usage"]["importance"][row][at] >= 0.01
                    assert use["report"] == f"{use['class']}/report.html#concept-{column[use['class']]}"
                    assert f">{use['class']}</a> ({100 * use['importance']:.0f} %)" in text
            called = re.findall(r"concept (\d+) of the <a", text)
            expected = one["numbers_in_the_bank"] if kind == "shared" else []
            assert sorted(called, key=int) == [str(number) for number in sorted(expected)]
    assert leads > 0


def test_the_json_has_the_matrix_and_what_tells_classes_apart(pages):
    for kind, page in pages.items():
        told = json.loads((page.parent / "classes.json").read_text())
        assert [one["class"] for one in told["classes"]] == ["bluish", "greenish", "reddish"]
        assert list(told["failed"]) == ["<b>purple"]
        assert told["shared"] == (kind == "shared")
        assert len(told["usage"]["importance"]) == 3
        assert len(told["told_apart"]) == 3
        for pair in told["told_apart"]:
            adds = sum(concept["in_first"] for concept in pair["concepts"])
            assert adds + pair["left_out"][0] + pair["nothing"][0] == pytest.approx(pair["difference"][0], abs=1e-4)


@browser_only
@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 400)])
def test_a_browser_shows_the_index_and_follows_it(pages, theme, width):
    with chromium() as browser:
        for page in pages.values():
            with shown(browser, page, theme, width) as view:
                view.locator("#usage summary").click()
                assert view.locator("table.usage td a").count() >= 6
                assert overflow(view) == 0
                view.locator("#classes a.chip").first.click()
                assert view.url.endswith("report.html#concept-1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "does not exist"),
        (["photos", "--pairs", "-1"], "--pairs -1 isn't a number of pairs"),
        (["photos", "--rank", "0"], "--rank=0"),
        (["photos", "--preset", "lime"], "--preset 'lime' is no paper's settings"),
        (["photos", "--memory", "-1"], "--memory -1.0 isn't a number of GiB"),
        (["photos", "--depth", "2", "--layers", "pixels"], "--depth 2 with 1 --layers"),
        (["photos", "--target", "purple"], "target='purple' isn't a class"),
    ],
)
def test_what_isnt_valid_is_told_in_a_line(command, words, said):
    done = command(*words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_preset_and_memory_are_those_of_the_library(command, folder, monkeypatch):
    from face_jax.pipeline import several

    asked = {}

    def explained(*given, **named):
        asked.update(named)
        raise ValueError("seen")

    monkeypatch.setattr(several, "explain_classes", explained)
    done = command("photos", "--preset", "craft", "--memory", "0.5", "--store", "files", "--out", "preset")
    assert str(done.exception) == "seen"
    assert (asked["preset"], asked["memory"], asked["store"]) == ("craft", 0.5, pathlib.Path("files"))
    # What the preset has isn't asked for beside it.
    assert (asked["rank"], asked["crops"], asked["faithfulness"]) == (None, None, "usual")


def test_misread_photographs_and_names_come_into_every_report(command, folder, pages, monkeypatch):
    class Eye:
        def pictures(self, pictures):
            return [picture.reshape(-1, 3).mean(0) + 1 for picture in pictures]

        def texts(self, texts):
            return np.eye(3)[[("red", "green", "blue").index(text.split()[-1]) for text in texts]]

    monkeypatch.setattr(classes, "text_image_of", lambda _: Eye())
    # What lies in another class's folder is misread.
    wrong = folder / "photos" / "greenish" / "red.png"
    PIL.Image.fromarray(pictures(1, 0)[0]).save(wrong)
    (folder / "words.txt").write_text("red\ngreen\nblue\n")
    words = ["photos", "--shared", "--rank", "3", "--batch", "8", "--faithfulness", "none", "--out", "named"]
    done = command(*words, "--labels", "folders", "--namer", "some/clip", "--vocabulary", "words.txt")
    wrong.unlink()
    assert done.exit_code == 0, done.output
    index = (folder / "named" / "index.html").read_text()
    assert index.count("1 of or as this class is misread") == 2
    assert index.count("none of or as this class is misread") == 1
    for name in ("reddish", "greenish", "bluish"):
        report = (folder / "named" / name / "report.html").read_text()
        assert 'id="misread"' in report
        assert ", a guess (" in report
        told = json.loads((folder / "named" / name / "explanation.json").read_text())
        assert {guess["word"] for guess in told["concepts"][0]["names"]} <= {"red", "green", "blue"}


def test_misread_photographs_of_classes_that_arent_there_are_refused(tmp_path):
    found = fj.explain_classes(colour_model(), pictures(14, 0), ["reddish"], rank=2, batch=8, faithfulness=None, key=0)
    with pytest.raises(ValueError, match="misread has 'bluish', which isn't explained here"):
        fj.write_classes(found, tmp_path, misread={"bluish": ()})
