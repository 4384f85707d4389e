"""Papers' settings in an explanation, from crops to scores, and what is given beside them."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Squared, colour_features, colour_model, pictures

import face_jax as fj
from face_jax import methods
from face_jax.activation_checks import SignedActivationsError
from face_jax.nmf.matching import matched
from face_jax.pictures.crop_rules import WholePictures

# Wide enough for crops of 64 pixels: 4 × 4 of them, as of the papers' inputs.
MODEL = colour_model(preprocess=fj.Preprocess(size=224, resize=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
SMALL = colour_model()
RED = pictures(8, 0)
SETTINGS = {"target": "reddish", "rank": 3, "batch": 8, "key": 0, "progress": False}


@pytest.fixture(scope="module", params=["face", "craft", "ice"])
def found(request):
    return request.param, fj.explain(MODEL, RED, preset=request.param, **SETTINGS)


@pytest.fixture(scope="module")
def ice():
    return fj.explain(SMALL, RED, preset="ice", **SETTINGS)


def parts(explanation, *, averaged):
    """Activations of the photographs fitted and held out, as the paper's scores see them."""
    maps = explanation.pictures.collected.maps
    maps = maps.mean(axis=(1, 2), keepdims=True) if averaged else maps
    return maps[explanation.pictures.fitted], maps[explanation.pictures.held_out]


def scikit(rows):
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return NMF(3, max_iter=200, random_state=0).fit(rows).components_


def test_each_has_its_own_crops(found):
    name, explanation = found
    crops, count = explanation.crops, len(explanation.pictures.fitted)
    if name == "face":
        assert len(crops) == 16 * count
        assert set((crops.window[:, 2:] - crops.window[:, :2]).ravel().tolist()) == {64}
    elif name == "craft":
        assert crops.window is None
        assert len(crops) > 16 * count
        # The photographs are 32 pixels high.
        assert set((crops.box[:, 2:] - crops.box[:, :2]).ravel().tolist()) == {round(32 * 64 / 224)}
    else:
        # Resized to 224 pixels of the short side, and the middle of the long one kept.
        np.testing.assert_array_equal(crops.box, [[0, 4, 32, 36]] * count)
        assert crops.window is None


def test_as_one_of_several_classes_it_is_what_it_is_alone(found):
    name, alone = found
    settings = {key: value for key, value in SETTINGS.items() if key != "target"}
    several = fj.explain_classes(MODEL, {"reddish": RED}, preset=name, **settings)["reddish"]
    assert several.notes == alone.notes
    assert several.provenance.settings == alone.provenance.settings
    assert several.target == alone.target
    np.testing.assert_allclose(several.dictionary, alone.dictionary, atol=1e-5)
    np.testing.assert_allclose(several.importance.by_paper.per_class, alone.importance.by_paper.per_class, rtol=1e-3)
    assert [row.name for row in several.scores.rows] == [row.name for row in alone.scores.rows]


@pytest.mark.parametrize("name", ["craft", "ice"])
def test_one_bank_for_several_classes_is_found_in_the_crops_or_places_of_all(name):
    settings = {key: value for key, value in SETTINGS.items() if key != "target"}
    shared = fj.explain_classes(SMALL, {"reddish": RED, "bluish": pictures(6, 2)}, shared=True, preset=name, **settings)
    each = list(shared.explanations.values())
    rows = [
        one.pictures.crop_activations
        if name == "craft"
        else one.pictures.collected.maps[one.pictures.fitted].reshape(-1, 14)
        for one in each
    ]
    assert shared.bank is not None
    assert matched(shared.bank, scikit(np.concatenate(rows)))[1] > 0.9999
    for one in each:
        assert (np.diff(one.importance.by_paper.per_class) <= 0).all()
        assert one.notes[0].startswith(f"These are the settings of preset {name}")
        assert any("a bank that 2 classes share" in note for note in one.notes)


def test_each_is_factorized_by_its_own_method(found):
    name, explanation = found
    rows = explanation.pictures.crop_activations
    if name == "face":
        term = fj.Faithfulness(MODEL.head, unit=fj.InMeans())
        objective = fj.SquaredError() + 1e-5 * term
        known = fj.factorize(jnp.asarray(rows), 3, objective=objective, solver=fj.PaperAdam(), start=fj.NNDSVD())
        assert matched(explanation.dictionary, np.asarray(known.dictionary))[1] > 0.9999
        assert explanation.fit.steps == int(known.stats.steps)
        assert explanation.provenance.settings.solver.startswith("PaperAdam(")
        assert "InMeans()" in explanation.provenance.settings.objective
        return
    if name == "ice":
        rows = parts(explanation, averaged=False)[0].reshape(-1, 14)
    known = scikit(rows)
    assert matched(explanation.dictionary, known / np.linalg.norm(known, axis=1, keepdims=True))[1] > 0.999
    assert explanation.provenance.settings.solver.startswith(f"{name.upper()}(max_steps=200")
    assert not explanation.provenance.settings.faithfulness


def test_codes_and_scores_are_by_its_own_rules(found):
    name, explanation = found
    fitted, held_out = parts(explanation, averaged=name == "face")
    rows, concepts = held_out.reshape(-1, 14).astype(np.float64), explanation.dictionary.astype(np.float64)
    if name == "face":
        codes = np.linalg.lstsq(concepts.T, rows.T, rcond=None)[0].T
    else:
        from scipy.optimize import nnls

        codes = np.stack([nnls(concepts.T, row)[0] for row in rows])
    error = ((rows - codes @ concepts) ** 2).sum() / (rows**2).sum()
    assert explanation.scores.own.relative_error == pytest.approx(error, rel=1e-3)
    paper = methods.PUBLISHED[name]
    known = paper.importance(
        MODEL.head,
        fitted,
        paper.inference(fitted, explanation.dictionary),
        explanation.dictionary,
        0,
        jax.random.key(0),
    )
    by_paper = explanation.importance.by_paper
    np.testing.assert_allclose(by_paper.per_class, known, rtol=1e-3, atol=1e-6)
    assert (np.diff(by_paper.per_class) <= 0).all()
    assert by_paper.measure == repr(paper.importance)
    assert explanation.scores.own.gini == pytest.approx(fj.metrics.gini(known), abs=1e-4)


def test_a_note_says_which_it_is_and_in_what_it_differs(found):
    name, explanation = found
    note = explanation.notes[0]
    assert note.startswith(f"These are the settings of preset {name}, {name.upper()} (")
    assert "where the default" in note
    curve, paper = explanation.scores.own.fidelity.deletion.accuracy, methods.PUBLISHED[name]
    assert f"{fj.metrics.c_deletion(curve, paper.deletion):.3f}" in note
    assert "taken in its place: rank=3." in note
    assert explanation.provenance.settings.preset == name
    assert not any("without the faithfulness term" in note for note in explanation.notes)


def test_it_is_saved_loaded_and_drawn(found, tmp_path):
    name, explanation = found
    fj.save(explanation, tmp_path)
    loaded = fj.load(tmp_path, MODEL, images=RED)
    np.testing.assert_array_equal(loaded.importance.by_paper.per_class, explanation.importance.by_paper.per_class)
    assert loaded.provenance.settings.preset == name
    page = fj.write_report(loaded, tmp_path).read_text()
    assert page.count("by the preset's measure") == 3
    assert f"These are the settings of preset {name}" in page
    assert "the preset's own rule for every row" in " ".join(page.split())


def test_without_a_preset_nothing_is_by_one():
    plain = fj.explain(SMALL, RED, faithfulness=None, **SETTINGS)
    assert plain.importance.by_paper is None
    assert plain.provenance.settings.preset is None
    np.testing.assert_array_equal(plain.importance.deciding, plain.importance.sobol.per_class)


@pytest.mark.parametrize(
    ("preset", "given", "said"),
    [
        ("ice", {"rank": 2}, "rank=2"),
        ("ice", {"solver": fj.HALS()}, "solver=HALS("),
        ("ice", {"start": fj.Random()}, "start=Random("),
        ("ice", {"crops": fj.GridCrops()}, "crops=GridCrops("),
        ("face", {"faithfulness": 0.5}, "faithfulness=0.5"),
        ("face", {"faithfulness": None}, "faithfulness=None"),
        ("face", {"faithfulness": "auto", "solver": fj.ADMM()}, "faithfulness='auto'"),
    ],
)
def test_what_is_given_beside_it_wins(preset, given, said):
    crops = {"crops": fj.NativeCrops(SMALL.preprocess, size=8, overlap=0)} if preset == "face" else {}
    many = pictures(20, 0) if given.get("faithfulness") == "auto" else RED
    found = fj.explain(SMALL, many, preset=preset, **(SETTINGS | crops | given))
    assert said in found.notes[0]
    settings, (name, value) = found.provenance.settings, next(iter(given.items()))
    if name == "faithfulness":
        assert (found.fit.path is not None) == (value == "auto")
        if value != "auto":
            assert settings.faithfulness == (value or False)
            assert ("InMeans()" in settings.objective) == (value is not None)
    elif name == "rank":
        assert settings.rank == len(found.concepts) == 2
    else:
        assert getattr(settings, name).startswith(said.partition("=")[2])


def test_a_setting_of_ones_own_is_a_preset(ice):
    own = dataclasses.replace(methods.PUBLISHED["ice"], name="mine", rank=2, source="", differs="")
    found = fj.explain(SMALL, RED, preset=own, **{name: SETTINGS[name] for name in SETTINGS if name != "rank"})
    assert len(found.concepts) == 2
    assert found.notes[0].startswith("These are the settings of preset mine. Concepts")
    assert ice.provenance.settings.crops == repr(WholePictures(SMALL.preprocess))


class Brightest:
    """A researcher's own method: the rows with the largest sums."""

    name = "brightest"

    def __init__(self, *, crops=True):
        self.crops, self.seen = crops, []

    def prepared(self, model, pictures, crop_of):
        self.seen.append((model, pictures, crop_of))
        return self

    def fit(self, activations, rank, key):
        self.seen.append(activations)
        rows = activations.reshape(-1, activations.shape[-1])
        return methods.Bank(5 * rows[np.argsort(-rows.sum(1))[:rank]])


@pytest.mark.parametrize("crops", [True, False])
def test_a_method_of_ones_own_gets_an_explanation_and_a_report(tmp_path, crops):
    method = Brightest(crops=crops)
    preset = dataclasses.replace(methods.PUBLISHED["ice"], name="mine", method=method)
    found = fj.explain(SMALL, RED, preset=preset, **SETTINGS)
    (model, pictures, crop_of), given = method.seen
    assert model is SMALL
    fitted = parts(found, averaged=False)[0]
    np.testing.assert_allclose(pictures.maps, fitted.mean((1, 2), keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(crop_of, np.arange(len(fitted)))
    expected = fitted if not crops else found.pictures.crop_activations[:, None, None]
    np.testing.assert_array_equal(given, expected)
    rows = expected.reshape(-1, 14)
    rows = rows[np.argsort(-rows.sum(1))[:3]]
    assert matched(found.dictionary, rows / np.linalg.norm(rows, axis=1, keepdims=True))[1] > 0.99999
    assert found.fit.of_places == (not crops)
    assert found.fit.result.startswith("brightest ended by its own rule")
    assert found.provenance.settings.solver == "Brightest"
    assert not any("before it converged" in note for note in found.notes)
    assert {row.name for row in found.scores.controls} >= {"random directions", "mean activation and noise"}
    if crops:
        assert "preset mine" in fj.write_report(found, tmp_path).read_text()


@pytest.mark.parametrize(
    ("bank", "said"),
    [
        ({"offset": np.ones(14)}, "has an offset"),
        ({"signed_codes": True}, "has codes of either sign"),
        ({"dictionary": -np.ones((3, 14))}, "has concepts with entries below zero"),
        ({"dictionary": np.ones((2, 14))}, r"mine gives a dictionary of shape \(2, 14\); give \(3, 14\)"),
    ],
)
def test_banks_that_an_explanation_cannot_hold_are_refused_with_the_reason(bank, said):
    class Mine:
        name = "mine"

        def fit(self, activations, rank, key):
            return methods.Bank(**({"dictionary": np.ones((rank, 14))} | bank))

    preset = dataclasses.replace(methods.PUBLISHED["ice"], method=Mine())
    with pytest.raises(ValueError, match=said):
        fj.explain(SMALL, RED, preset=preset, **SETTINGS)


def test_with_signs_apart_concepts_of_a_signed_layer_are_at_least_0():
    model = colour_model(features=lambda images: colour_features(images) - 0.05)
    with pytest.raises(SignedActivationsError, match="preset='ice' finds concepts of at least 0"):
        fj.explain(model, RED, preset="ice", **SETTINGS)
    found = fj.explain(model, RED, preset="ice", signs="apart", **SETTINGS)
    assert (found.dictionary >= 0).all()
    assert found.dictionary.shape == (3, 28)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"preset": "lad"}, "preset='lad' isn't a paper's settings; give one of 'face', 'craft', 'ice'"),
        ({"preset": methods.CRAFT()}, "preset=CRAFT"),
        ({"preset": dataclasses.replace(methods.PUBLISHED["ice"], method=methods.PCA())}, "an explanation can't hold"),
        ({"preset": dataclasses.replace(methods.PUBLISHED["ice"], method=methods.NMF)}, "which isn't a method"),
        (
            {"preset": dataclasses.replace(methods.PUBLISHED["ice"], method=methods.KMeans()), "start": fj.Random()},
            r"has a method of its own \(k-means\), and start of a factorization",
        ),
        ({"preset": "ice", "objective": fj.SquaredError()}, "preset='ice' and objective are both given"),
        ({"preset": "craft", "faithfulness": 1.0}, "preset='craft' has no faithfulness term"),
        ({"preset": "ice", "faithfulness": "auto"}, "preset='ice' has no faithfulness term"),
        ({"preset": "face", "faithfulness": -1.0}, "faithfulness=-1.0"),
        ({"preset": "face"}, "crops of 64 × 64 pixels are the setting of 'face', and the network's input has 16 × 16"),
        ({"preset": "ice", "images": RED[:1]}, "preset='ice' is for photographs of a class"),
        ({"preset": "ice", "rank": 15}, "rank=15 is more than"),
        ({"preset": "face", "model": colour_model(head=Squared(jnp.eye(14, 3)))}, "doesn't average first"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        fj.explain(**({"model": SMALL, "images": RED} | SETTINGS | wrong))
