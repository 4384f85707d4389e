"""The report as a file, and as a browser shows it."""

import base64
import dataclasses
import hashlib
import html.parser
import itertools
import pathlib
import re
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import browser_only, chromium, dark, overflow, screen, undecoded
from changing import changed
from layered_model import layered_model, warm_pictures
from toy_model import Squared, colour_model, pictures

import face_jax as fj
from face_jax.attribution.visualization import Visualization
from face_jax.faithfulness.lambda_path import Path, Point
from face_jax.pipeline.controls import WITHOUT_TERM
from face_jax.report.figures import curve_figure, legend, path_figure
from face_jax.report.own_styles import in_classes
from face_jax.report.pictures import spotlight
from face_jax.report.together import together
from face_jax.report.verdicts import meanings, verdicts
from face_jax.sanity import SanityCheck, SanityStage


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(
        colour_model(), pictures(14, 0), "reddish", rank=4, batch=8, faithfulness=None, key=jax.random.key(0)
    )


def digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


class Attributes(html.parser.HTMLParser):
    """The names of all attributes in a page, by a reader of its own."""

    names: set[str]

    @classmethod
    def of(cls, text: str) -> set[str]:
        found = cls()
        found.names = set()
        found.feed(text)
        return found.names

    def handle_starttag(self, tag, attrs):
        self.names |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def squared():
    """An explanation of a model whose head isn't affine."""
    model = colour_model(head=Squared(colour_model().head.kernel))
    return fj.explain(model, pictures(14, 0), "reddish", rank=4, batch=8, faithfulness=None, key=jax.random.key(0))


@pytest.fixture(scope="module")
def page(explanation, tmp_path_factory) -> pathlib.Path:
    return fj.write_report(
        explanation, tmp_path_factory.mktemp("report"), command="face-jax explain --images <red> & co\udce9"
    )


def test_it_needs_no_other_file(page):
    text = page.read_text()
    addresses = re.findall(r'(?:src|href)="([^"#]{1,40})', text) + re.findall(r"url\(([^)#]{1,40})\)", text)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)


def test_its_policy_allows_its_own_script_and_styles_only(page):
    text = page.read_text()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    assert len(styles) >= 3  # the page's, those of single elements, the figures'
    assert rules.pop("style-src").split() == list(dict.fromkeys(map(digest, styles)))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "script-src": digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # Nothing of the page comes before it but what its bytes mean.
    assert text.index("Content-Security-Policy") < text.index("<style")
    assert not {name for name in Attributes.of(text) if name == "style" or name.startswith("on")}
    # What they stood for is said by classes: concepts' colours, bars' lengths, figures' lines.
    (own,) = (style for style in styles if ".own-1:" in style)
    for declared in ("--own: #", "width: ", "stroke: "):
        assert declared in own
    used = {name for names in re.findall(r' class="([^"]*)"', text) for name in names.split() if "own-" in name}
    assert used == set(re.findall(r"^\.(own-\d+):not\(#_\) \{ [^{}]+ \}$", own, re.MULTILINE))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('<p class="a" style="width: 1%" id="b">', '<p class="a own-1" id="b">'),
        ('<i style="left: 0"></i><i style="left: 0">', '<i class="own-1"></i><i class="own-1">'),
        ('<path d="M0" style="font: 9px &apos;A&apos;"/>', '<path d="M0" class="own-1"/>'),
    ],
)
def test_styles_of_elements_become_classes(given, expected):
    page = in_classes(f"<head></head>{given}")
    assert page.partition("</head>")[2] == expected
    declared = given.partition('style="')[2].partition('"')[0].replace("&apos;", "'")
    assert f".own-1:not(#_) {{ {declared} }}" in page.partition("</head>")[0]


@pytest.mark.parametrize(
    "text",
    ['<img alt=" style=" title="red">', "<script>a = \"<p style='b'>\"</script>", '<!-- <p style="a"> -->', "style=a"],
)
def test_what_only_looks_like_a_style_stays(text):
    assert in_classes(f"<head></head>{text}") == f"<head></head>{text}"


def test_a_style_that_would_end_its_rule_is_refused():
    with pytest.raises(ValueError, match="isn't declarations alone"):
        in_classes('<head></head><p style="a} p {color: red">')


@browser_only
def test_a_browser_shows_all_of_it_under_its_policy_and_nothing_that_is_put_in(page, browser, tmp_path):
    put_in = (
        '<script>document.title = "run"</script><img src="x" onerror="document.title = 1"><style>p{color:red}</style>'
    )
    (tmp_path / "bad.html").write_text(page.read_text().replace("</main>", f"{put_in}</main>"))
    seen = {}
    for name, file in (("good", page), ("bad", tmp_path / "bad.html")):
        with screen(browser) as view:
            view.goto(file.as_uri())
            blank = undecoded(view, "img")
            look = view.evaluate(
                """() => ({
                    chip: getComputedStyle(document.querySelector(".chip")).backgroundColor,
                    bar: document.querySelector(".bar span").getBoundingClientRect().width,
                    curve: getComputedStyle(document.querySelector(".curves svg path")).strokeLinejoin,
                    wide: document.querySelector("main").getBoundingClientRect().width,
                    paragraph: getComputedStyle(document.querySelector("p.lead")).color,
                })"""
            )
            seen[name] = view.complaints, view.title(), {"blank": blank, **look}
    said, title, good = seen["good"]
    assert said == []
    assert (good["blank"], good["chip"], good["curve"]) == (0, "rgb(230, 159, 0)", "round")
    assert 10 < good["bar"] < good["wide"] <= 1180
    said, bad_title, bad = seen["bad"]
    assert len(said) >= 3
    assert (bad_title, bad["paragraph"]) == (title, good["paragraph"])


def test_it_says_what_the_explanation_says(page, explanation):
    text = page.read_text()
    assert f"{100 * explanation.concepts[0].importance:.1f} %" in text
    assert f"{explanation.scores.rows[0].fidelity.c_deletion:.3f}" in text
    for row in explanation.scores.rows:
        assert row.name in text
    for meaning in ("Relative squared error", "KL divergence", "Agreement", "C-Ins", "C-Del", "C-Gini", "Suspicious"):
        assert meaning in text
    assert "itself the λ = 0 row" in text


def test_a_low_agreement_names_the_remedy(explanation):
    poor = dataclasses.replace(explanation.scores.rows[0], agreement=0.4)
    low = changed(explanation, {"scores.rows": (poor, *explanation.scores.rows[1:])})
    asked = changed(low, {"provenance.settings.faithfulness": True})
    for one, remedy in ((low, True), (asked, False)):
        warning = verdicts(one)[0].text
        assert warning.startswith("Only 40 % of the held-out predictions")
        assert ("--faithfulness auto" in warning) == remedy


def with_scores(explanation, *agreements, held_out=None):
    """An explanation whose scores, its own and its controls', have other agreements."""
    scores = [
        dataclasses.replace(row, agreement=agreement)
        for row, agreement in zip(explanation.scores.rows, agreements, strict=True)
    ]
    held_out = explanation.pictures.held_out if held_out is None else held_out
    return changed(explanation, {"scores.rows": tuple(scores), "pictures.held_out": held_out})


def test_praise_needs_enough_pictures_of_the_class_and_controls_that_fail(explanation):
    def levels(one):
        return [verdict.level for verdict in verdicts(one)], " ".join(verdict.text for verdict in verdicts(one))

    many = np.arange(10)
    good = with_scores(explanation, 1.0, 0.5, 0.4, 0.3, held_out=many)
    assert levels(good)[0][-1] == "good"
    assert "The agreement is no evidence" not in levels(good)[1]
    # Three photographs are held out.
    assert "good" not in levels(with_scores(explanation, 1.0, 0.5, 0.4, 0.3))[0]
    said, text = levels(with_scores(explanation, 1.0, 0.99, 0.4, 1.0, held_out=many))
    assert "good" not in said
    first, last = explanation.scores.rows[1].name, explanation.scores.rows[3].name
    assert f"The agreement is no evidence here: “{first}” and “{last}” keep as many" in text
    assert "the maps and the agreement" not in text
    # What stays the same isn't the class.
    own = good.scores.rows[0]
    other = np.zeros_like(own.fidelity.deletion.accuracy)
    fidelity = dataclasses.replace(own.fidelity, deletion=dataclasses.replace(own.fidelity.deletion, accuracy=other))
    others = changed(good, {"scores.rows": (dataclasses.replace(own, fidelity=fidelity), *good.scores.controls)})
    assert "good" not in levels(others)[0]


def test_the_fit_without_the_term_is_no_control_that_learned_nothing(explanation):
    own, *controls = with_scores(explanation, 1.0, 0.5, 0.4, 0.3, held_out=np.arange(10)).scores.rows
    plain = dataclasses.replace(own, name=WITHOUT_TERM)
    both = changed(explanation, {"scores.rows": (own, plain, *controls), "pictures.held_out": np.arange(10)})
    said = verdicts(both)
    assert WITHOUT_TERM not in " ".join(verdict.text for verdict in said)
    assert said[-1].level == "good"


def test_a_share_just_below_the_limit_is_not_rounded_to_it(explanation):
    poor = with_scores(explanation, 0.898, 0.5, 0.4, 0.3)
    assert verdicts(poor)[0].text.startswith("Only 89.8 % of")
    assert [one.value for one in meanings(poor) if one.name == "Agreement"] == ["89.8 %"]


def test_the_legend_has_the_curves_dashes_and_widths(explanation):
    drawing = curve_figure(explanation.scores.rows, "insertion")
    lines = re.findall(r'<path d="[^"]*"[^>]*style="([^"]*stroke: var\(--(?:accent|muted)\)[^"]*)"', drawing)
    drawn = [dict(part.strip().split(": ") for part in style.split(";") if part.strip()) for style in lines]
    samples = legend(explanation.scores.rows)
    assert len(drawn) == len(samples) == 4
    # The explanation's own line is drawn last, over the others.
    for line, (_, dashes, width, _) in zip([drawn[-1], *drawn[:-1]], samples, strict=True):
        assert line.get("stroke-dasharray", "none").replace(",", " ") == dashes
        assert float(line.get("stroke-width", 1)) == width
    assert len({dashes for _, dashes, _, _ in samples}) == 4


def table_of_measures(text):
    """The cells of the table, without tags; minor concepts have one of their own."""
    table = "".join(re.findall(r'<table class="measures">(.*?)</table>', text, re.DOTALL))
    rows = re.findall(r'<tr class="own-\d+">(.*?)</tr>', table, re.DOTALL)
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in rows]


def test_every_concept_is_shown_by_every_measure(page, explanation):
    rows = table_of_measures(page.read_text())
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    size = explanation.importance.gradient_times_code.per_class
    for number, (row, concept) in enumerate(zip(rows, explanation.concepts, strict=True)):
        assert row[1] == f"{100 * concept.importance:.1f}&nbsp;%"
        sign = "−" if concept.contribution < 0 else ""
        assert row[2:] == [f"{sign}{size[number]:.3f}"]
    # Behind an affine head TCAV has nothing to say.
    assert "<th>TCAV</th>" not in page.read_text()
    assert "no score can be significant here" in page.read_text()


def test_its_contents_lead_to_its_sections_in_order(page, recursive, tmp_path):
    for text, there in ((page.read_text(), False), (fj.write_report(recursive, tmp_path).read_text(), True)):
        anchors = re.findall(r'<li><a href="#([a-z]+)">', text)
        assert anchors == re.findall(r'<section id="([a-z]+)">', text)
        assert ("parts" in anchors) == there
        assert anchors.index("where") == 1


def test_remarks_on_the_scores_stand_with_the_scores(explanation, tmp_path):
    rows = explanation.scores.rows
    equal = tuple(dataclasses.replace(row, fidelity=rows[0].fidelity) for row in rows)
    text = fj.write_report(changed(explanation, {"scores.rows": equal}), tmp_path).read_text()
    assert text.index('<section id="trust">') < text.index("deletion scores are no evidence here")


def test_a_photographs_maps_are_of_the_concepts_in_its_key(page):
    examples = re.findall(r'<article class="example">(.*?)</article>', page.read_text(), re.DOTALL)[:-1]
    assert examples
    for example in examples:
        key, maps = example.split('<div class="maps', 1)
        named = re.findall(r'<li class="own-\d+"><span class="chip">(\d+)</span>', key)
        mapped = re.findall(r'<span class="chip">(\d+)</span>', maps)
        assert named
        assert set(named) <= set(mapped)


def test_gradients_are_of_the_concepts_that_count_in_the_photograph(page):
    *examples, gradients = re.findall(r'<article class="example">(.*?)</article>', page.read_text(), re.DOTALL)
    key, _ = examples[0].split('<div class="maps', 1)
    named = re.findall(r'<li class="own-\d+"><span class="chip">(\d+)</span>', key)
    shown = re.findall(r'<span class="chip">(\d+)</span>', gradients)
    assert shown == sorted(named[:3], key=int)


def test_behind_a_head_that_is_not_affine_measures_are_estimates(squared, tmp_path):
    # Chance can take the lower end of an interval below zero, where no index is.
    uncertain = tuple(dataclasses.replace(one, low=one.low - one.importance) for one in squared.concepts)
    assert min(one.low for one in uncertain) < 0
    text = fj.write_report(changed(squared, {"bank.concepts": uncertain}), tmp_path).read_text()
    rows = table_of_measures(text)
    assert len(rows) == 4
    for row, concept in zip(rows, uncertain, strict=True):
        assert f"{100 * max(concept.low, 0):.1f}…{100 * concept.high:.1f}" in row[1]
    assert [row[2].endswith("*") for row in rows] == squared.importance.tcav.significant().tolist()
    assert "no score can be significant" not in text
    assert "500 random directions" in text
    # Indices that overlap are no shares of a whole.
    first = squared.concepts[0]
    assert f"The most important has a total Sobol index of <strong>{100 * first.importance:.0f} %" in text
    assert f"total Sobol index <strong>{100 * first.importance:.1f} %</strong>" in text
    assert "of the importance" not in text


def forgetful(maps):
    """A sanity check with made-up numbers, whose maps end with the likeness given."""
    shown = np.random.default_rng(0).random((4, 16, 16))
    stages = (
        SanityStage("as trained", 1.0, 1.0, 0.98, 1.0, shown),
        SanityStage("all <at> once", 0.41, float("nan"), maps, 0.07, np.zeros_like(shown)),
    )
    photograph = np.full((16, 16, 3), 120, np.uint8)
    return SanityCheck(stages, 0.3, 0.95, 0.4, photograph, shown)


def test_a_sanity_check_is_shown(explanation, tmp_path):
    text = fj.write_report(explanation, tmp_path, sanity=forgetful(0.45)).read_text()
    section = text[text.index('<section id="sanity">') :]
    section = section[: section.index("</section>")]
    assert "With “all &lt;at&gt; once”, concepts, importance and maps come down" in section
    assert 'class="warn"' not in section
    for value in ("0.41", "0.45", "0.98", "7&nbsp;%"):
        assert value in section
    assert section.count("none</td>") == 1
    # Three concepts in three columns: the explanation and two stages.
    assert section.count("<img") == 9


def test_a_sanity_check_that_fails_is_a_warning(explanation, tmp_path):
    text = fj.write_report(explanation, tmp_path, sanity=forgetful(0.9)).read_text()
    assert "concepts and importance come down" in text
    assert re.search(r'<li class="warn">With “all &lt;at&gt; once”, maps stay nearer', text)


def test_feature_visualizations_are_shown_by_their_numbers(page, explanation, tmp_path):
    made = Visualization(np.full((2, 16, 16, 3), 0.5), np.zeros((2, 3)), (0, 2))
    text = fj.write_report(explanation, tmp_path, visualization=made).read_text()
    assert re.findall(r'alt="picture made for concept (\d)"', text) == ["1", "3"]
    assert "What the network looks for" not in page.read_text()


def test_what_users_name_is_escaped(page):
    assert r"--images &lt;red&gt; &amp; co\udce9" in page.read_text()


def test_every_concept_has_its_crops(page, explanation):
    shown = len(re.findall(r'width="120" height="120"', page.read_text()))
    assert shown == sum(len(concept.strongest) for concept in explanation.concepts)


def test_drawings_are_well_formed_and_their_names_are_their_own(page):
    drawings = re.findall(r"<svg viewBox=.*?</svg>", page.read_text(), re.DOTALL)
    names = [name for drawing in drawings for name in re.findall(r'id="([^"]+)"', drawing)]
    assert len(names) == len(set(names))
    for drawing in drawings:
        xml.etree.ElementTree.fromstring(drawing)
        assert "#010203" not in drawing


def test_spotlight_lights_what_is_strong():
    pixels = np.full((20, 20, 3), 200, np.uint8)
    strength = np.zeros((20, 20))
    strength[:, 10:] = 1
    lit = spotlight(pixels, strength, "#ff0000")
    assert lit[5, 3].max() < 100
    assert lit[5, 10].tolist() == [255, 0, 0]
    assert lit[5, 16].tolist() == [200, 200, 200]


def test_concepts_of_a_photograph_are_shown_together(page, explanation):
    shown = [together(explanation, int(number)) for number in explanation.pictures.held_out]
    text = page.read_text()
    assert text.count('<ul class="key">') == len(shown)
    for picture in shown:
        assert f'<img src="{picture["painted"]}"' in text
        shares = [entry.share for entry in picture["entries"]]
        assert shares == sorted(shares, reverse=True)
        assert min(shares) >= 0.05
        assert sum(shares) + picture["rest"] == pytest.approx(1)
        assert len({entry.colour for entry in picture["entries"]}) == len(shares)
        for entry in picture["entries"]:
            assert f'd="{entry.outline}" stroke="{entry.colour}"' in text
            assert f"{'adds' if entry.adds >= 0 else 'takes'} {abs(entry.adds):.2f}" in text


def test_what_concepts_add_to_a_photograph_is_in_its_key(explanation):
    number = int(explanation.pictures.held_out[0])
    added = explanation.codes[number].mean(axis=(0, 1)) * (
        explanation.dictionary @ np.asarray(explanation.model.head.kernel[:, explanation.target.index])
    )
    for entry in together(explanation, number)["entries"]:
        assert entry.adds == pytest.approx(added[entry.number - 1], rel=1e-4)
        assert entry.share == pytest.approx(abs(added[entry.number - 1]) / np.abs(added).sum(), rel=1e-4)


def test_what_concepts_add_behind_a_head_that_is_not_affine_is_what_it_loses_without_them(squared):
    number = int(squared.pictures.held_out[0])
    codes, score = squared.codes[number : number + 1], squared.target.index

    def logit(present):
        return float(squared.model.head(jnp.asarray(codes * present) @ squared.dictionary)[0, score])

    whole = np.ones(4, codes.dtype)
    lost = [logit(whole) - logit(np.where(np.arange(4) == concept, 0, whole)) for concept in range(4)]
    for entry in together(squared, number)["entries"]:
        assert entry.adds == pytest.approx(lost[entry.number - 1], rel=1e-3)
    linear = fj.gradient_times_code(squared.model.head, jnp.asarray(codes), jnp.asarray(squared.dictionary), score)
    assert abs(linear.contribution[0, 0] - lost[0]) > 0.1 * abs(lost[0])


def test_minor_concepts_are_folded_away(explanation, tmp_path):
    concepts = [
        dataclasses.replace(one, importance=value)
        for one, value in zip(explanation.concepts, (0.9, 0.09, 0.006, 0.004), strict=True)
    ]
    text = fj.write_report(changed(explanation, {"bank.concepts": tuple(concepts)}), tmp_path).read_text()
    assert text.count("2 more, each with a total Sobol index below 1") == 2
    tables = re.findall(r'<table class="measures">(.*?)</table>', text, re.DOTALL)
    assert [table.count('class="chip"') for table in tables] == [2, 2]


def test_an_outline_is_at_half_of_the_peak():
    from face_jax.report.together import outline

    y, x = np.mgrid[:60, :60]
    distance = np.hypot(y - 25, x - 35)
    drawn = outline(np.exp(-(distance**2) / 200))
    points = np.asarray([pair.split() for pair in re.split("[ML]", drawn)[1:]], float) - 0.5
    assert drawn.count("M") == 1
    np.testing.assert_allclose(np.hypot(points[:, 1] - 25, points[:, 0] - 35), np.sqrt(200 * np.log(2)), atol=0.1)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@browser_only
@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(page, browser, width, scheme):
    with screen(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as view:
        view.goto(page.as_uri())
        assert undecoded(view, "img") == 0
        assert overflow(view) <= 0
        # Every score is in sight.
        assert overflow(view, "*:has(> table.scores)") <= 0
        curves = [curve.bounding_box()["width"] for curve in view.locator(".curves svg").all()]
        assert len(curves) == 2
        assert min(curves) > 250
        assert dark(view) == (scheme == "dark")
        assert view.complaints == []
        assert all(address.startswith(("file:", "data:")) for address in view.requests)


def test_choices_are_drawn(explanation, tmp_path):
    ranks = np.array([2, 4, 6])
    scan = fj.RankScan(
        ranks=ranks,
        held_out=np.array([0.5, 0.2, 0.3]),
        held_out_error=np.array([0.01, 0.02, 0.01]),
        fitted=np.array([0.4, 0.15, 0.1]),
        stability=np.array([0.99, 0.9, 0.7]),
        floor=np.array([0.5, 0.5, 0.5]),
    )
    points = tuple(
        Point(weight, 0.3, 0.2, 0.31 + 0.01 * weight, 0.5 - 0.1 * weight, 0.9, 1.0, 1e-4, 30)
        for weight in (0.0, 1.0, 3.0)
    )
    solution = fj.factorize(explanation.pictures.crop_activations, 2)
    path = Path(points=points, chosen=1, solution=solution, most_error=1.1)
    text = fj.write_report(changed(explanation, {"fit.rank_scan": scan, "fit.path": path}), tmp_path).read_text()
    assert "How many concepts" in text
    assert "How much faithfulness" in text
    drawings = re.findall(r"<svg viewBox=.*?</svg>", text, re.DOTALL)
    assert any("rank curves" in drawing for drawing in drawings)
    assert any("path curves" in drawing and "λ = 3" in drawing for drawing in drawings)
    for drawing in drawings:
        xml.etree.ElementTree.fromstring(drawing)


def test_labels_of_a_path_have_room():
    # As in a real path: λ = 11 and 35 lie beside the chosen one.
    points = tuple(
        Point(weight, 0.1, 0.1, error, loss, 0.9, 1.0, 1e-4, 30)
        for weight, error, loss in (
            (0.0, 0.1771, 0.167), (11.0, 0.1774, 0.145), (35.0, 0.1781, 0.137), (118.0, 0.1762, 0.133),
            (1e3, 0.189, 0.153),
        )
    )  # fmt: skip
    drawing = path_figure(Path(points=points, chosen=3, solution=None, most_error=1.1))
    found = re.findall(r'text-anchor: (\w+)[^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>(λ = [^<]*)<', drawing)
    assert {words for *_, words in found} == {"λ = 0", "λ = 11", "λ = 35", "λ = 118", "λ = 1,000"}
    shares = {"start": 0, "middle": 0.5, "end": 1}
    boxes = []
    for anchor, across, up, words in found:
        width = 5 * len(words)  # of letters of 10 points
        left = float(across) - shares[anchor] * width
        boxes.append((left, left + width, float(up)))
    for one, other in itertools.combinations(boxes, 2):
        assert one[1] < other[0] or other[1] < one[0] or abs(one[2] - other[2]) > 9


@pytest.fixture(scope="module")
def recursive():
    found = fj.explain(
        layered_model("last"), warm_pictures(), "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(0)
    )
    earlier = [layered_model("middle"), layered_model("pixels")]
    return fj.recurse(found, earlier, concepts=[0], rank=2, threshold=0.1, batch=8)


def test_the_tree_of_sub_concepts_is_drawn(recursive, tmp_path):
    text = fj.write_report(recursive, tmp_path).read_text()
    divisions = list(recursive.recursion.walk())
    assert len(divisions) > 1
    parts = [part for division in divisions for part in division.parts]
    for part in parts:
        assert f'<span class="chip">{part.name}</span>' in text
        assert f"cosine {part.coherence:.3f}" in text
    shown = len(re.findall(r'width="96" height="96"', text))
    assert shown == sum(len(part.strongest) for part in parts) + len(recursive.concepts[0].strongest)
    for division in divisions:
        assert f"<code>{division.layer}</code>" in text
    # Levels lie in each other.
    assert text.index('class="chip">1.1<') < text.index(f'class="chip">{divisions[1].name}.1<')


def test_without_a_tree_it_says_which_concepts_ask_for_one(explanation, tmp_path):
    few = dataclasses.replace(explanation, recursion=fj.suggest_recursion(explanation, threshold=1e9))
    assert "No concept was taken apart: at layer <code>patches</code>" in fj.write_report(few, tmp_path).read_text()


@browser_only
def test_a_narrow_screen_shows_the_tree(recursive, browser, tmp_path):
    with screen(browser, viewport={"width": 400, "height": 900}) as view:
        view.goto(fj.write_report(recursive, tmp_path).as_uri())
        # Parts of parts unfold.
        view.evaluate("() => document.querySelectorAll('details.fold').forEach(each => each.open = true)")
        assert overflow(view) <= 0
        widths = [crop.bounding_box()["width"] for crop in view.locator("#parts .crops img").all()]
    assert min(widths) > 40
