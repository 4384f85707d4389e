"""Activations that are too many for memory: in files, and everything that is made of them as it would be there."""

import math
import os
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from toy_model import Disguised, colour_model, pictures

import face_jax as fj
from face_jax.activations import survey
from face_jax.blocks import room as rooms
from face_jax.blocks import scratch
from face_jax.blocks.room import (
    Growing,
    Room,
    averaged,
    by_parts,
    chosen,
    filed,
    folder_of,
    mapped_by_parts,
    share_of,
    squares,
)
from face_jax.explanation import saved_files
from face_jax.nmf import factorization
from face_jax.nmf.terms import alternation
from face_jax.pictures.photographs import photographs
from face_jax.pictures.reading import Gathered
from face_jax.pipeline import refit
from face_jax.support import cache, memory
from face_jax.support.memory import NotEnoughMemoryError

IMAGES = np.concatenate([pictures(14, 0), pictures(4, 1)])
# Few steps: many in float32 go astray by more than rounding where concepts aren't well determined.
FEW = fj.ADMM(rtol=0.0, max_steps=4)
SETTINGS: dict[str, Any] = {"rank": 3, "batch": 8, "faithfulness": None, "key": jax.random.key(0), "solver": FEW}


@pytest.fixture
def small_parts(monkeypatch):
    """Many parts of what would be one, and files for what would be small."""
    monkeypatch.setattr(rooms, "_PART", 5_000)
    monkeypatch.setattr(rooms, "_SMALL", 0)


def in_a_file(array):
    found = Room(0).placed(array)
    assert filed(found)
    return found


def test_what_fits_is_in_memory_and_the_rest_in_files_without_names(tmp_path):
    room, array = Room(1000, tmp_path / "new"), np.arange(100, dtype=np.float32)
    first = room.placed(array)
    assert first is array
    # Copies that will be made of it count, too.
    second, third = room.placed(array, copies=2), room.placed(array)
    assert filed(second)
    assert not filed(third)
    assert (room.taken, room.filed) == (800, 400)
    np.testing.assert_array_equal(second, array)
    assert folder_of(second[3:].reshape(-1, 1)) == tmp_path / "new"
    assert folder_of(first) is None
    assert os.listdir(tmp_path / "new") == []
    # Back in memory where it fits.
    assert not filed(Room(1000).placed(second))


def test_an_array_that_grows_moves_into_a_file_where_it_is_more_than_was_expected(tmp_path):
    growing, values = Growing(Room(100, tmp_path), (2,), np.float32), np.arange(200, dtype=np.float32).reshape(-1, 2)
    growing.grow(5, 40)
    growing.array[:5] = values[:5]
    assert not growing.filed
    for before, count in ((5, 20), (20, 100)):
        growing.grow(count, 8 * count)
        growing.array[before:count] = values[before:count]
    assert growing.filed
    found = growing.done(97)
    assert filed(found)
    np.testing.assert_array_equal(found, values[:97])


def test_parts_give_what_the_whole_gives(small_parts):
    maps = np.random.default_rng(0).normal(size=(40, 3, 4, 12)).astype(np.float32)
    there = in_a_file(maps)
    np.testing.assert_array_equal(averaged(there), maps.mean(axis=(1, 2)))
    np.testing.assert_array_equal(averaged(there, np.float64), maps.astype(np.float64).mean(axis=(1, 2)))
    np.testing.assert_array_equal(by_parts(there, lambda some: some.max((1, 2, 3))), maps.max((1, 2, 3)))
    assert share_of(there, lambda some: some < 0) == (maps < 0).mean()
    twice = mapped_by_parts(there, 24, lambda some: np.concatenate([some, -some], -1))
    assert filed(twice)
    np.testing.assert_array_equal(twice, np.concatenate([maps, -maps], -1))
    for index in (np.asarray([3, 39, 0]), maps[:, 0, 0, 0] > 0, slice(3, 30), np.arange(40)):
        found = chosen(there, index)
        assert filed(found)
        np.testing.assert_array_equal(found, maps[index])


def test_arrays_are_put_together_where_their_size_belongs(small_parts, tmp_path):
    arrays = [np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32) for count in (4, 1, 6)]
    for room, where in ((Room(), False), (Room(4 * 33 * 2 - 1, tmp_path), True)):
        found = room.together(arrays, copies=2)
        assert filed(found) is where
        assert (room.taken, room.filed) == ((0, 132) if where else (132, 0))
        np.testing.assert_array_equal(found, np.concatenate(arrays))
        assert squares(found) == pytest.approx(float(np.sum(np.concatenate(arrays).astype(np.float64) ** 2)))


def test_room_that_is_nowhere_is_refused_in_words(monkeypatch, tmp_path):
    with pytest.raises(NotEnoughMemoryError, match=r"these would need about .* GiB; 0 MiB of memory are left .*store="):
        Room(0, tmp_path).check(2**60, "these")
    Room(math.inf, tmp_path).check(2**60, "these")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match=r"store=.*file/below' can't be written to"):
        Room(0, file / "below").placed(np.ones(3))
    monkeypatch.setattr(scratch, "reserve", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"can't be had in store=.*No space left on device.*another folder"):
        Room(0, tmp_path).placed(np.ones(3))
    with pytest.raises(OSError, match=r"64 MiB for codes and samples can't be had in scratch=.*No space left"):
        scratch.Scratch(tmp_path).array((2**26 + 1,), np.uint8)


def test_by_default_half_of_what_is_free_is_taken_and_no_folder_in_memory(monkeypatch):
    monkeypatch.setattr(rooms, "free_memory", lambda: 1000)
    assert Room().memory == 500
    monkeypatch.setattr(rooms, "free_memory", lambda: None)
    assert Room().fits(2**60)
    monkeypatch.setattr(scratch, "_in_memory", lambda folder: folder != pathlib.Path("/var/tmp"))
    assert Room().folder == pathlib.Path("/var/tmp")
    # What a run keeps meanwhile has no business in memory, either.
    monkeypatch.setattr(scratch, "free_in", lambda folder: 0 if folder == pathlib.Path("/var/tmp") else 2**62)
    with pytest.raises(NotEnoughMemoryError, match="scratch='/var/tmp'"):
        scratch.Scratch().expect(2**30)


def test_maps_that_are_gathered_go_to_a_file_and_the_copies_count(tmp_path):
    maps = np.random.default_rng(0).random((30, 2, 2, 5)).astype(np.float32)
    for size, copies, where in ((2400, 1, False), (2399, 1, True), (2400, 4, True)):
        gathered = Gathered(30, "photographs", "give fewer", Room(size, tmp_path), copies)
        for at in range(0, 30, 7):
            gathered.add(maps[at : at + 7], np.full(len(maps[at : at + 7]), True))
        found = gathered.all()
        assert filed(found) is where
        np.testing.assert_array_equal(found, maps)


def same(found, wanted, tolerance=1e-4):
    """Whether explanations are the same to rounding."""
    np.testing.assert_allclose(found.dictionary, wanted.dictionary, atol=tolerance)
    np.testing.assert_allclose(found.codes, wanted.codes, atol=tolerance * wanted.codes.max())
    np.testing.assert_allclose(found.crop_codes, wanted.crop_codes, atol=tolerance * wanted.crop_codes.max())
    for ours, theirs in zip(found.concepts, wanted.concepts, strict=True):
        assert ours.importance == pytest.approx(theirs.importance, abs=tolerance)
        assert ours.without == theirs.without
        assert [each.index for each in ours.speaks_for] == [each.index for each in theirs.speaks_for]
    for ours, theirs in zip(found.scores.rows, wanted.scores.rows, strict=True):
        assert ours.name == theirs.name
        assert ours.relative_error == pytest.approx(theirs.relative_error, abs=tolerance)
        assert ours.kl == pytest.approx(theirs.kl, abs=tolerance)
        np.testing.assert_allclose(
            ours.fidelity.insertion.probability, theirs.fidelity.insertion.probability, atol=tolerance
        )
        assert ours.fidelity.c_deletion == pytest.approx(theirs.fidelity.c_deletion, abs=tolerance)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        (colour_model(), {}),
        (
            colour_model(),
            {
                "faithfulness": 3.0,
            },
        ),
        (colour_model(head=Disguised(colour_model().head)), {}),
        (
            colour_model(features=lambda images: colour_model().features(images) - 0.05),
            {"signs": "apart"},
        ),
    ],
    ids=["affine", "faithful", "not affine", "signs apart"],
)
def test_an_explanation_out_of_files_is_the_one_in_memory(model, more, small_parts, tmp_path):
    settings = SETTINGS | more
    wanted = fj.explain(model, IMAGES, "reddish", **settings)
    found = fj.explain(model, IMAGES, "reddish", memory=0, store=tmp_path, **settings)
    assert filed(found.pictures.collected.maps)
    assert filed(found.pictures.crop_activations)
    assert not filed(wanted.pictures.crop_activations)
    same(found, wanted)
    assert [note for note in found.notes if note not in wanted.notes] == [
        "Activations of 0 MiB didn't fit into the memory that they may take: they were kept in files and read in "
        "blocks, which changes results by rounding alone."
    ]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("images", "targets", "more"),
    [
        ({"reddish": pictures(14, 0), "greenish": pictures(9, 1)}, None, {}),
        # In the same photographs, one of which is neither.
        (
            np.concatenate([IMAGES, pictures(5, 1, seed=1), pictures(1, 2)]),
            ["reddish", "greenish"],
            {"shared": True, "faithfulness": 3.0},
        ),
    ],
    ids=["each", "shared"],
)
def test_several_classes_out_of_files_are_those_in_memory(images, targets, more, small_parts, tmp_path):
    settings = SETTINGS | more
    wanted = fj.explain_classes(colour_model(), images, targets, **settings)
    again, files = (
        settings | {"memory": 0, "store": tmp_path / "files", "folder": tmp_path / "kept"},
        tmp_path / "files",
    )
    found = fj.explain_classes(colour_model(), images, targets, **again)
    for name, explanation in found.explanations.items():
        assert filed(explanation.pictures.collected.maps)
        assert filed(explanation.pictures.crop_activations)
        assert not filed(wanted[name].pictures.collected.maps)
        same(explanation, wanted[name])
        (note,) = (note for note in explanation.notes if note not in wanted[name].notes)
        assert "were kept in files and read in blocks" in note
    if wanted.bank is not None:
        assert found.bank is not None
        np.testing.assert_allclose(found.bank, wanted.bank, atol=1e-4)
    assert os.listdir(files) == []
    # What was kept is read where it lies.
    loaded = fj.explain_classes(colour_model(), images, targets, **again)
    for name, explanation in loaded.explanations.items():
        assert filed(explanation.pictures.collected.maps)
        np.testing.assert_array_equal(explanation.codes, found[name].codes)


def test_the_memory_is_that_of_all_classes_together():
    images = {"reddish": pictures(9, 0), "greenish": pictures(9, 1)}
    # Those of one of them, and half of another's.
    memory = 1.5 * 9 * 4 * 4 * 14 * 4 / 2**30
    found = fj.explain_classes(colour_model(), images, crops=fj.RandomCrops(per_image=2), memory=memory, **SETTINGS)
    assert [filed(found[name].pictures.collected.maps) for name in images] == [False, True]
    assert [any("were kept in files" in note for note in found[name].notes) for name in images] == [False, True]


def test_the_sanity_check_out_of_files_is_the_one_in_memory(small_parts, monkeypatch):
    explanation = fj.explain(colour_model(), IMAGES, "reddish", memory=0, **{**SETTINGS, "faithfulness": 3.0})
    stages, settings = [("as trained", colour_model())], {"solver": FEW, "batch": 8, "key": 0, "pictures": 2}
    wanted = fj.sanity_check(explanation, stages, **settings)
    given = []
    monkeypatch.setattr(
        refit, "factorize", lambda rows, *more, **named: given.append(rows) or fj.factorize(rows, *more, **named)
    )
    found = fj.sanity_check(explanation, stages, memory=0, **settings)
    assert [type(rows) for rows in given] == [fj.RowBlocks]
    for name in ("dictionary", "importance", "maps", "logit_agreement"):
        assert getattr(found.stages[0], name) == pytest.approx(getattr(wanted.stages[0], name), abs=1e-3)


def test_lambda_is_chosen_in_blocks_as_in_memory(monkeypatch, small_parts):
    # Fewer rows have both factors move together, for which all of them are in memory.
    for module in (alternation, factorization):
        monkeypatch.setattr(module, "JOINT_ROWS", 0)
    # Numbers of rows that no other test has: programs that were compiled know another limit.
    settings = SETTINGS | {"faithfulness": "auto", "crops": fj.RandomCrops(per_image=37)}
    wanted = fj.explain(colour_model(), IMAGES, "reddish", **settings)
    found = fj.explain(colour_model(), IMAGES, "reddish", memory=0, **settings)
    for ours, theirs in zip(found.fit.path.points, wanted.fit.path.points, strict=False):
        assert ours.weight == pytest.approx(theirs.weight, rel=1e-3)
        for name in ("error", "held_out_error", "loss", "held_out_loss", "objective"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=2e-2)
        assert ours.agreement == theirs.agreement


def test_what_is_kept_between_runs_is_where_its_size_belongs(monkeypatch, tmp_path):
    keep = fj.ArrayCache(tmp_path)
    first = fj.explain(colour_model(), IMAGES, "reddish", cache=keep, memory=0, **SETTINGS)
    # The file's arrays stay in it.
    monkeypatch.setattr(cache, "_LARGE", 0)
    again = fj.explain(colour_model(), IMAGES, "reddish", cache=keep, memory=0, **SETTINGS)
    assert filed(again.pictures.collected.maps)
    assert folder_of(again.pictures.collected.maps) is None
    np.testing.assert_array_equal(again.dictionary, first.dictionary)
    np.testing.assert_array_equal(again.codes, first.codes)
    memory_again = fj.explain(colour_model(), IMAGES, "reddish", cache=keep, **SETTINGS)
    assert not filed(memory_again.pictures.collected.maps)
    np.testing.assert_array_equal(memory_again.pictures.collected.maps, first.pictures.collected.maps)


def test_arrays_of_a_cache_that_stay_in_their_file_are_those_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "_LARGE", 0)
    kept = {
        "maps": np.random.default_rng(0).random((3, 4, 5)).astype(np.float32),
        "none": np.zeros((0, 3)),
        "names": np.asarray(["a", "äö"]),
        "mask": np.asarray([True, False]),
    }
    keep = fj.ArrayCache(tmp_path)
    keep(["one"], lambda: kept)
    found = keep(["one"], lambda: pytest.fail("computed again"))
    assert set(found) == set(kept)
    for name, array in kept.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert filed(found["maps"])
    # Damage is noticed as before.
    (file,) = tmp_path.glob("*.npz")
    content = bytearray(file.read_bytes())
    content[content.find(kept["maps"].tobytes()) + 7] ^= 1
    file.write_bytes(content)
    assert keep(["one"], lambda: {"maps": np.ones(2)})["maps"].tolist() == [1, 1]


def test_an_explanation_out_of_files_is_saved_and_loaded(monkeypatch, tmp_path):
    explanation = fj.explain(colour_model(), IMAGES, "reddish", memory=0, **SETTINGS)
    fj.save(explanation, tmp_path / "kept")
    loaded = fj.load(tmp_path / "kept", colour_model())
    assert not filed(loaded.pictures.collected.maps)
    monkeypatch.setattr(saved_files, "Room", lambda: Room(0))
    mapped = fj.load(tmp_path / "kept", colour_model())
    assert filed(mapped.pictures.collected.maps)
    for name in ("maps", "logits"):
        wanted = getattr(explanation.pictures.collected, name)
        np.testing.assert_array_equal(getattr(loaded.pictures.collected, name), wanted)
        np.testing.assert_array_equal(getattr(mapped.pictures.collected, name), wanted)
    assert mapped.concepts == explanation.concepts
    np.testing.assert_array_equal(mapped.encode(IMAGES[:2]), loaded.encode(IMAGES[:2]))


def test_files_of_tensors_are_those_of_the_library():
    from safetensors.numpy import load, save

    from face_jax.explanation.saving import _tensors

    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(3), "half": np.ones(3, np.float16),
        "truth": np.asarray([True, False]), "long": np.ones((2, 2)), "none": np.zeros((0, 4), np.float32),
        "byte": np.arange(5, dtype=np.uint8),
    }  # fmt: skip
    ours = b"".join(_tensors(arrays, {"format": "6"}))
    assert ours == save(arrays, {"format": "6"})
    for name, array in load(ours).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_memory_and_store_are_checked(tmp_path):
    for wrong in (-1, math.nan, math.inf, "4 GiB", True):
        with pytest.raises(ValueError, match=r"memory=.* isn't a number of GiB"):
            fj.explain(colour_model(), IMAGES, memory=wrong, **SETTINGS)  # pyright: ignore[reportArgumentType]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"store=.*file' is a file; give a folder"):
        fj.explain(colour_model(), IMAGES, store=tmp_path / "file", **SETTINGS)
    with pytest.raises(ValueError, match="store=3 isn't the path of a folder"):
        fj.explain(colour_model(), IMAGES, store=3, **SETTINGS)  # pyright: ignore[reportArgumentType]


def test_crops_that_fit_nowhere_are_refused_before_they_are_drawn(monkeypatch, tmp_path):
    seen = survey(colour_model(), photographs(IMAGES), 0, batch=8)
    from face_jax.pipeline.checks import check_crops

    monkeypatch.setattr(memory, "free_memory", lambda: 10**12)
    many = fj.RandomCrops(per_image=10**9)
    with pytest.raises(NotEnoughMemoryError, match=r"14,000,000,000 crops of 14 channels, would need .* store="):
        check_crops(many, [(32, 40)] * 14, seen.kept, Room(0, tmp_path))


def test_a_solver_that_needs_all_rows_at_once_has_its_crops_in_memory():
    found = fj.explain(
        colour_model(), IMAGES, "reddish", memory=0, **{**SETTINGS, "solver": fj.PaperAdam(max_steps=3), "rank": 2}
    )
    assert filed(found.pictures.collected.maps)
    assert not filed(found.pictures.crop_activations)
