"""The picture of several concepts: which are shown, in which colours, and where."""

import io

import numpy as np
import pytest

from face_jax.report.coloured import coloured_figure, coloured_pixels, shown_concepts
from face_jax.report.pictures import PALETTE, concept_colour

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
# Concepts in the corners, the last one nowhere.
MAPS = np.zeros((5, 40, 40))
MAPS[0, :10, :10] = 1.0
MAPS[1, :10, 30:] = 3.0
MAPS[2, 30:, :10] = 2.0
MAPS[3, 30:, 30:] = -1.0


def test_the_strongest_are_shown_in_order():
    shown = shown_concepts(MAPS, [1, 2, 3, 4, 5])
    assert [one.number for one in shown] == [2, 3, 1]
    assert [one.share for one in shown] == pytest.approx([1 / 2, 1 / 3, 1 / 6], rel=1e-2)
    assert [one.name for one in shown] == ["concept 2", "concept 3", "concept 1"]
    assert [one.number for one in shown_concepts(MAPS, [1, 2, 3, 4, 5], most=1)] == [2]


def test_strengths_given_decide():
    strengths = np.asarray([5.0, 0.0, 2.0, 9.0, 9.0])
    shown = shown_concepts(MAPS, [1, 2, 3, 4, 5], strengths=strengths, names=["a", "b", "c", "d", "e"])
    # The two strongest have no map above zero.
    assert [(one.name, one.share) for one in shown] == [("a", pytest.approx(5 / 7)), ("c", pytest.approx(2 / 7))]


def test_areas_and_peaks_are_where_the_maps_are():
    for one, corner in zip(shown_concepts(MAPS, [1, 2, 3, 4, 5]), [(0, 1), (1, 0), (0, 0)], strict=True):
        inside = np.zeros((40, 40), bool)
        inside[corner[0] * 30 : corner[0] * 30 + 10, corner[1] * 30 : corner[1] * 30 + 10] = True
        assert inside[one.peak]
        assert (one.area & inside).sum() / (one.area | inside).sum() > 0.9


def test_colours_are_the_reports_and_differ():
    shown = shown_concepts(np.ones((4, 8, 8)), [3, 11, 8, 19])
    colours = {one.number: one.colour for one in shown}
    assert colours == {number: concept_colour(number) for number in (3, 11, 8, 19)}
    assert len(set(colours.values())) == 4


def _difference(first, second):
    """ΔE (CIE 1976) of two colours as `#rrggbb`, as seen with each kind of colour blindness (Viénot et al. 1999)."""
    blind = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }
    found = []
    for matrix in blind.values():
        seen = []
        for colour in (first, second):
            values = np.asarray([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
            linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
            x, y, z = (
                np.asarray([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
                @ np.clip(np.asarray(matrix) @ linear, 0, 1)
                / [0.9505, 1, 1.089]
            )
            f = [np.cbrt(value) if value > 0.008856 else 7.787 * value + 16 / 116 for value in (x, y, z)]
            seen.append([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
        found.append(np.linalg.norm(np.subtract(*seen)))
    return min(found)


def test_the_first_colours_can_be_told_apart_without_red_or_green():
    four = PALETTE[:4]
    # A difference of 2.3 can just be noticed; of 10, at a glance.
    assert min(_difference(a, b) for i, a in enumerate(four) for b in four[:i]) > 10
    # Pure red and a green of its lightness can't, so the measure can fail.
    assert _difference("#ff0000", "#5c8a00") < 25


def test_each_place_has_its_concepts_colour():
    grey = np.full((40, 40, 3), 128, np.uint8)
    shown = shown_concepts(MAPS, [1, 2, 3, 4, 5], smooth=0.0)
    pixels = coloured_pixels(grey, shown).astype(float)
    for one in shown:
        wanted = np.asarray([int(one.colour[at : at + 2], 16) for at in (1, 3, 5)], float)
        painted = pixels[one.peak] - pixels[20, 20]
        toward = wanted - pixels[20, 20]
        assert painted @ toward / np.linalg.norm(painted) / np.linalg.norm(toward) > 0.9
    assert np.ptp(pixels[20, 20]) == 0
    assert (coloured_pixels(PICTURE, ()) == coloured_pixels(PICTURE, ())[..., :1]).all()


def test_the_figure_names_its_concepts():
    figure = coloured_figure(PICTURE, MAPS, [1, 2, 3, 4, 5], title="a cat")
    legend = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert legend == ["concept 2, 50 %", "concept 3, 33 %", "concept 1, 17 %"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["2", "3", "1"]
    written = io.BytesIO()
    figure.savefig(written, dpi=50)
    assert len(written.getvalue()) > 5000


def test_a_picture_without_concepts_says_so():
    figure = coloured_figure(PICTURE, np.zeros((2, 40, 40)), [1, 2])
    assert "none of the concepts" in figure.axes[2].texts[0].get_text()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="maps has 5 concepts, numbers 2; give each one map"):
        shown_concepts(MAPS, [1, 2])
    with pytest.raises(ValueError, match="numbers 5, names 1"):
        shown_concepts(MAPS, [1, 2, 3, 4, 5], names=["a"])
    with pytest.raises(ValueError, match="most=9 can't be told apart by colour; give 1 to 8"):
        shown_concepts(MAPS, [1, 2, 3, 4, 5], most=9)
    with pytest.raises(ValueError, match=r"picture has \(20, 20\) pixels and maps \(40, 40\)"):
        coloured_figure(PICTURE[:20, :20], MAPS, [1, 2, 3, 4, 5])
