"""Rows in blocks: whatever holds them, the same rows come, once each and in order."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

import face_jax as fj
from face_jax.blocks.row_blocks import in_blocks
from face_jax.nmf import validate
from face_jax.support import memory

ROWS = np.random.default_rng(0).random((53, 6)).astype(np.float32)


class Yielding:
    """An object that yields blocks of its own lengths, and counts how often."""

    def __init__(self, rows=ROWS, lengths=(7, 30, 16)):
        self.shape, self.dtype, self.given, self.lengths, self.times = rows.shape, rows.dtype, rows, lengths, 0

    def blocks(self):
        self.times += 1
        start = 0
        for length in self.lengths:
            yield self.given[start : start + length]
            start += length


def npy(folder):
    np.save(folder / "a.npy", ROWS)
    return folder / "a.npy"


def safetensors(folder, rows: np.ndarray = ROWS, name="activations", kind="F32"):
    entry = {"dtype": kind, "shape": list(rows.shape), "data_offsets": [0, rows.nbytes]}
    header = json.dumps({"__metadata__": {}, name: entry}).encode()
    (folder / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + rows.tobytes())
    return folder / "a.safetensors"


def zarr(folder):
    store = pytest.importorskip("zarr", reason="zarr is optional")
    kept = store.create_array(str(folder / "a.zarr"), shape=ROWS.shape, chunks=(10, 6), dtype=ROWS.dtype)
    kept[:] = ROWS
    return folder / "a.zarr"


def shards(folder):
    places = []
    for number, (start, stop) in enumerate([(0, 5), (5, 6), (6, 53)]):
        np.save(folder / f"{number}.npy", ROWS[start:stop])
        places.append(str(folder / f"{number}.npy"))
    return places


def shards_of_every_kind(folder):
    np.save(folder / "1.npy", ROWS[:20])
    return [folder / "1.npy", Yielding(ROWS[20:40], (3, 17)), np.load(npy(folder), mmap_mode="r")[40:]]


SOURCES = {
    "array": lambda _: ROWS,
    "memory map": lambda folder: np.load(npy(folder), mmap_mode="r"),
    "npy": npy,
    "path in text": lambda folder: str(npy(folder)),
    "zarr": zarr,
    "safetensors": safetensors,
    "shards": shards,
    "shards of every kind": shards_of_every_kind,
    "an object that yields": lambda _: Yielding(),
    "rows in blocks": lambda _: fj.RowBlocks(ROWS, rows=9),
    "other byte order": lambda _: ROWS.astype(">f4"),
    "jax": lambda _: jnp.asarray(ROWS),
    "torch": lambda _: torch.from_numpy(ROWS),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_gives_its_rows_in_order_as_often_as_asked(source, tmp_path):
    rows = fj.RowBlocks(source(tmp_path), rows=8)
    assert rows.shape == ROWS.shape
    assert rows.dtype == np.float32
    for _ in range(2):
        blocks = list(rows.blocks())
        assert [len(block) for block in blocks] == [8, 8, 8, 8, 8, 8, 5]
        np.testing.assert_array_equal(np.concatenate(blocks), ROWS)
    np.testing.assert_array_equal(rows[3:22], ROWS[3:22])
    np.testing.assert_array_equal(rows[45:], ROWS[45:])
    np.testing.assert_array_equal(np.asarray(rows), ROWS)


def test_places_of_maps_are_rows():
    maps = np.random.default_rng(1).random((5, 3, 2, 4)).astype(np.float32)
    rows = fj.RowBlocks(maps, rows=7)
    assert rows.shape == (30, 4)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), maps.reshape(30, 4))
    np.testing.assert_array_equal(rows[5:8], maps.reshape(30, 4)[5:8])


def test_one_row_is_taken_by_its_number():
    for rows in (fj.RowBlocks(ROWS), fj.RowBlocks(Yielding())):
        for number in (0, 52, -1, np.int64(7)):
            np.testing.assert_array_equal(rows[number], ROWS[number])
        for number in (53, -54):
            with pytest.raises(IndexError, match="give one of 0 to 52"):
                rows[number]


def test_all_rows_at_once_are_made_where_they_fit(monkeypatch):
    rows = fj.RowBlocks(ROWS, rows=8)
    np.testing.assert_array_equal(np.asarray(rows), ROWS)
    assert np.asarray(rows, np.float64).dtype == np.float64
    np.testing.assert_allclose(rows @ np.ones(6), ROWS.sum(1), rtol=1e-6)
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    with pytest.raises(fj.NotEnoughMemoryError, match=r"all 53 × 6 numbers of RowBlocks .*by slices or blocks\(\)"):
        np.asarray(rows)
    # What measures all rows at once takes them so.
    with pytest.raises(fj.NotEnoughMemoryError, match="numbers of RowBlocks at once"):
        validate.matrix("activations", rows, "row × channel")


def test_arrays_whose_shardings_are_types_are_read():
    mesh = jax.make_mesh((1,), ("row",), axis_types=(jax.sharding.AxisType.Explicit,))
    rows = fj.RowBlocks(jax.device_put(ROWS, jax.NamedSharding(mesh, jax.P("row"))), rows=8)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), ROWS)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64, np.int32, np.bool_])
def test_numbers_of_every_kind_are_computed_in_at_least_32_bits(kind):
    rows = fj.RowBlocks((ROWS * 3).astype(kind))
    assert rows.dtype == kind
    assert rows.computed == (np.float32 if rows.dtype.itemsize == 2 else np.float64)


def test_bfloat16_is_read_from_safetensors(tmp_path):
    kept = ROWS.astype(ml_dtypes.bfloat16)
    rows = fj.RowBlocks(safetensors(tmp_path, kept, name="only one", kind="BF16"))
    assert rows.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(np.asarray(rows, np.float32), kept.astype(np.float32))


def test_large_maps_on_disk_are_for_blocks_and_small_ones_for_memory(tmp_path):
    small = np.load(npy(tmp_path), mmap_mode="r")
    assert in_blocks("activations", small) is None
    assert in_blocks("activations", ROWS) is None
    large = np.lib.format.open_memmap(tmp_path / "large.npy", mode="w+", dtype=np.float32, shape=(2**18, 65))
    assert in_blocks("activations", large).shape == large.shape
    assert in_blocks("activations", [small, small]).shape == (106, 6)
    assert in_blocks("activations", npy(tmp_path)).shape == ROWS.shape
    assert in_blocks("activations", Yielding()).shape == ROWS.shape


def test_maps_on_disk_are_for_blocks_whatever_their_size(tmp_path):
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    np.save(tmp_path / "maps.npy", maps)
    rows = in_blocks("activations", np.load(tmp_path / "maps.npy", mmap_mode="r"))
    np.testing.assert_array_equal(rows[:], maps.reshape(24, 5))
    zarr = pytest.importorskip("zarr", reason="zarr is optional")
    stored = zarr.create_array(str(tmp_path / "a.zarr"), shape=maps.shape, chunks=(1, 3, 4, 5), dtype="float32")
    stored[:] = maps
    np.testing.assert_array_equal(in_blocks("activations", stored)[:], maps.reshape(24, 5))
    one = zarr.create_array(str(tmp_path / "one.zarr"), shape=(5,), chunks=(5,), dtype="float32")
    with pytest.raises(ValueError, match=r"activations has shape .5,.; give rows with channels"):
        in_blocks("activations", one)


def test_large_stores_are_for_blocks_too(tmp_path):
    store = pytest.importorskip("zarr", reason="zarr is optional")
    large = store.create_array(str(tmp_path / "a.zarr"), shape=(2**18, 65), chunks=(2**14, 65), dtype="float32")
    rows = in_blocks("activations", large)
    assert rows.shape == large.shape
    # Whole chunks are read.
    assert rows.rows % 2**14 == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [((7, 30), "have 37 rows and its shape says 53"), ((7, 30, 16, 5), "more than 53 rows")],
)
def test_blocks_of_another_number_of_rows_than_said_are_refused(lengths, message):
    rows = np.concatenate([ROWS, ROWS])
    source = Yielding(rows, lengths)
    source.shape = ROWS.shape
    with pytest.raises(ValueError, match=message):
        list(fj.RowBlocks(source, rows=8).blocks())


def test_blocks_that_come_only_once_are_refused():
    once = iter(Yielding().blocks())
    source = Yielding()
    source.blocks = lambda: once
    rows = fj.RowBlocks(source)
    list(rows.blocks())
    with pytest.raises(ValueError, match="0 rows and its shape says 53; let blocks"):
        list(rows.blocks())


def damaged(folder):
    path = npy(folder)
    path.write_bytes(path.read_bytes()[:200])
    return path


def cut_short(folder):
    path = safetensors(folder)
    path.write_bytes(path.read_bytes()[:-8])
    return path


def plain_bfloat16(folder):
    np.save(folder / "b.npy", ROWS.astype(ml_dtypes.bfloat16))
    return folder / "b.npy"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda folder: folder / "none.npy", "doesn't exist"),
        (lambda _: "a.h5", r"ends in '\.h5'; give a path that ends in \.npy, \.zarr, \.safetensors"),
        (damaged, "can't be read"),
        (cut_short, "cut short"),
        (plain_bfloat16, "bfloat16.*safetensors"),
        (lambda _: [ROWS, ROWS[:, :3]], "shards of 3 and 6 channels"),
        (lambda _: [ROWS, ROWS.astype(np.float16)], "shards of float16 and float32"),
        (lambda _: [], "empty list"),
        (lambda _: ROWS[0], "shape .6,.; give rows with channels"),
        (lambda _: ROWS[:0], "empty"),
        (lambda _: ROWS.astype(str), "isn't a real number"),
        (lambda _: ROWS * 1j, "isn't a real number"),
        (lambda _: 3, "isn't rows in blocks"),
        (lambda _: None, "isn't rows in blocks"),
    ],
)
def test_what_holds_no_rows_is_refused_in_a_sentence(source, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fj.RowBlocks(source(tmp_path))


def test_an_error_over_the_reading_reaches_whoever_reads():
    class Broken(Yielding):
        def blocks(self):
            yield ROWS[:8]
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fj.factorize(fj.RowBlocks(Broken()), 2)
