"""What is said where memory doesn't suffice, and what is done so that it does."""

import jax
import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.activations import collect_crops, pooled, survey, whole_maps
from face_jax.nmf.encoding import encode_maps
from face_jax.pictures.photographs import photographs
from face_jax.pipeline.checks import check_crops
from face_jax.pipeline.selection import units
from face_jax.support import memory
from face_jax.support.memory import NotEnoughMemoryError, check_memory, exhaustion_in_words, free_memory

RED, GREEN = pictures(6, 0), pictures(3, 1)


def test_the_least_of_machine_container_and_process_is_free(monkeypatch, tmp_path):
    free = free_memory()
    assert free is None or free > 0
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 50000\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert free_memory() == 350_000
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(memory, "_process", lambda: 123)
    assert free_memory() == 123


def test_more_than_is_free_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2**30)
    check_memory(2**30, "this", "take less")
    with pytest.raises(
        NotEnoughMemoryError, match=r"^this would need about 3.0 GiB of memory, and 1.0 GiB are free; take"
    ):
        check_memory(3 * 2**30, "this", "take less")
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    check_memory(2**60, "this", "take less")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 TiB"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate"),
    ],
)
def test_exhaustion_is_said_in_a_sentence(error):
    said = r"^the memory ran out over three pictures; give two$"
    with pytest.raises(NotEnoughMemoryError, match=said) as caught, exhaustion_in_words("three pictures", "give two"):
        raise error
    assert caught.value.__cause__ is error
    with pytest.raises(RuntimeError, match="something else"), exhaustion_in_words("three pictures", "give two"):
        raise RuntimeError("something else")


def test_a_network_that_exhausts_the_memory_names_the_batch():
    def exhausted(_):
        raise MemoryError

    with pytest.raises(
        NotEnoughMemoryError, match=r"ran out over batch=32 pictures .* colours .*; give a smaller batch"
    ):
        survey(colour_model(features=exhausted), photographs(RED), batch=40)


def test_batches_are_no_larger_than_there_is_use_for():
    seen = []

    def features(images):
        seen.append(len(images))
        return colour_model().features(images)

    survey(colour_model(features=features), photographs(RED[:3]), batch=100_000)
    survey(colour_model(features=features), photographs(RED[:3]), batch=2)
    assert seen == [32, 2, 2]


def test_a_batch_that_cannot_fit_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**6)
    with pytest.raises(NotEnoughMemoryError, match=r"^batch=600 pictures that go through colours together would need"):
        survey(colour_model(), photographs(RED) * 100, batch=600)


def test_activations_that_cannot_fit_are_refused_at_the_first_batch(monkeypatch):
    # 4 × 4 places of 14 channels in float32 are 896 bytes.
    monkeypatch.setattr(memory, "free_memory", lambda: 896 * 50)
    batches = []

    def features(images):
        batches.append(len(images))
        return colour_model().features(images)

    several = photographs([pictures(4, 0, seed) for seed in range(20)])
    said = r"activations of 4 × 4 × 14 of about 80 photographs would need .*; give fewer photographs"
    with pytest.raises(NotEnoughMemoryError, match=said):
        survey(colour_model(features=features), several, batch=4)
    assert batches == [4]
    # None is kept of a class that none is of.
    assert len(survey(colour_model(), several, 2, batch=4).kept) == 0
    boxes = fj.RandomCrops(per_image=100)([(32, 40)] * 4, key=jax.random.key(0))
    with pytest.raises(
        NotEnoughMemoryError, match=r"activations of 4 × 4 × 14 of about 400 crops .*; take fewer crops"
    ):
        collect_crops(colour_model(), several[:4], boxes, keep=whole_maps, batch=4)
    assert collect_crops(colour_model(), several[:4], boxes, keep=pooled, batch=4).maps.shape == (400, 1, 1, 14)


def test_more_crops_than_could_be_held_are_refused_before_they_are_drawn(monkeypatch):
    seen = survey(colour_model(), photographs(RED), batch=8).kept
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    check_crops(fj.RandomCrops(per_image=1000), [(32, 40)] * 6, seen)
    check_crops(lambda shapes, *, key: None, [(32, 40)] * 6, seen)  # pyright: ignore[reportArgumentType]
    said = r"crops=RandomCrops\(per_image=1000000, .*\) of 6 photographs, 6,000,000 crops of 14 channels, would need"
    with pytest.raises(NotEnoughMemoryError, match=said):
        check_crops(fj.RandomCrops(per_image=1_000_000), [(32, 40)] * 6, seen)
    with pytest.raises(NotEnoughMemoryError, match="6,000,000 crops"):
        fj.explain(colour_model(), RED, rank=2, crops=fj.RandomCrops(per_image=1_200_000), batch=8)


def test_what_is_gathered_is_what_there_is():
    several = photographs([*RED, *GREEN, *pictures(7, 0, 5)])
    whole = survey(colour_model(), several, batch=4)
    red = survey(colour_model(), several, 0, batch=4)
    mask = whole.predicted[:, 0]
    assert mask.sum() == 13
    np.testing.assert_array_equal(red.kept.maps, whole.kept.maps[mask])
    np.testing.assert_array_equal(red.kept.logits, whole.kept.logits[mask])
    np.testing.assert_array_equal(red.index, np.flatnonzero(mask))


def test_units_are_the_average_of_the_pictures_chosen():
    seen = survey(colour_model(), photographs(RED), batch=4).kept
    index = np.asarray([4, 1])
    np.testing.assert_array_equal(units(seen, index, affine=True).maps[:, 0, 0], seen.maps[index].mean((1, 2)))
    np.testing.assert_array_equal(units(seen, index, affine=False).maps, seen.maps[index])


def test_codes_of_many_places_are_those_of_a_part_at_a_time(monkeypatch):
    from face_jax.nmf import encoding

    maps = np.abs(np.random.default_rng(0).normal(size=(30, 6, 6, 5)))
    dictionary = np.abs(np.random.default_rng(1).normal(size=(3, 5)))
    whole = encode_maps(maps, dictionary)
    monkeypatch.setattr(encoding, "_MOST_ROWS", 512)
    np.testing.assert_allclose(encode_maps(maps, dictionary), whole, rtol=1e-9, atol=1e-12)
    assert encode_maps(maps[:0], dictionary).shape == (0, 6, 6, 3)


def test_copies_are_left_out_and_named(tmp_path):
    from PIL import Image

    for number, pixels in enumerate(RED):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    # The same content, and the same pixels in another format.
    (tmp_path / "b.png").write_bytes((tmp_path / "1.png").read_bytes())
    Image.fromarray(RED[2]).save(tmp_path / "c.bmp")
    seen = survey(colour_model(), photographs(tmp_path), batch=8)
    assert seen.copies == ("b.png (of 1.png)", "c.bmp (of 2.png)")
    np.testing.assert_array_equal(seen.readable, range(6))
    found = fj.explain(colour_model(), tmp_path, rank=2, batch=8, faithfulness=None, cache=_twice)
    assert len(found.photographs) == 6
    (note,) = [note for note in found.notes if "once more" in note]
    assert note.startswith("2 photographs took no part, because pixel for pixel they are another one once more")
    assert note.endswith("b.png (of 1.png); c.bmp (of 2.png)")


def _twice(depends_on, compute):
    """A cache that gives what was written."""
    del depends_on
    return {name: np.array(array) for name, array in compute().items()}


def test_faint_pictures_are_named(tmp_path):
    from PIL import Image

    ramp = np.tile(np.linspace(0, 4095, 40), (32, 1)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "twelve.png")
    for number, pixels in enumerate(GREEN):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    found = fj.explain(colour_model(), tmp_path, rank=2, batch=8, faithfulness=None, cache=_twice)
    (note,) = [note for note in found.notes if "16 bits" in note]
    assert "1 picture of 16 bits a value" in note
    assert note.endswith("twelve.png")


def test_skipped_files_are_counted_and_the_first_named(tmp_path):
    from PIL import Image

    for number, pixels in enumerate(GREEN):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    for number in range(13):
        (tmp_path / f"x{number:02}.txt").write_text("words")
    found = fj.explain(colour_model(), tmp_path, rank=2, batch=8, faithfulness=None)
    (note,) = [note for note in found.notes if "skipped" in note]
    assert note.startswith("13 of 16 files were skipped, because they can't be read: x00.txt: not a picture; ")
    assert note.endswith("x09.txt: not a picture; and 3 more")
    with pytest.warns(UserWarning, match=r"13 of 16 files can't be read, .*; and 3 more$"):
        found.encode(tmp_path, batch=8)
