"""Pages of why, of an edit and of a comparison: self-contained, under their policy, on any screen; their JSON."""

import dataclasses
import html
import json
import re

import numpy as np
import pytest
from browser import browser_only, chromium, overflow, screen, shown, undecoded
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.report import balance

REDDISH, GREENISH = pictures(12, 0), pictures(4, 1)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), REDDISH, "reddish", rank=4, batch=8, faithfulness=None, key=0)


@pytest.fixture(scope="module")
def misread(explanation):
    labels = ["reddish"] * 9 + ["bluish"] * 3 + ["reddish"] * 2 + ["greenish"] * 2
    return fj.misled(explanation, np.concatenate([REDDISH, GREENISH]), labels, batch=8)


@pytest.fixture(scope="module")
def pages(explanation, misread, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    images, labels = np.concatenate([REDDISH, GREENISH]), ["reddish"] * 12 + ["greenish"] * 4
    effect = fj.measure_edit(explanation, images, labels, remove=[0, 1, 2, 3], batch=8, draws=2, key=0)
    return {
        "why": fj.write_why(explanation, explanation.why(REDDISH[0], "bluish"), folder / "why"),
        "misled": fj.write_why(explanation, misread, folder / "misled", notes=["<b>&"]),
        "edit": fj.write_edit(explanation, effect, folder / "edit"),
        "comparison": fj.write_comparison(fj.compare(explanation, explanation, key=0), folder / "compared"),
    }


def test_they_need_no_other_file_and_run_nothing(pages):
    for page in pages.values():
        text = page.read_text()
        addresses = re.findall(r'(?:src|href)="([^"#]{1,40})', text)
        assert all(address.startswith("data:") for address in addresses)
        (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
        assert "default-src 'none'" in policy
        assert "script-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.findall(r"<[^<>]* style=", text)


def test_photographs_that_are_misread_say_what_misleads(misread, explanation, pages):
    # Three that are taken for the class wrongly, and two of the class that aren't recognized.
    assert sorted(each.names for each in misread) == [("greenish", "reddish")] * 2 + [("reddish", "bluish")] * 3
    for each in misread:
        assert each.parts.difference > 0
        assert each.parts.total == pytest.approx(each.parts.difference, rel=1e-4)
    text = pages["misled"].read_text()
    assert "3 photographs taken for reddish" in text
    assert "2 photographs reddish that isn" in text
    assert "&lt;b&gt;&amp;" in text


def test_the_json_says_what_the_page_says(pages, explanation):
    why = json.loads((pages["why"].parent / "why.json").read_text())["photographs"][0]
    assert why["sum"] == pytest.approx(why["difference"], rel=1e-4)
    assert f"{why['difference']:+.3f}" in pages["why"].read_text()
    edit = json.loads((pages["edit"].parent / "edit.json").read_text())
    assert edit["verdict"].partition(":")[0] in pages["edit"].read_text().replace("&#39;", "'")
    assert len(edit["photographs"]) == 16
    assert edit["recommended"] is False
    compared = json.loads((pages["comparison"].parent / "comparison.json").read_text())
    assert compared["equal"] is True
    assert "the same concepts" in pages["comparison"].read_text()


@browser_only
def test_a_browser_shows_them(pages):
    with chromium() as browser:
        for page in pages.values():
            for theme, width in (("light", 1400), ("light", 400), ("dark", 1400), ("dark", 400)):
                with shown(browser, page, theme, width):
                    pass


@browser_only
@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_a_report_with_what_is_misread(explanation, misread, tmp_path, width):
    page = fj.write_report(explanation, tmp_path, misread=misread)
    with chromium() as browser, screen(browser, viewport={"width": width, "height": 900}) as view:
        view.goto(page.as_uri())
        view.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
        assert view.complaints == []
        assert undecoded(view, "img") == 0
        assert overflow(view) == 0


def test_concepts_that_are_spoken_of_have_captions(explanation, misread, pages, tmp_path):
    named = dataclasses.replace(explanation.concepts[2], names=(fj.NameGuess("<i>brick", 0.2, 0.1, 0.05),))
    concepts = (*explanation.concepts[:2], named, *explanation.concepts[3:])
    other = dataclasses.replace(explanation, bank=dataclasses.replace(explanation.bank, concepts=concepts))
    why = fj.write_why(
        other, other.why(REDDISH[0], "bluish"), tmp_path / "why", report=tmp_path / "a b" / "report.html"
    )
    section = why.read_text()
    section = section[section.index('<ul class="captions">') :]
    section = section[: section.index("</ul>")]
    assert re.findall(r'href="([^"]+)"', section) == [
        f"../a%20b/report.html#concept-{number}" for number in (1, 2, 3, 4)
    ]
    assert section.count("<img") == sum(min(2, len(one.strongest)) for one in concepts)
    assert "perhaps <strong>&lt;i&gt;brick</strong>, a guess" in section
    (first, *_) = concepts[0].speaks_for
    assert f"by itself speaks for {explanation.model.classes[first.index]}" in section
    told = json.loads((tmp_path / "why" / "why.json").read_text())["concepts"]
    assert told[2]["perhaps"] == ["<i>brick"]
    report = fj.write_report(explanation, tmp_path, misread=misread).read_text()
    captions = report[report.index('<ul class="captions">') :]
    anchors = re.findall(r'href="#(concept-\d)"', captions[: captions.index("</ul>")])
    assert anchors
    assert all(f'id="{anchor}"' in report for anchor in anchors)
    # Without a report, nothing leads there; of an edit, what is edited has captions.
    assert pages["edit"].read_text().count('fill="#101216"') == 4


def test_it_is_said_where_the_concepts_do_not_decide(explanation, pages, tmp_path):
    why = explanation.why(REDDISH[0], "bluish")
    outside = dataclasses.replace(why, parts=dataclasses.replace(why.parts, left_out=100.0))
    assert "they don't say what decides" in balance(outside)[-1]
    assert "they don't say what decides" not in " ".join(balance(why))
    assert "they don't say what decides" in html.unescape(fj.write_why(explanation, outside, tmp_path).read_text())
    assert "they don't say what decides" not in pages["why"].read_text()


def test_suspects_are_ranked_by_what_they_add_to_the_mistake(explanation, misread, pages, tmp_path):
    adds = np.stack([each.parts.concepts for each in misread])
    found = fj.suspects(misread, key=0)
    assert [one.concept for one in found] == np.argsort(-adds.mean(0), kind="stable").tolist()
    random = np.random.default_rng(1)
    for one in found:
        own = adds[:, one.concept]
        assert one.adds.value == pytest.approx(own.mean(), abs=1e-9)
        assert one.often == (own > 0).mean()
        # The same interval by drawing photographs one by one, as far as draws are alike.
        drawn = own[random.integers(0, len(own), (4000, len(own)))].mean(1)
        bounds = np.quantile(drawn, [0.025, 0.975])
        np.testing.assert_allclose([one.adds.low, one.adds.high], bounds, atol=0.15 * np.ptp(own) + 1e-9)
    told = json.loads((pages["misled"].parent / "why.json").read_text())["suspects"]
    assert [one["number"] for one in told] == [one.number for one in found]
    report = fj.write_report(explanation, tmp_path, misread=misread).read_text()
    for text in (pages["misled"].read_text(), report):
        rows = re.findall(r"<tr><th>concept (\d)</th><td>([+-]\d+\.\d\d) ", text)
        assert rows == [(str(one.number), f"{one.adds.value:+.2f}") for one in found if one.adds.value > 0]
        assert "too narrow where they are as few as here" in text
    assert "Suspects" not in fj.write_report(explanation, tmp_path, misread=misread[:1]).read_text()
    with pytest.raises(ValueError, match="misread has 1 photographs"):
        fj.suspects(misread[:1])
    shorter = dataclasses.replace(misread[0].parts, concepts=misread[0].parts.concepts[:2])
    with pytest.raises(ValueError, match="different numbers of concepts"):
        fj.suspects([dataclasses.replace(misread[0], parts=shorter), *misread[1:]])


def test_labels_are_not_mistaken_for_each_other(explanation):
    labels = dataclasses.replace(explanation, model=colour_model(outputs=fj.MultiLabel()))
    with pytest.raises(ValueError, match="aren't mistaken for each other"):
        fj.misled(labels, REDDISH, ["reddish"] * 12)


def test_a_report_has_the_photographs_that_are_misread(explanation, misread, tmp_path):
    page = fj.write_report(explanation, tmp_path, misread=misread)
    text = page.read_text()
    section = text[text.index('<section id="misread">') :]
    section = section[: section.index("</section>")]
    assert '<a href="#misread">' in text
    assert "5 in all" in section
    assert "3 photographs taken for reddish" in section
    for each in misread:
        assert f"taken for {each.names[0]}, is {each.names[1]}" in section
        assert f"{each.parts.difference:+.3f}" in section
    none = fj.write_report(explanation, tmp_path, misread=()).read_text()
    assert "It gets none of the labelled photographs wrong" in none
    assert 'id="misread"' not in fj.write_report(explanation, tmp_path).read_text()
    with pytest.raises(ValueError, match="misread=5 isn't a list"):
        fj.write_report(explanation, tmp_path, misread=5)
    with pytest.raises(ValueError, match=r"what face_jax\.misled returns"):
        fj.write_report(explanation, tmp_path, misread=["one"])
