"""The papers' tables: methods of one's own, controls, real data sets' folders, heads for other labels."""

import dataclasses
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax import methods, metrics
from face_jax.activations import Collected, collect_crops, pooled
from face_jax.evaluation import comparison
from face_jax.nmf import encode
from face_jax.support.cache import no_cache
from face_jax.support.contents import contents_digest

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent.parent / "benchmarks"
RED, RANK = 0, 3


@dataclasses.dataclass(frozen=True)
class Brightest:
    """A researcher's own method: the places where the activations' sum is largest."""

    name: str = "brightest places"

    def fit(self, activations, rank, key):
        rows = activations.reshape(-1, activations.shape[-1])
        return methods.Bank(rows[np.argsort(-rows.sum(1))[:rank]])


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def of(name):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def red():
    """Twelve pictures of the toy classifier, three crops of each."""
    model = colour_model()
    photographs = list(fj.photographs(pictures(12, RED)))
    maps = np.asarray(model.features(jnp.asarray(model.preprocess(photographs))))
    seen = Collected(maps, np.asarray(model.head(jnp.asarray(maps))))
    boxes = of("papers.materials").boxes_of(photographs, fj.RandomCrops(per_image=3))
    crops = collect_crops(model, photographs, boxes, keep=pooled)
    network = of("networks").Network("toy", None, model)
    return of("papers.materials").Material(
        "squares", "reddish", RED, network, photographs, seen, boxes, crops, no_cache
    )


@pytest.fixture
def asked(tmp_path):
    return of("papers.runs").Asked(tmp_path / "kept", RANK, 2, 1, (0,), True)


@pytest.fixture
def few(monkeypatch):
    """Two methods instead of all, which would be compiled for the toy's shapes."""
    for name in ("tables_of_scores", "tables_of_settings", "tables_of_lambda"):
        chosen = lambda materials, asked: [methods.NMF(), *asked.methods]  # noqa: E731
        monkeypatch.setattr(of(f"papers.{name}"), "family", chosen)


def test_a_method_of_ones_own_is_in_the_tables_beside_controls_and_ceilings(red, asked, few, tmp_path):
    asked = dataclasses.replace(asked, methods=(Brightest(),))
    names = ["quality", "faithfulness", "curves", "ranking"]
    texts = of("paper_tables").run(names, asked, [red], tmp_path / "out")
    record = {}
    for name, text in zip(names[:3], texts, strict=False):
        for row in ("| NMF |", "| brightest places |", "| *random directions* |", "| *mean activation and noise* |",
                    "| *NNDSVD start, no steps taken* |", "| *FACE with λ = 0* |"):  # fmt: skip
            assert row in text
        assert "accuracy at U = 0" in text
        record = json.loads((tmp_path / "out" / f"squares-toy-{name}.json").read_text())
        assert (tmp_path / "out" / f"squares-toy-{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert "| ceiling |" in texts[1]
    assert record["settings"]["versions"]["jax"]
    own = next(row for row in record["rows"] if row["method"] == "brightest places")
    direct = fj.compare_methods(
        red.model, red.pictures, [Brightest()], target=RED, rank=RANK, folds=2, starts=1, controls=(), key=0,
        crops=red.crops, crop_of=red.crop_of,
    )  # fmt: skip
    for number in ("kl", "relative_error", "c_insertion", "c_deletion"):
        assert own[number] == pytest.approx(direct["brightest places"].mean(number), rel=1e-5)
        assert own[f"{number}_std"] == pytest.approx(direct["brightest places"].std(number), rel=1e-4, abs=1e-9)


def test_a_table_that_was_stopped_goes_on(red, asked, few, tmp_path, monkeypatch):
    asked = dataclasses.replace(asked, methods=(Brightest(),))
    (first,) = of("paper_tables").run(["quality"], asked, [red], tmp_path / "out")

    def fails(*given):
        raise AssertionError("fitted again")

    monkeypatch.setattr(comparison, "_fit", fails)
    (second,) = of("paper_tables").run(["quality"], asked, [red], tmp_path / "out")
    assert second == first


def test_the_kl_term_is_told_in_differences_to_no_term(red, asked, tmp_path):
    seen = lambda material: material.crops.maps[:, 0, 0]  # noqa: E731
    (text,) = of("paper_tables").run(["kl-term"], asked, [red], tmp_path / "out", seen=seen)
    record = json.loads((tmp_path / "out" / "squares-toy-kl-term.json").read_text())
    zero, *others = [row for row in record["rows"] if not row["control"]]
    assert zero["method"] == "λ = 0 of balance"
    assert zero["kl_difference"] == "0"
    for row in others:
        apart = np.asarray(row["kl_runs"]) - zero["kl_runs"]
        # Two runs: Student's t has one degree of freedom, whose quantile is tan(0.475 π).
        half = np.tan(0.475 * np.pi) * apart.std(ddof=1) / np.sqrt(2)
        assert row["kl_difference"] == f"{apart.mean():+.3f} ± {half:.3f}"
    assert "coherence" in text


def test_what_a_search_chose_is_told_beside_the_balance_and_as_a_share_of_nmf(red, asked, tmp_path, monkeypatch):
    lambdas = of("papers.tables_of_lambda")
    # A search needs more photographs; what's told of its results is the same.
    monkeypatch.setattr(methods, "FACE", lambda name: methods.NMF(name=name, start=fj.Random()))
    monkeypatch.setattr(lambdas, "AtShare", lambda share, label: methods.NMF(name=label))
    (text,) = of("paper_tables").run(["searched"], asked, [red], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "squares-toy-searched.json").read_text())
    kl = {row["method"]: row["kl"] for row in record["rows"]}
    assert len(kl) == 3 + len(of("papers.runs").CONTROLS)
    for row in record["rows"]:
        ratio = f"{kl[row['method']] / kl['NMF']:.2f}"
        assert row["kl_of_nmf"] == f"{ratio} ({ratio} to {ratio})"
    assert "| FACE, λ searched |" in text


def test_orders_are_those_of_what_can_be_told_apart():
    numbers = ("relative_error", "kl", "agreement", "c_insertion", "c_deletion", "c_gini")
    noise, apart = np.random.default_rng(0).normal(size=(3, 10)) * 1e-2, np.tile([0.02, -0.01, -0.02, 0.01, 0.01], 2)

    def row(name, control, runs):
        return {"method": name, "control": control, **{f"{number}_runs": list(runs) for number in numbers}}

    found = [
        row("third", False, 0.5 + noise[0]), row("first", False, 0.2 + noise[1]),
        # The same to rounding, and the same within the interval.
        row("twin", False, (0.2 + noise[1]) * (1 + 1e-6)), row("near", False, 0.2 + noise[1] + apart),
        row("control", True, 0.1 + noise[2]),
    ]  # fmt: skip
    made = of("papers.tables_of_settings").ranked(found, (0, 1), 5)
    kl = next(each for each in made.rows if each["method"].startswith("KL"))
    assert kl["distinct"] == "4 of 5"
    # Of six pairs all but first and near.
    assert (kl["apart"], kl["same"]) == ("5 of 6", "5 of 5")
    for best in (kl["best0"], kl["best1"]):
        assert sorted(best.split(", ")) == ["first = twin", "near"]
    gini = next(each for each in made.rows if each["method"].startswith("C-Gini"))
    assert (gini["best0"], gini["best1"]) == ("third", "third")


def test_at_the_balance_both_parts_are_equally_large(red):
    own = of("papers.own_methods")
    dictionary = np.abs(np.random.default_rng(0).normal(size=(RANK, 14))).astype(np.float32)
    rows = np.concatenate([each.maps.mean(axis=(1, 2)) for each in (red.crops, red.pictures)])
    rebuilt = np.asarray(encode(jnp.asarray(rows), jnp.asarray(dictionary))) @ dictionary
    logits = [np.asarray(red.model.head(jnp.asarray(each[-12:])[:, None, None])) for each in (rows, rebuilt)]
    kl = metrics.certificates(logits[0], logits[1]).kl.sum()
    found = own.balance(red.model.head, rows, red.pictures.maps, dictionary, fj.ForwardKL())
    assert found * kl == pytest.approx(((rows - rebuilt) ** 2).sum() / 2, rel=1e-4)


def test_a_share_of_the_balance_keeps_predictions_more_than_none(red):
    own, kl = of("papers.own_methods"), []
    averages = dataclasses.replace(red.pictures, maps=red.pictures.maps.mean(axis=(1, 2), keepdims=True))
    for share in (0.0, 1.0):
        method = own.AtShare(share).prepared(red.model, averages, red.crop_of)
        bank = method.fit(red.crops.maps, 2, jax.random.key(0))
        rebuilt = bank.decode(bank.encode(averages.maps))
        said = [np.asarray(red.model.head(jnp.asarray(each))) for each in (averages.maps, rebuilt)]
        kl.append(metrics.certificates(said[0], said[1]).kl.mean())
    assert kl[1] < kl[0]


def test_a_share_of_the_balance_is_of_what_the_outputs_mean(red):
    own, rules = of("papers.own_methods"), of("papers.tables_of_lambda")._rules
    model = dataclasses.replace(red.model, outputs=fj.MultiLabel())
    bank = own.AtShare(1.0).prepared(model, red.pictures, red.crop_of).fit(red.crops.maps, 2, jax.random.key(0))
    assert "SigmoidKL" in repr(bank.inference.objective)
    material = dataclasses.replace(red, network=dataclasses.replace(red.network, model=model))
    asked = of("papers.runs").Asked(pathlib.Path(), 2, 2, 1, (0,), True)
    (by,) = rules(asked)["objective, balance"](material).values()
    assert "SigmoidKL" in repr(by)


def test_every_rule_is_tried_on_banks_that_are_fitted_once(red, asked, few, tmp_path, monkeypatch):
    fits = []
    fit = Brightest.fit
    monkeypatch.setattr(Brightest, "fit", lambda self, *given: fits.append(0) or fit(self, *given))
    asked = dataclasses.replace(asked, methods=(Brightest(),), quick=False)
    of("paper_tables").run(["inference"], asked, [red], tmp_path)
    found = json.loads((tmp_path / "squares-toy-inference.json").read_text())["rows"]
    assert len(fits) == 2
    for name in ("brightest places", "random directions"):
        least, some, more = (row for row in found if row["method"].startswith(name))
        # The more predictions weigh, the better they are kept, and the worse activations are rebuilt.
        assert least["kl"] > some["kl"] > more["kl"]
        assert least["relative_error"] < some["relative_error"] < more["relative_error"]


def test_coherence_is_that_of_the_strongest_crops(red):
    part = np.asarray([0, 1, 2])
    dictionary = np.eye(14, dtype=np.float32)[:1]
    strength = red.crops.maps[:, 0, 0, 0]
    # Each picture's crop with the most of the concept points the one way, and all others the other way.
    strongest = [np.flatnonzero(red.crop_of == picture)[strength[red.crop_of == picture].argmax()] for picture in part]
    seen = np.full((len(strength), 2), [-1.0, 0.0])
    seen[strongest] = [3.0, 0.0]
    found, floor = of("papers.tables_of_lambda").coherence(red, seen, dictionary, part)
    assert found == pytest.approx(1)
    # Two crops of different pictures are alike in 3 · 1 + 3 · 2 · 2 of 27 pairs, and opposite in the others.
    assert floor == pytest.approx((15 - 12) / 27)


def picture(path, colour=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(path)


def test_imagenet_may_have_wordnets_or_classes_names_under_val(tmp_path):
    read = of("papers.photographs").imagenet
    for number, folder in enumerate(("n03028079", "val/n02102040", "val/golf_ball", "val/other")):
        picture(tmp_path / folder / "a.JPEG", number)
    found = read(tmp_path, tmp_path)
    assert found.labels == ("English springer", "church", "golf ball")
    assert [file.parent.name for file in found.files] == ["n02102040", "n03028079", "golf_ball"]
    np.testing.assert_array_equal(found.has, np.eye(3, dtype=bool))
    assert found.of(2) == [tmp_path / "val/golf_ball/a.JPEG"]
    with pytest.raises(SystemExit, match=r"n03028079/….JPEG"):
        read(tmp_path / "val" / "other", tmp_path)


def test_of_coco_photographs_are_taken_with_one_of_the_five_classes(tmp_path):
    read = of("papers.photographs").coco
    with pytest.raises(SystemExit, match=r"annotations/instances_val2017\.json"):
        read(tmp_path, tmp_path)
    names = {1: "person", 7: "train", 28: "umbrella"}
    shown = {10: [1, 7], 11: [7, 28], 12: [28, 28], 13: [1]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps({
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "images": [{"id": image, "file_name": f"{image}.jpg"} for image in shown],
        "annotations": [{"image_id": image, "category_id": c} for image, each in shown.items() for c in each],
    }))  # fmt: skip
    (tmp_path / "val2017").mkdir()
    found = read(tmp_path, tmp_path)
    assert found.labels == ("train", "umbrella")
    assert [file.name for file in found.files] == ["10.jpg", "12.jpg"]
    np.testing.assert_array_equal(found.has, np.eye(2, dtype=bool))


def test_of_celeba_faces_are_taken_with_exactly_one_attribute_or_all(tmp_path):
    read = of("papers.photographs").celeba
    with pytest.raises(SystemExit, match=r"list_attr_celeba\.txt"):
        read(tmp_path, tmp_path)
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "list_attr_celeba.txt").write_text(
        "3\nBald Gray_Hair Black_Hair Blond_Hair Wearing_Hat\n"
        "1.jpg  1 -1  1 -1 -1\n2.jpg -1  1  1 -1 -1\n3.jpg -1 -1 -1 -1  1\n4.jpg -1 -1 -1 -1 -1\n"
    )
    found = read(tmp_path, tmp_path)
    assert [file.name for file in found.files] == ["1.jpg", "3.jpg"]
    assert [found.labels[column] for column in found.has.argmax(axis=1)] == ["Black_Hair", "Wearing_Hat"]
    every = of("papers.photographs").celeba_as_labels(tmp_path, tmp_path)
    assert (found.multi_label, every.multi_label) == (False, True)
    assert len(every.files) == 4
    assert every.has.sum(axis=1).tolist() == [1, 2, 1, 0]


def labelled(*, both=False):
    images = [*pictures(10, 0, seed=1), *pictures(10, 1, seed=2)]
    has = np.repeat(np.eye(2, dtype=bool), 10, axis=0)
    if both:
        images += [np.maximum(*pair) for pair in zip(pictures(10, 0, seed=3), pictures(10, 1, seed=4), strict=True)]
        has = np.concatenate([has, np.ones((10, 2), bool)])
    return of("papers.photographs").Labelled("squares", ("red", "green"), images, has, "drawn", both)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_head_is_trained_for_other_labels(tmp_path, multi_label):
    plain = colour_model()
    # Like torch's, which can't be traced.
    concrete = dataclasses.replace(plain, features=lambda images: plain.features(np.asarray(images)))
    network = of("networks").Network("toy", None, concrete)
    given = labelled(both=multi_label)
    found = of("papers.heads").train(network, given, tmp_path, share=0.6)
    assert found.accuracy["of all"] == 1
    assert len(found.others.files) == round(0.4 * len(given.files))
    model = found.network.model
    assert model.classes == ("red", "green")
    logits = np.asarray(model.head(model.features(jnp.asarray(model.preprocess(list(found.others.files))))))
    np.testing.assert_array_equal(model.outputs.predicted(logits), found.others.has)


def test_training_that_was_stopped_ends_where_it_would_have(tmp_path, monkeypatch):
    network, heads = of("networks").Network("toy", None, colour_model()), of("papers.heads")

    def kernel(folder, epochs):
        return np.asarray(heads.train(network, labelled(), tmp_path / folder, epochs=epochs).network.model.head.kernel)

    steps, begun = heads._steps, []

    def stopped(*given):
        if begun:
            raise KeyboardInterrupt
        begun.append(given)
        return steps(*given)

    # The same training, whichever function is put in its place.
    monkeypatch.setattr(heads, "contents_digest", lambda value, name: contents_digest(value[:-1], name))
    monkeypatch.setattr(heads, "_steps", stopped)
    with pytest.raises(KeyboardInterrupt):
        kernel("stopped", 100)
    ran = []
    monkeypatch.setattr(heads, "_steps", lambda *given: ran.append(given[4]) or steps(*given))
    whole, again = kernel("whole", 100), kernel("stopped", 100)
    np.testing.assert_array_equal(whole, again)
    assert ran == [50, 50, 50]
    # Fewer epochs are another head, and a file that was cut off counts as none.
    assert np.abs(kernel("stopped", 10) - whole).max() > 1e-3
    for file in (tmp_path / "stopped" / "heads").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(kernel("stopped", 100), whole)


def test_what_is_asked_for_and_is_not_there_is_an_error_that_names_what_is(tmp_path):
    tables = of("paper_tables")
    settings = lambda *given: tables.settings_of(tables.parsed(["--data", str(tmp_path), *given]))  # noqa: E731
    assert [one.labels for one in settings()] == [("cat",)]
    with pytest.raises(SystemExit, match=r"--settings coco: .* give the data set's folder by --coco FOLDER"):
        settings("--settings", "coco")
    picture(tmp_path / "n03028079" / "a.JPEG")
    picture(tmp_path / "n03445777" / "a.JPEG")
    there = ("--imagenet", str(tmp_path))
    with pytest.raises(SystemExit, match=r"--labels 'chruch': .* there are 'church', 'golf ball'"):
        settings(*there, "--labels", "golf ball", "chruch")
    assert settings(*there, "--labels", "church")[0].setting == "ImageNet"


@pytest.mark.parametrize("table", ["rank", "patch"])
def test_figures_along_a_number_have_methods_of_ones_own(red, asked, monkeypatch, table):
    def seen(asked, materials, chosen, *settings):
        raise InterruptedError(", ".join(each.name for each in chosen))

    settings = of("papers.tables_of_settings")
    monkeypatch.setattr(settings, "compared", seen)
    monkeypatch.setattr(settings, "SIDES", (8,))
    with pytest.raises(InterruptedError, match="NMF, brightest places"):
        getattr(settings, table)(dataclasses.replace(asked, methods=(Brightest(),), quick=False), [red])


def test_a_method_in_a_file_is_taken_by_name(tmp_path):
    own = of("paper_tables").own_methods
    (tmp_path / "mine.py").write_text("class Mine:\n    name = 'mine'\n    def fit(self, a, r, k): ...\n")
    (found,) = own([f"{tmp_path / 'mine.py'}:Mine"])
    assert found.name == "mine"
    with pytest.raises(SystemExit, match="has no Other"):
        own([f"{tmp_path / 'mine.py'}:Other"])
    with pytest.raises(SystemExit, match="no such file"):
        own([f"{tmp_path / 'yours.py'}:Mine"])


def test_a_table_that_fails_stops_no_other_and_is_told_at_the_end(red, asked, tmp_path, monkeypatch):
    tables = of("paper_tables")
    made = of("papers.written").Made(
        [{"method": "a", "control": False, "kl": 0.5}], (of("papers.written").Column("kl", "KL"),)
    )

    def fails(asked, materials):
        raise ValueError("no such thing")

    monkeypatch.setattr(tables, "TABLES", {"first": ("First", fails), "second": ("Second", lambda *given: made)})
    with pytest.raises(RuntimeError, match="squares-toy-first: no such thing"):
        tables.run(["first", "second"], asked, [red], tmp_path)
    assert "| a | 0.500 |" in (tmp_path / "squares-toy-second.md").read_text()


def test_where_no_photograph_is_at_hand_parts_of_an_embedded_one_are_taken():
    import skimage.data

    found, whole = of("papers.photographs").embedded(3), skimage.data.chelsea()
    assert found.has.all()
    assert found.labels == ("cat",)
    for part in found.files:
        height, width = part.shape[:2]
        assert height == width >= 0.5 * min(whole.shape[:2])
        windows = np.lib.stride_tricks.sliding_window_view(whole[..., 0], (1, 8))[:, :, 0]
        rows, columns = np.nonzero((windows == part[0, :8, 0]).all(axis=-1))
        assert any((whole[y : y + height, x : x + width] == part).all() for y, x in zip(rows, columns, strict=True)
                   if y + height <= whole.shape[0] and x + width <= whole.shape[1])  # fmt: skip
