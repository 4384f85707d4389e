"""Banks of any method scored alike: the numbers of reports, pictures that weren't fitted, comparisons that go on."""

import dataclasses
import json
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Disguised, Squared, colour_model, pictures

import face_jax as fj
from face_jax import methods, metrics
from face_jax.activations import Collected
from face_jax.evaluation import comparison, kept_results
from face_jax.evaluation.kept_results import Kept

RED, RANK = 0, 3
MODEL = colour_model()
IMAGES = pictures(12, RED)


def collected(model=MODEL, images=IMAGES):
    maps = np.asarray(model.features(jnp.asarray(model.preprocess(images))))
    return Collected(maps, np.asarray(model.head(jnp.asarray(maps))))


SEEN = collected()
BANK = np.abs(np.random.default_rng(0).normal(size=(RANK, 14))).astype(np.float32)
ORDER = np.asarray([0.5, 0.3, 0.2])


@dataclasses.dataclass(frozen=True)
class Brightest:
    """A researcher's own method: the places where the activations' sum is largest."""

    name: str = "brightest places"

    def fit(self, activations, rank, key):
        rows = activations.reshape(-1, activations.shape[-1])
        return methods.Bank(rows[np.argsort(-rows.sum(1))[:rank]])


def test_scores_are_those_of_an_explanation():
    explanation = fj.explain(MODEL, IMAGES, "reddish", rank=RANK, faithfulness=None, key=0)
    of = explanation.pictures
    fitted, held_out = of.collected[of.fitted], of.collected[of.held_out]
    found = fj.score_bank(MODEL, held_out, explanation.dictionary, target="reddish", fitted=fitted)
    own = explanation.scores.own
    for name in ("relative_error", "kl", "l1", "agreement", "gini"):
        np.testing.assert_allclose(getattr(found.score, name), getattr(own, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.score.fidelity.c_insertion, own.fidelity.c_insertion, atol=1e-6)
    np.testing.assert_allclose(found.importance, explanation.importance.sobol.per_class, rtol=1e-3, atol=1e-5)
    assert found.accuracy_of_nothing == explanation.scores.accuracy_of_nothing


def test_photographs_of_the_class_are_taken_with_their_crops():
    given = {"crops": fj.RandomCrops(per_image=3), "key": 0}
    images = [*IMAGES, IMAGES[4], *pictures(2, 1)]
    found = fj.evaluation.pictures_and_crops(MODEL, images, "reddish", **given)
    np.testing.assert_array_equal(found.pictures.maps, SEEN.maps)
    np.testing.assert_array_equal(found.crop_of, np.repeat(np.arange(12), 3))
    assert (found.target, len(found.photographs), found.crops.maps.shape) == (RED, 12, (36, 1, 1, 14))
    assert not found.signed
    copies, others = found.notes
    assert copies.startswith("1 photograph took no part, because pixel for pixel")
    assert others.startswith("2 of 14 photographs took no part, because the model predicts another class")
    # Behind another head maps are whole, of the same crops.
    whole = fj.evaluation.pictures_and_crops(colour_model(head=Squared(MODEL.head.kernel)), images, RED, **given)
    np.testing.assert_allclose(whole.crops.maps.mean((1, 2), keepdims=True), found.crops.maps, rtol=1e-5)
    with pytest.raises(ValueError, match="crops='grid' isn't a rule for crops"):
        fj.evaluation.pictures_and_crops(MODEL, images, crops="grid")


def test_numbers_are_those_of_the_metrics_by_themselves():
    found = fj.score_bank(MODEL, SEEN, BANK, target=RED, importance=ORDER)
    averages = SEEN.maps.mean((1, 2))
    codes = np.asarray(fj.encode(jnp.asarray(averages), jnp.asarray(BANK)))
    rebuilt = codes @ BANK
    assert found.mean_squared_error == pytest.approx(((averages - rebuilt) ** 2).mean(), rel=1e-4)
    logits = np.asarray(MODEL.head(jnp.asarray(rebuilt)[:, None, None]))
    assert found.accuracy == (logits.argmax(1) == RED).mean()
    projected = averages @ BANK.T @ BANK
    said = np.asarray(MODEL.head(jnp.asarray(projected)[:, None, None]))
    assert found.projected_accuracy == (said.argmax(1) == RED).mean()
    # The codes of one solver by two ways in float32.
    expected = dataclasses.astuple(metrics.code_sparsity(codes[:, None, None]))
    assert dataclasses.astuple(found.sparsity) == pytest.approx(expected, rel=1e-5)
    # Behind an affine head the surrogate beside the bias is what the head says of rebuilt activations.
    expected = metrics.surrogate_error(SEEN.logits, codes, BANK @ np.asarray(MODEL.head.kernel))
    assert found.surrogate.own.mae == pytest.approx(expected.mae, rel=1e-4)
    assert found.surrogate_from_offset.own.mae == pytest.approx(np.abs(logits - SEEN.logits).mean(), rel=1e-3)
    assert found.completeness.additivity_error == pytest.approx(0, abs=1e-4)
    table = found.table()
    assert table["c_deletion"] * (RANK + 1) == pytest.approx(table["c_deletion_code"] * (RANK + 2))
    assert table["c_gini_ceiling"] == pytest.approx(1 - 1 / RANK)
    assert all(np.isfinite(value) for value in table.values())


@pytest.mark.parametrize("head", [Disguised(MODEL.head), Squared(MODEL.head.kernel)], ids=["disguised", "squared"])
def test_heads_that_are_not_affine_are_scored_on_maps(head):
    model = colour_model(head=head)
    seen = collected(model)
    found = fj.score_bank(model, seen[:3], BANK, target=RED, fitted=seen[3:7], key=0)
    codes = methods.Bank(BANK).encode(seen.maps[:3])
    np.testing.assert_allclose(found.score.relative_error, metrics.relative_squared_error(seen.maps[:3], codes @ BANK))
    assert np.isnan(found.completeness.bound)
    if isinstance(head, Disguised):
        spread = fj.score_bank(MODEL, SEEN[:3], BANK, target=RED, importance=ORDER, averaged=False)
        assert found.surrogate.own.mae == pytest.approx(spread.surrogate.own.mae, rel=1e-3)
    with pytest.raises(ValueError, match="doesn't average first"):
        fj.score_bank(model, seen[:3], BANK, target=RED, importance=ORDER, averaged=True)


def test_the_offset_belongs_to_what_is_rebuilt_and_is_where_insertion_begins():
    bank = methods.PCA().fit(SEEN.maps[:8], RANK, jax.random.key(0))
    found = fj.score_bank(MODEL, SEEN[8:], bank, target=RED, fitted=SEEN[:8])
    averages = SEEN.maps[8:].mean((1, 2))
    rebuilt = bank.decode(bank.encode(averages))
    np.testing.assert_allclose(found.score.relative_error, metrics.relative_squared_error(averages, rebuilt), rtol=1e-3)
    # The mean of red pictures is red already.
    assert found.accuracy_of_nothing == 1
    assert found.table()["c_insertion_ceiling"] == 1


def test_each_methods_own_inference_and_importance_are_had_by_asking():
    bank = methods.ICE().fit(SEEN.maps[:8], RANK, jax.random.key(0))
    assert bank.importance is not None
    own = fj.score_bank(MODEL, SEEN[8:], bank, target=RED, fitted=SEEN[:8], importance=bank.importance)
    slopes = np.abs(bank.dictionary @ np.asarray(MODEL.head.kernel)[:, RED])
    np.testing.assert_allclose(own.importance, slopes, rtol=1e-4)
    least = fj.score_bank(MODEL, SEEN[8:], bank, target=RED, fitted=SEEN[:8], inference=methods.LeastSquares())
    assert least.score.relative_error <= own.score.relative_error + 1e-6


def test_photographs_are_kept_where_the_model_predicts_the_class():
    mixed = np.concatenate([IMAGES[:5], pictures(3, 1)])
    found = fj.score_bank(MODEL, mixed, BANK, target="reddish", importance=ORDER)
    assert found.images == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fitted": None}, "fitted=None, and importance is to be measured"),
        ({"fitted": SEEN[3:6]}, "1 of 4 pictures are among those fitted"),
        ({"importance": np.ones(2), "fitted": None}, "importance has 2 numbers for 3 concepts"),
        ({"importance": "sobol"}, "importance"),
        ({"importance": methods.BySobol}, "importance"),
        ({"inference": "nnls"}, "inference='nnls'"),
        ({"target": "blue-green"}, "blue-green"),
        ({"pictures": SEEN[:0]}, "pictures has no pictures"),
        ({"pictures": Collected(SEEN.maps, SEEN.logits[:, :2])}, "logits of 2 classes"),
        ({"bank": np.ones((2, 5), np.float32), "importance": np.ones(2)}, "14 channels and dictionary has 5"),
        ({"averaged": "no"}, "averaged"),
        ({"importance": lambda *_: np.ones(7)}, "importance has 7 numbers for 3 concepts"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(change, message):
    given = {"pictures": SEEN[:4], "bank": BANK, "target": RED, "fitted": SEEN[4:]} | change
    with pytest.raises(ValueError, match=message):
        fj.score_bank(MODEL, **given)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    given = {"target": RED, "rank": RANK, "folds": 3, "starts": 2, "folder": folder, "key": 0}
    return fj.compare_methods(MODEL, SEEN, [methods.KMeans(), Brightest()], **given), folder, given


def test_a_method_of_ones_own_is_in_the_table_with_all_scores_and_controls(compared):
    found = compared[0]
    rows = {row["method"]: row for row in found.table()}
    assert list(rows) == ["k-means", "brightest places", *(control.name for control in methods.CONTROLS)]
    assert [row["control"] for row in rows.values()] == [False, False, True, True, True]
    assert all(row.keys() == rows["k-means"].keys() for row in rows.values())
    # What a page says of it: what was explained, and which controls learned nothing.
    assert (found.model, found.layer, found.target, found.exclusive) == ("colours", "patches", "reddish", True)
    assert [each.learned for each in found.results] == [True, True, False, False, False]
    assert methods.FACE(0.0).learned
    apart = found["k-means"].difference(found["random directions"], "kl")
    assert apart.mean == pytest.approx(found["k-means"].mean("kl") - found["random directions"].mean("kl"))
    own = found["brightest places"]
    assert own.insertion.shape == (3, RANK + 1)
    values = [fold["kl"] for fold in own.folds]
    assert rows["brightest places"]["kl"] == pytest.approx(np.mean(values))
    assert rows["brightest places"]["kl_std"] == pytest.approx(np.std(values, ddof=1))
    # It draws nothing, so that other keys find the same.
    assert own.over_starts.mean == pytest.approx(1)
    assert found["random directions"].over_starts.mean < 0.999
    text = found.markdown()
    assert "| *random directions* |" in text
    assert f"{RANK / (RANK + 1):.3f}" in text.splitlines()[-1]
    with pytest.raises(ValueError, match="isn't a method that was compared"):
        found["other"]
    with pytest.raises(ValueError, match="isn't measured"):
        found.markdown(["beauty"])


def test_folds_are_scored_on_pictures_that_were_not_fitted(compared):
    """Each fold's numbers are those of `score_bank` for some bank that was fitted without it."""
    seen_by, model = [], MODEL

    class Spy:
        name = "spy"

        def fit(self, activations, rank, key):
            seen_by.append(len(activations))
            return methods.Bank(np.eye(rank, 14, dtype=np.float32))

    fj.compare_methods(model, SEEN, [Spy()], target=RED, rank=RANK, folds=3, starts=1, controls=(), key=0)
    assert seen_by == [8, 8, 8]


def test_a_comparison_that_was_stopped_goes_on_from_its_files(compared, monkeypatch):
    first, folder, given = compared
    files = sorted(folder.glob("*.json"))
    assert len(files) == 5 * (3 + 2)
    damaged = next(file for file in files if file.name.startswith("k-means"))
    whole = json.loads(damaged.read_text())
    damaged.write_text(damaged.read_text()[:100])
    fj.compare_methods(MODEL, SEEN, [methods.KMeans(), Brightest()], **given)
    assert json.loads(damaged.read_text())["dictionary"] == whole["dictionary"]

    def forbidden(*given):
        raise AssertionError("fitted again")

    monkeypatch.setattr(comparison, "_fit", forbidden)
    again = fj.compare_methods(MODEL, SEEN, [methods.KMeans(), Brightest()], **given)
    np.testing.assert_equal(again.table()[1], first.table()[1])
    np.testing.assert_array_equal(again["brightest places"].insertion, first["brightest places"].insertion)
    # Other settings are other results.
    with pytest.raises(AssertionError, match="fitted again"):
        fj.compare_methods(MODEL, SEEN, [Brightest()], **{**given, "rank": 2}, controls=())


def test_an_edited_method_and_another_measure_are_other_results(tmp_path, monkeypatch):
    def ones(share):
        # Two functions that are written alike.
        return lambda head, maps, codes, dictionary, target, key: share * np.arange(1.0, 1 + len(dictionary))

    given = {"target": RED, "rank": 2, "folds": 2, "starts": 1, "controls": (), "key": 0}
    kept = {**given, "folder": tmp_path}
    up, down = (
        fj.compare_methods(MODEL, SEEN, [Brightest()], importance=ones(share), **kept).results[0] for share in (1, -1)
    )
    assert (up.insertion != down.insertion).any()

    def darkest(self, activations, rank, key):
        rows = activations.reshape(-1, activations.shape[-1])
        return methods.Bank(rows[np.argsort(rows.sum(1))[:rank]] + 0.1)

    fj.compare_methods(MODEL, SEEN, [Brightest()], **kept)
    monkeypatch.setattr(Brightest, "fit", darkest)
    edited = fj.compare_methods(MODEL, SEEN, [Brightest()], **kept)
    assert edited.table()[0]["kl"] == fj.compare_methods(MODEL, SEEN, [Brightest()], **given).table()[0]["kl"]
    # Another face_jax, too.
    count = len(list(tmp_path.iterdir()))
    monkeypatch.setattr(kept_results, "package_digest", lambda: b"edited")
    fj.compare_methods(MODEL, SEEN, [Brightest()], **kept)
    assert len(list(tmp_path.iterdir())) == count + 2


def test_a_method_that_cannot_be_told_from_others_is_refused_where_results_are_kept(tmp_path):
    class Locked:
        name = "locked"
        lock = threading.Lock()
        fit = Brightest.fit

    given = {"target": RED, "rank": 2, "folds": 2, "controls": (), "folder": tmp_path}
    with pytest.raises(ValueError, match=r"'locked', has a lock .* can't be taken apart"):
        fj.compare_methods(MODEL, SEEN, [Locked()], **given)
    assert not list(tmp_path.iterdir())


def test_kept_results_come_back_as_they_were(tmp_path):
    kept = Kept(tmp_path / "new")
    value = {
        "numbers": {"a": 0.1, "b": float("nan")},
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "c": True,
    }
    kept("x", ["1"], lambda: value)
    back = kept("x", ["1"], lambda: pytest.fail("computed again"))
    assert back["numbers"]["a"] == 0.1
    assert np.isnan(back["numbers"]["b"])
    assert back["matrix"].dtype == np.float32
    np.testing.assert_array_equal(back["matrix"], value["matrix"])
    assert kept("x", ["2"], lambda: {"c": 2}) == {"c": 2}


def test_methods_that_take_crops_get_those_of_the_pictures_fitted_only():
    crops, crop_of, seen_by = Collected(SEEN.maps[:, :2, :2], SEEN.logits), np.arange(12)[::-1].copy(), {}

    @dataclasses.dataclass(frozen=True)
    class Spy:
        crops: bool
        name: str

        def prepared(self, model, pictures, crop_of):
            seen_by[self.name, "pictures"], seen_by[self.name, "crop_of"] = pictures.maps, crop_of
            return self

        def fit(self, activations, rank, key):
            seen_by[self.name] = activations
            return methods.Bank(np.eye(rank, 14, dtype=np.float32))

    spies = [Spy(True, "crops"), Spy(False, "pictures")]
    given = {"target": RED, "rank": 2, "folds": 2, "starts": 1, "controls": (), "crops": crops, "crop_of": crop_of}
    fj.compare_methods(MODEL, SEEN, spies, **given, key=0)
    assert seen_by["pictures"].shape == (6, *SEEN.maps.shape[1:])
    assert seen_by["crops"].shape == (6, 2, 2, 14)
    training = [
        number for number, maps in enumerate(SEEN.maps) if any((maps == one).all() for one in seen_by["pictures"])
    ]
    # Crop i is of picture 11 − i, and pictures are counted among those fitted.
    of_crops = [
        11 - number for number, maps in enumerate(crops.maps) if any((maps == one).all() for one in seen_by["crops"])
    ]
    assert sorted(of_crops) == training
    np.testing.assert_array_equal(np.asarray(training)[seen_by["crops", "crop_of"]], of_crops)
    np.testing.assert_allclose(seen_by["crops", "pictures"][:, 0, 0], SEEN.maps[training].mean((1, 2)), rtol=1e-6)


def test_stability_over_starts_is_about_random_starts():
    """Fits that begin always at the same place would be the same again, whatever other starts find."""
    begun = []

    @dataclasses.dataclass(frozen=True)
    class Deterministic:
        name: str = "deterministic"
        start: str = "usual"

        def started_at_random(self):
            return dataclasses.replace(self, start="random")

        def fit(self, activations, rank, key):
            begun.append(self.start)
            drawn = np.random.default_rng(len(begun)).random((rank, 14)) if self.start == "random" else np.eye(rank, 14)
            return methods.Bank(drawn.astype(np.float32))

    found = fj.compare_methods(
        MODEL, SEEN, [Deterministic()], target=RED, rank=2, folds=2, starts=3, controls=(), key=0
    )
    assert begun == ["usual"] * 2 + ["random"] * 3
    assert found["deterministic"].over_folds.mean == pytest.approx(1)
    assert len(found["deterministic"].over_starts.pairs) == 3
    assert found["deterministic"].over_starts.mean < 0.99


def test_the_floor_of_concepts_about_an_offset_is_that_of_rows_about_it(tmp_path):
    """Raw activations have their mean in common, which concepts about it don't have."""

    @dataclasses.dataclass(frozen=True)
    class AboutMean:
        offset: float | None
        name: str = "about the mean"

        def fit(self, activations, rank, key):
            mean = None if self.offset is None else self.offset * SEEN.maps.mean((0, 1, 2))
            return methods.Bank(np.eye(rank, 14, dtype=np.float32), offset=mean, signed_codes=True)

    given = {"target": RED, "rank": 2, "folds": 2, "starts": 2, "controls": (), "key": 3, "folder": tmp_path}
    rows, floors = SEEN.maps.mean((1, 2)), {}
    for _ in range(2):  # computed, then read
        for offset, about in ((None, rows), (1.0, rows - rows.mean(0))):
            found = fj.compare_methods(MODEL, SEEN, [AboutMean(offset)], **given).results[0]
            banks = [np.eye(2, 14)] * 2
            expected = metrics.stability(banks, rows=about, either_sign=True, key=3).floor
            assert found.over_folds.floor == pytest.approx(expected, abs=1e-5)
            assert found.over_starts.floor == pytest.approx(expected, abs=1e-5)
            floors[offset] = found.over_folds.floor
    assert floors[1.0] < floors[None]


def test_face_takes_part_with_the_models_head_and_the_folds_pictures():
    method = methods.FACE(1.0, solver=fj.ADMM(max_steps=5))
    found = fj.compare_methods(
        MODEL, SEEN, [method], target=RED, rank=2, folds=2, starts=1, controls=(), own=True, key=0
    )
    assert np.isfinite(found["FACE"].mean("kl"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "methods is empty"),
        ({"methods": [methods.NMF(), methods.NMF()]}, "'NMF' twice"),
        ({"methods": [methods.NMF]}, "isn't a method"),
        ({"methods": ["NMF"]}, "isn't a method"),
        ({"methods": methods.NMF()}, "methods="),
        ({"folds": 1}, "folds=1"),
        ({"folds": 13}, "folds=13 of 12 pictures"),
        ({"starts": 0}, "starts=0"),
        ({"crop_of": np.arange(3)}, "crop_of is given and crops isn't"),
        ({"crops": SEEN}, "crop_of has shape"),
        ({"crops": SEEN, "crop_of": np.full(12, 12)}, "beyond the 12"),
        ({"crops": Collected(SEEN.maps[..., :5], SEEN.logits), "crop_of": np.arange(12)}, "5 channels and pictures 14"),
        ({"importance": "sobol"}, "importance='sobol'"),
        ({"pictures": SEEN[np.asarray([0, 1, 0])], "folds": 2}, "there twice, the first two are 0 and 2"),
        ({"methods": [dataclasses.replace(methods.RandomDirections(), name="x")], "rank": 0}, "rank=0"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused_before_any_fit(change, message):
    given = {"pictures": SEEN, "methods": [Brightest()], "target": RED, "rank": 2, "folds": 3} | change
    with pytest.raises(ValueError, match=message):
        fj.compare_methods(MODEL, **({"controls": ()} | given))


def test_a_rank_that_one_method_refuses_is_refused_before_any_fit(monkeypatch):
    monkeypatch.setattr(comparison, "_fit", lambda *given: pytest.fail("fitted"))
    given: dict[str, Any] = {"target": RED, "rank": 9, "folds": 3, "controls": ()}
    with pytest.raises(ValueError, match="rank=9 is more than k-means finds in 8 rows of 14 channels; give at most 8"):
        fj.compare_methods(MODEL, SEEN, [methods.NMF(), methods.KMeans()], **given)
    with pytest.raises(ValueError, match=r"rank=15 is more than PCA finds in \d+ rows of 14 channels; give at most 14"):
        fj.compare_methods(MODEL, SEEN, [methods.PCA(places=True)], **{**given, "rank": 15})
    crops, crop_of = Collected(SEEN.maps[:, :2, :2], SEEN.logits), np.repeat(np.arange(4), 3)
    with pytest.raises(ValueError, match=r"rank=9 is more than sparse autoencoder finds in \d rows"):
        fj.compare_methods(MODEL, SEEN, [methods.SparseAutoencoder()], crops=crops, crop_of=crop_of, **given)


def test_banks_of_another_shape_than_asked_for_are_refused():
    class Stubborn:
        name = "stubborn"

        def fit(self, activations, rank, key):
            return methods.Bank(np.ones((rank + 1, 14), np.float32))

    with pytest.raises(ValueError, match=r"stubborn gives a dictionary of shape \(3, 14\); give \(2, 14\)"):
        fj.compare_methods(MODEL, SEEN, [Stubborn()], target=RED, rank=2, folds=2, controls=())
