"""What unfolds on an explanation's page: concepts in photographs, photographs, parts; with and without a script."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import browser_only, chromium, overflow, screen
from layered_model import layered_model, warm_pictures
from toy_model import Squared, colour_model, pictures

import face_jax as fj
from face_jax.cli.demo_photograph import embedded_photograph
from face_jax.heads import Affine
from face_jax.report import page as page_of_report
from face_jax.report import photographs
from face_jax.report.photographs import Photographs

SETTINGS: dict[str, Any] = {"rank": 4, "batch": 8, "faithfulness": None, "key": 0, "progress": False}


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), pictures(14, 0), "reddish", **SETTINGS)


@pytest.fixture(scope="module")
def page(explanation, tmp_path_factory):
    return fj.write_report(explanation, tmp_path_factory.mktemp("unfolding"))


@pytest.fixture(scope="module")
def recursive(tmp_path_factory):
    """The page of an explanation whose concepts were taken apart."""
    found = fj.explain(layered_model("last"), warm_pictures(), "warm", **{**SETTINGS, "rank": 3})
    earlier = [layered_model("middle"), layered_model("pixels")]
    found = fj.recurse(found, earlier, concepts=[0], rank=2, threshold=0.1, batch=8, progress=False)
    return fj.write_report(found, tmp_path_factory.mktemp("recursive"))


def test_every_link_within_the_page_leads_somewhere(page, recursive):
    for file in (page, recursive):
        text = file.read_text()
        names = re.findall(r'id="([^"]+)"', text)
        assert len(names) == len(set(names))
        links = set(re.findall(r'href="#([^"]+)"', text))
        assert {"concept-1", "picture-1"} <= links
        assert any(link.startswith("photograph-") for link in links)
        assert links <= set(names)


def real_views(count):
    """Views of the photographs that packages carry: small synthetic pictures don't compress as photographs do."""
    for package in ("skimage", "sklearn"):
        pytest.importorskip(package, reason="the package with photographs isn't installed")
    random = np.random.Generator(np.random.PCG64(3))
    sources = [embedded_photograph(name).pixels() for name in ("chelsea", "coffee", "motorcycle", "china")]
    for number in range(count):
        pixels = sources[number % len(sources)]
        top, left = (int(random.integers(0, edge - 250)) for edge in pixels.shape[:2])
        yield pixels[top : top + 250, left : left + 250]


def patches_of(images):
    """Twelfths of patches of 16 × 16 pixels times random directions; ReLU."""
    weights = np.random.Generator(np.random.PCG64(4)).normal(size=(48, 40)).astype(np.float32)
    small = images.reshape(len(images), 56, 4, 56, 4, 3).mean((2, 4)).reshape(len(images), 14, 4, 14, 4, 3)
    rows = small.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), 14, 14, 48)
    return jax.nn.relu(rows @ jnp.asarray(weights, images.dtype))


def test_a_page_of_a_hundred_photographs_and_25_concepts_is_below_5_mb(tmp_path, monkeypatch):
    # Three small pictures, whose derivatives take as long to compile as the rest of the page.
    monkeypatch.setattr(page_of_report, "_gradients", lambda *_: [])
    kernel = np.random.Generator(np.random.PCG64(5)).normal(size=(40, 3)).astype(np.float32)
    preprocess = fj.Preprocess(size=224, resize=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    head = Affine(jnp.asarray(kernel), jnp.asarray([1e3, 0.0, 0.0], jnp.float32))
    model = colour_model(features=patches_of, head=head, preprocess=preprocess, fingerprint="patches of photographs")
    crops = fj.RandomCrops(per_image=2)
    found = fj.explain(model, list(real_views(100)), 0, crops=crops, **{**SETTINGS, "rank": 25, "batch": 20})
    file = fj.write_report(found, tmp_path)
    text = file.read_text()
    assert text.count('class="photo"') == 100
    assert text.count('<article class="concept') == 25
    assert 1e6 < file.stat().st_size < 5e6


def test_each_photograph_is_in_the_page_once(page, explanation):
    text = page.read_text()
    assert text.count('<image id="picture-') == len(explanation.photographs)
    assert text.count('class="photo"') == len(explanation.photographs)
    assert len(re.findall(r'<div class="open" id="photograph-\d+"', text)) == len(explanation.photographs)


def test_what_is_said_of_a_photograph_is_what_its_concepts_add(explanation):
    found = Photographs(explanation, [])
    column = np.asarray(explanation.model.head.kernel[:, 0])
    added = explanation.codes.mean((1, 2)) * (explanation.dictionary @ column)
    for shot in found.shots:
        marks = shot.marks
        assert [abs(mark.adds) for mark in marks] == sorted((abs(mark.adds) for mark in marks), reverse=True)  # pyright: ignore[reportArgumentType]
        for mark in marks:
            assert mark.adds == pytest.approx(added[shot.number - 1, mark.number - 1], rel=1e-4)
            assert mark.outline
    for concept in explanation.concepts:
        more = found.unfolded(concept)
        own = added[:, concept.index]
        assert [adds for _, adds in more.most] == pytest.approx(np.sort(own[own > 0])[::-1][:4], rel=1e-4)
        assert [adds for _, adds in more.least] == pytest.approx(np.sort(own[own < 0])[:4], rel=1e-4)
        for place, crop in zip(more.places, concept.strongest, strict=False):
            assert place.shot.number == explanation.crops.image[crop] + 1
            assert place.box == tuple(explanation.crops.box[crop])


def test_outlines_lie_on_what_the_classifier_sees(explanation):
    # 32 × 40 pixels, of which the network sees the middle 32 × 32.
    found = Photographs(explanation, [])
    for shot in found.shots:
        assert (shot.height, shot.width) == (32, 40)
        assert shot.seen == pytest.approx((0, 4, 32, 36))
        assert shot.transform == "translate(4.0 0.0) scale(0.5714 0.5714)"
    # The square is where its strongest concept is outlined.
    for shot, pixels in zip(found.shots, pictures(14, 0), strict=True):
        red = next(mark for mark in shot.marks if mark.adds > 0)
        points = np.asarray([pair.split() for pair in re.split("[ML]", red.outline)[1:]], float) * 32 / 56
        ys, xs = np.nonzero(pixels[..., 0] > 200)
        assert ys.min() - 4 <= points[:, 1].mean() <= ys.max() + 4
        assert xs.min() - 4 <= points[:, 0].mean() + 4 <= xs.max() + 4


def test_behind_another_head_some_photographs_are_measured(monkeypatch):
    monkeypatch.setattr(photographs, "_MEASURED", 3)
    model = colour_model(head=Squared(colour_model().head.kernel))
    squared = fj.explain(model, pictures(14, 0), "reddish", **SETTINGS)
    found = Photographs(squared, [])
    measured = [shot for shot in found.shots if shot.marks[0].adds is not None]
    assert [shot.number for shot in measured] == [1, 7, 14]
    shot = measured[0]
    codes = squared.codes[:1]

    def logit(present):
        return float(model.head(jnp.asarray(codes * present) @ squared.dictionary)[0, 0])

    whole = np.ones(4, codes.dtype)
    for mark in shot.marks:
        without = np.where(np.arange(4) == mark.number - 1, 0, whole)
        assert mark.adds == pytest.approx(logit(whole) - logit(without), rel=1e-3)


def test_of_many_photographs_a_hundred_are_shown_those_of_crops_among_them(explanation, monkeypatch):
    monkeypatch.setattr(photographs, "MOST", 8)
    found = Photographs(explanation, [13, 12])
    numbers = [shot.number for shot in found.shots]
    assert len(numbers) == 8
    assert {13, 14} <= set(numbers)
    first = explanation.concepts[0].strongest[0]
    assert explanation.crops.image[first] + 1 in numbers
    assert found.unfolded(explanation.concepts[0]).places


def test_a_single_photograph_unfolds_as_well(tmp_path):
    one = fj.explain(colour_model(), pictures(1, 0), "reddish", **SETTINGS)
    text = fj.write_report(one, tmp_path).read_text()
    assert text.count('class="photo"') == 1
    assert 'href="#photograph-1"' in text


def test_names_of_photographs_are_escaped(tmp_path):
    some = [fj.Photograph(f'<b>"{number}', pixels) for number, pixels in enumerate(pictures(14, 0))]
    text = fj.write_report(fj.explain(colour_model(), some, "reddish", **SETTINGS), tmp_path).read_text()
    assert "<b>" not in text
    assert 'aria-label="&lt;b&gt;&#34;3"' in text


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@browser_only
@pytest.mark.parametrize("script", [True, False])
def test_links_unfold_what_they_lead_to(page, browser, script):
    with screen(browser, java_script_enabled=script, viewport={"width": 1400, "height": 900}) as view:
        view.goto(page.as_uri())
        concept = view.locator("#concept-1 details.more")
        concept.locator("summary").press("Enter")
        assert concept.locator("svg.shot").first.is_visible()
        link = concept.locator("figcaption a").first
        name = link.get_attribute("href")
        link.press("Enter")
        # Chromium unfolds what is around an address by itself.
        view.locator(name).wait_for(state="visible")
        assert view.locator(f"{name} svg.shot").is_visible()
        view.locator(f"{name} a.chip").first.click()
        assert "#concept-" in view.url
        assert view.complaints == []


@browser_only
def test_a_script_folds_by_escape_and_unfolds_again_by_the_same_link(page, browser):
    with screen(browser, viewport={"width": 1400, "height": 900}) as view:
        view.goto(f"{page.as_uri()}#photograph-2")
        opened = view.locator("details.photo", has=view.locator("#photograph-2"))
        view.locator("#photograph-2").wait_for(state="visible")
        view.keyboard.press("Escape")
        view.locator("#photograph-2").wait_for(state="hidden")
        assert opened.locator("summary").evaluate("element => element === document.activeElement")
        view.evaluate("""() => {
            const link = document.createElement("a");
            link.href = "#photograph-2";
            document.querySelector("main").prepend(link);
            link.click();
        }""")
        view.locator("#photograph-2").wait_for(state="visible")
        assert view.complaints == []


@browser_only
@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_unfolded_it_fits_any_screen(page, recursive, browser, width, scheme):
    for file in (page, recursive):
        with screen(browser, viewport={"width": width, "height": 900}, color_scheme=scheme) as view:
            view.goto(file.as_uri())
            view.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
            assert overflow(view) <= 0
            sizes = view.locator(".photo .open svg.shot").evaluate_all(
                "shots => shots.map(shot => shot.getBoundingClientRect().width)"
            )
            assert min(sizes) > 100
            assert view.complaints == []


@browser_only
def test_parts_unfold(recursive, browser):
    with screen(browser) as view:
        view.goto(recursive.as_uri())
        fold = view.locator("#parts details.fold").first
        assert fold.locator("ol.parts").first.is_visible()
        fold.locator("summary").first.click()
        assert fold.locator("ol.parts").first.is_hidden()
        view.locator('a[href="#parts-1"]').first.click()
        assert view.url.endswith("#parts-1")
