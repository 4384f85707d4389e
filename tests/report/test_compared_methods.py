"""The page of methods compared: what it says may be believed, and what it warns of; its tables, curves and JSON."""

import dataclasses
import html
import json
import math
import re
from typing import Any

import numpy as np
import pytest
import scipy.stats
from browser import browser_only, chromium, overflow, shown

import face_jax as fj
from face_jax.evaluation import Comparison, MethodResult
from face_jax.metrics import Stability
from face_jax.report.figures import band_figure, method_lines
from face_jax.report.standings import Standings

FOLDS = 5
# Every number of a method that does well, and of controls that don't.
GOOD = {
    "kl": 0.10, "relative_error": 0.20, "accuracy": 0.95, "agreement": 0.90, "l1": 0.1, "c_insertion": 0.8,
    "c_deletion": 0.6, "c_gini": 0.5, "accuracy_of_nothing": 0.0, "non_zero_codes": 0.4,
    "surrogate_from_offset_mae": 0.3, "surrogate_from_offset_mae_random_concepts": 0.9,
}  # fmt: skip
BAD = {
    "kl": 0.40, "relative_error": 0.60, "accuracy": 0.5, "agreement": 0.45, "l1": 0.8, "c_insertion": 0.3,
    "c_deletion": 0.2,
}  # fmt: skip
CEILINGS = {"c_insertion_ceiling": 0.875, "c_deletion_ceiling": 0.8, "c_gini_ceiling": 0.75}
# What folds have in common, which differences don't have, and what each method has of its own.
COMMON, OWN = np.asarray([0.04, -0.03, 0.01, -0.02, 0.0]), np.asarray([0.01, -0.01, 0.005, -0.005, 0.0])
HELD = ("kl", "accuracy", "agreement", "relative_error", "c_insertion", "c_deletion")


def result(name, control=False, learned=True, *, sign=1, floor=0.3, **numbers):
    changed = GOOD | (BAD if control else {}) | numbers
    folds = tuple(
        {key: value if key == "accuracy_of_nothing" else value + COMMON[fold] + sign * OWN[fold] / 10
         for key, value in changed.items()} | CEILINGS
        for fold in range(FOLDS)
    )  # fmt: skip
    curve = np.linspace(0, changed["accuracy"], 5)[None] + COMMON[:, None] * np.asarray([0, 1, 1, 1, 1])
    alike = Stability(np.asarray([0.8, 0.9]), floor)
    return MethodResult(name, control, folds, curve, curve[:, ::-1], alike, None, (0.5,) * FOLDS, (), learned)


def compared(*results, **changes):
    parts = tuple(np.arange(20)[fold::FOLDS] for fold in range(FOLDS))
    given: dict[str, Any] = {"model": "net", "layer": "last", "target": "church"} | changes
    return Comparison(tuple(results), 4, 20, parts, **given)


def warnings_of(comparison):
    return [text for level, text in Standings(comparison).verdicts() if level == "warn"]


CHANCE = result("random", True, learned=False, sign=-1)
NAME = "<b>mine</b> & \"others'"


@pytest.fixture(scope="module")
def comparison():
    """The second can't be told from the first by KL, the third is worse; no method beats the control in accuracy."""
    return compared(
        result("first"), result(NAME, sign=-1, kl=0.1005, accuracy=0.9495), result("third", kl=0.2, relative_error=0.7),
        result("random", True, learned=False, sign=0, accuracy=0.95),
        result("λ = 0", True, sign=-1, kl=0.15, relative_error=0.1),
        target="<i>church", model="net & co", layer="<u>",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(comparison, tmp_path_factory):
    return fj.write_methods(comparison, tmp_path_factory.mktemp("methods"))


def test_what_can_be_told_apart_is_said_first(comparison, page):
    said = list(Standings(comparison).verdicts())
    assert said == [
        ("note", "In keeping the predictions (KL divergence), first is the best (0.100); "
                 f"{NAME} can't be told apart from it, and the others are worse."),
        ("note", "In keeping the class (accuracy), no method can be told apart from the best, first (95.0 %)."),
        ("note", "In rebuilding the activations (squared error), first is the best (0.200); "
                 f"{NAME} can't be told apart from it, and the others are worse."),
        ("warn", "Accuracy is no evidence here: a control that learned nothing is beaten by no method."),
        ("warn", "third doesn't beat every control in KL divergence and squared error."),
    ]  # fmt: skip
    alone = list(Standings(compared(result("a"), result("b", kl=0.3), CHANCE)).verdicts())
    assert alone[0] == (
        "good",
        "In keeping the predictions (KL divergence), a is the best (0.100), and told apart from all other methods.",
    )
    assert alone[-1] == ("good", "Every method beats every control wherever it should.")
    text = html.unescape(page.read_text())
    assert all(sentence in text for _, sentence in said)
    # Which controls these are stands below the table.
    assert "third is worse than “λ = 0”" in text
    assert re.search(r"no method beats “random”", text)


@pytest.mark.parametrize("number", HELD)
def test_a_method_is_warned_of_where_it_does_not_beat_a_control_and_nowhere_else(number):
    words = {
        "kl": "KL divergence", "relative_error": "squared error", "c_insertion": "insertion", "c_deletion": "deletion",
    }.get(number, number)  # fmt: skip
    better = -1 if number in ("kl", "relative_error") else 1
    clean = compared(result("first"), result("second"), CHANCE)
    assert not warnings_of(clean)
    for apart in (0, -0.1 * better):
        # As good as the control to what folds leave open, or worse.
        changed: dict[str, Any] = {number: BAD[number] + apart}
        behind = result("second", **changed)
        found = compared(result("first"), behind, CHANCE)
        assert warnings_of(found) == [f"second doesn't beat every control in {words}."]
        (said,) = Standings(found).not_beaten()
        verb = "doesn't beat" if apart == 0 else "is worse than"
        assert said == (words, f"second {verb} “random”")
    level: dict[str, Any] = {number: BAD[number]}
    (warning,) = warnings_of(compared(result("first", **level), result("second", **level), CHANCE))
    assert warning.endswith(" is no evidence here: a control that learned nothing is beaten by no method.")
    # A control that was fitted, as λ = 0 is, must be beaten in predictions alone.
    fitted = compared(result("first"), behind, dataclasses.replace(CHANCE, learned=True))
    assert bool(warnings_of(fitted)) == (number in HELD[:3])


def test_stability_at_its_floor_and_what_is_missing_are_said():
    assert warnings_of(compared(result("first", floor=0.86), CHANCE)) == [
        "By stability over folds, concepts of first are no more alike than pictures drawn at random."
    ]
    levels = dict(Standings(compared(result("first"))).verdicts())
    assert levels == {"note": "No controls were compared: concepts that learned nothing may score as high."}
    begun = list(Standings(compared(result("first", accuracy_of_nothing=1.0), CHANCE)).verdicts())
    assert begun[-1] == (
        "note",
        "With all codes at zero, this class is already predicted for 100.0 % of the pictures with first: that alone "
        "makes insertion high and deletion low.",
    )
    two = [dataclasses.replace(each, folds=each.folds[:2]) for each in (result("first"), CHANCE)]
    assert any("only 2 folds" in text for _, text in Standings(compared(*two)).verdicts())


def test_a_number_that_is_not_finite_is_worse_than_any(tmp_path):
    bad = result("second", kl=math.inf)
    found = compared(result("first"), bad, dataclasses.replace(CHANCE, folds=bad.folds))
    assert "second doesn't beat every control in KL divergence." in warnings_of(found)
    told = json.loads((fj.write_methods(found, tmp_path).parent / "methods.json").read_text())
    assert told["methods"][1]["kl"] is None
    assert told["methods"][1]["to_best"]["kl"] == {"best": "first", "mean": None, "half_width": None, "told": 0}


def test_everything_is_on_the_page_and_names_are_text(comparison, page):
    text = page.read_text()
    for name in (NAME, "<i>church", "net & co", "<u>"):
        assert html.escape(name, quote=False) in text.replace("&#34;", '"').replace("&#39;", "'")
        assert name not in text
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert "script-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"<[^<>]* style=", text)
    scores, more, differences = re.findall(r"<table.*?</table>", text, re.DOTALL)
    for table in (scores, more, differences):
        rows = re.findall(r'<tr( class="control")?><th scope="row">', table)
        assert rows == ["", "", "", ' class="control"', ' class="control"']
    for shown_ in ("0.100", "± 0.027", "95.0 %", "0.850", "(0.300)", "0.875", "0.800", "0.750"):
        assert shown_ in scores
    assert "0.300" in more
    assert "(0.900)" in more
    # Of each number its name with an arrow, and its meaning.
    headings = re.findall(r'<th scope="col">(.*?)</th>', scores.replace("\u00a0", " "))
    assert headings == ["method", "KL ↓", "accuracy ↑", "squared error ↓", "C-Ins ↑", "C-Del ↑", "C-Gini ↑",
                        "stability,<br>folds ↑", "stability,<br>starts ↑"]  # fmt: skip
    for meaning in ("KL divergence", "Relative squared error", "Stability over folds", "Accuracy at U = 0"):
        assert f"<dt>{meaning}" in text
    half = scipy.stats.t.ppf(0.975, FOLDS - 1) * np.std(OWN / 5, ddof=1) / np.sqrt(FOLDS)
    assert f'<strong>+0.001</strong><br><span class="small">± {half:.3f}</span>' in differences
    # Accuracy's, of three methods; third's KL and squared error. Controls have no mark.
    assert len(re.findall('class="unbeaten"', scores)) == 5


def test_the_json_says_the_same(comparison, page):
    told = json.loads((page.parent / "methods.json").read_text())
    assert told["face_jax"] == fj.__version__
    assert (told["model"], told["layer"], told["class"]) == ("net & co", "<u>", "<i>church")
    assert (told["rank"], told["pictures"], told["folds"]) == (4, 20, FOLDS)
    assert told["scored_on"] == [part.tolist() for part in comparison.parts]
    assert [(each["level"], each["text"]) for each in told["verdicts"]] == list(Standings(comparison).verdicts())
    for written, row, each in zip(told["methods"], comparison.table(), comparison.results, strict=True):
        assert {key: written[key] for key in row} == {
            key: None if value != value else value for key, value in row.items()
        }
        assert written["of_folds"] == list(each.folds)
        np.testing.assert_allclose(written["insertion"]["mean"], each.insertion.mean(0))
        np.testing.assert_allclose(written["deletion"]["std"], each.deletion.std(0, ddof=1), atol=1e-12)
    third = told["methods"][2]
    assert third["does_not_beat"]["kl"] == [{"control": "λ = 0", "worse": True}]
    assert third["to_best"]["kl"]["told"] == 1


def test_notes_stand_behind_what_can_be_believed(comparison, tmp_path):
    page = fj.write_methods(comparison, tmp_path, notes=["3 photographs, <b>.png & more, took no part."])
    assert "3 photographs, &lt;b&gt;.png &amp; more, took no part." in page.read_text()
    told = json.loads((tmp_path / "methods.json").read_text())["verdicts"]
    assert told[-1] == {"level": "note", "text": "3 photographs, <b>.png & more, took no part."}
    assert len(told) == 1 + len(list(Standings(comparison).verdicts()))
    with pytest.raises(ValueError, match="notes='one' isn't a list of sentences"):
        fj.write_methods(comparison, tmp_path, notes="one")


def test_curves_have_bands_and_no_two_lines_look_alike():
    many = [result(f"m{number}") for number in range(12)] + [
        result(f"c{number}", True, learned=False) for number in range(4)
    ]
    lines = method_lines(many)
    assert len({(line.css_colour, line.dashes) for line in lines}) == 16
    assert {line.css_colour for line in lines if line.control} == {"var(--muted)"}
    drawing = band_figure(many, "insertion")
    assert drawing.count("FillBetween") == 16
    for line in lines:
        assert f"stroke: {line.css_colour}" in drawing
        if line.dashes:
            assert f"stroke-dasharray: {','.join(map(str, line.dashes))}" in drawing
    # A standard deviation above the mean at the end, as the line's own height is the mean.
    drawing = band_figure(many[:1], "insertion")
    band, line = (
        [float(y) for y in re.findall(r"[ML] [-.\d]+ ([-.\d]+)", path)]
        for path in (
            re.findall(r'FillBetween.*?<path id="[^"]*" d="([^"]*)"', drawing, re.DOTALL)[0],
            re.findall(r'<path d="([^"]*)"[^>]*stroke: #', drawing)[0],
        )
    )
    above = COMMON.std(ddof=1) / GOOD["accuracy"]
    assert np.ptp(band) / np.ptp(line) == pytest.approx(1 + above, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (compared(), "comparison has no results"),
        (compared(dataclasses.replace(CHANCE, folds=CHANCE.folds[:1])), "comparison has results of 1 to 1 folds"),
        (compared(CHANCE, dataclasses.replace(CHANCE, folds=CHANCE.folds[:3])), "results of 3 to 5 folds"),
    ],
)
def test_comparisons_that_have_no_intervals_are_refused(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        fj.write_methods(given, tmp_path / "page")
    with pytest.raises(ValueError, match="other has 1 folds and random has 5; give a method of the same comparison"):
        CHANCE.difference(dataclasses.replace(CHANCE, folds=CHANCE.folds[:1]), "kl")
    assert not (tmp_path / "page").exists()


@browser_only
def test_a_browser_shows_it(page):
    with chromium() as browser:
        for theme, width in (("light", 1400), ("dark", 400)):
            with shown(browser, page, theme, width) as view:
                view.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
                assert overflow(view) == 0
