"""Activations of many pictures: in memory, on disk, taken up again, with failures by name."""

import contextlib
import errno
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import small_models as small
import torch
from face_jax.bridges import stores

from face_jax import bridges
from face_jax.model import Preprocess

COUNT = 11


@pytest.fixture(scope="module")
def split():
    return bridges.split(small.randomized(small.Plain()), "body", preprocess=Preprocess(size=8, resize=8))


def pixels(number):
    return np.random.default_rng(number).standard_normal((8, 8, 3)).astype(np.float32)


def broken():
    raise OSError("truncated")


def pictures(failing=()):
    return [(f"{n}.jpg", broken if n in failing else (lambda n=n: pixels(n))) for n in range(COUNT)]


def expected(split, numbers):
    return np.asarray(split.features(np.stack([pixels(n) for n in numbers])))


@pytest.fixture(params=[None, "a.npy", "deep/a.zarr"], ids=["memory", "npy", "zarr"])
def store(request, tmp_path):
    if request.param is None:
        return None
    if request.param.endswith("zarr"):
        pytest.importorskip("zarr", reason="zarr is optional")
    return tmp_path / request.param


def test_activations_in_the_pictures_order(split, store):
    pulled = bridges.pull(split, pictures(), batch=4, store=store)
    assert pulled.names == tuple(f"{n}.jpg" for n in range(COUNT))
    assert pulled.skipped == ()
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, range(COUNT)), rtol=1e-5, atol=1e-6)


def test_averages(split, store):
    pulled = bridges.pull(split, pictures(), batch=4, store=store, pooled=True)
    assert pulled.activations.shape == (COUNT, 6)
    means = expected(split, range(COUNT)).mean((1, 2))
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("failing", [(3,), (0, 1, 2, 3), (10,)])
def test_failed_pictures_are_skipped_by_name(split, store, failing):
    pulled = bridges.pull(split, pictures(failing), batch=4, store=store)
    good = [n for n in range(COUNT) if n not in failing]
    assert pulled.skipped == tuple((f"{n}.jpg", "truncated") for n in failing)
    assert pulled.names == tuple(f"{n}.jpg" for n in good)
    assert pulled.activations.shape == (len(good), 4, 4, 6)
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, good), rtol=1e-5, atol=1e-6)


def test_pictures_of_another_shape_or_type_are_skipped(split):
    odd = [("good", pixels(0)), ("flat", pixels(0)[0]), ("large", np.zeros((9, 8, 3), np.float32))]
    pulled = bridges.pull(split, [*odd, ("bytes", np.zeros((8, 8, 3), np.uint8))])
    assert pulled.names == ("good",)
    assert [name for name, _ in pulled.skipped] == ["flat", "large", "bytes"]
    assert "(9, 8, 3)" in pulled.skipped[1][1]


@pytest.mark.parametrize("shape", [(8, 8, 4), (8, 8, 1), (12, 8, 3)])
def test_a_first_picture_of_another_shape_does_not_take_the_others_with_it(split, shape):
    pulled = bridges.pull(split, [("odd", np.zeros(shape, np.float32)), *pictures()], batch=4)
    assert len(pulled.names) == COUNT
    assert pulled.skipped == (("odd", f"shape {shape}, and the other pictures have (8, 8, 3)"),)


def test_a_shape_that_the_network_refuses_is_not_the_pictures(split):
    transparent = [(f"t{n}", np.zeros((8, 8, 4), np.float32)) for n in range(3)]
    pulled = bridges.pull(split, [*transparent, *pictures()], batch=2)
    assert len(pulled.names) == COUNT
    assert [name for name, _ in pulled.skipped] == ["t0", "t1", "t2"]
    assert "shape (8, 8, 4), which the network refuses" in pulled.skipped[0][1]


def test_an_error_of_the_network_is_not_the_pictures(split, monkeypatch):
    monkeypatch.setattr(type(split.features), "maps_of", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        bridges.pull(split, pictures())


def test_whatever_a_reader_raises_is_a_pictures_failure(split):
    def bomb():
        raise SyntaxError("broken PNG file")

    def nothing():
        raise OSError

    pulled = bridges.pull(split, [*pictures()[:2], ("bomb", bomb), ("nothing", nothing)])
    assert len(pulled.names) == 2
    assert pulled.skipped == (("bomb", "SyntaxError: broken PNG file"), ("nothing", "OSError: "))


def test_names_may_be_paths(split, store):
    named = [(pathlib.Path("folder") / name, picture) for name, picture in pictures()]
    pulled = bridges.pull(split, named, batch=4, store=store)
    assert pulled.names == tuple(str(pathlib.Path("folder") / f"{n}.jpg") for n in range(COUNT))


def test_a_run_killed_before_its_first_rows_can_be_taken_up(split, store, monkeypatch):
    if store is None:
        pytest.skip("memory doesn't outlive a run")

    make_room = stores.DiskStore._room

    def killed(self, shape, dtype):
        make_room(self, shape, dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(stores.DiskStore, "_room", killed)
    with pytest.raises(KeyboardInterrupt):
        bridges.pull(split, pictures(), batch=4, store=store)
    monkeypatch.undo()
    assert store.exists()
    pulled = bridges.pull(split, pictures(), batch=4, store=store)
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, range(COUNT)), rtol=1e-5, atol=1e-6)


def test_pictures_that_all_failed_are_tried_again(split, tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(ValueError, match="none of the 11 pictures could be used"):
        bridges.pull(split, pictures(failing=range(COUNT)), store=path)
    assert len(bridges.pull(split, pictures(), store=path).names) == COUNT


def test_a_stopped_run_goes_on_where_it_was(split, store):
    if store is None:
        pytest.skip("memory doesn't outlive a run")
    read = []

    def watched(stop=None):
        def picture(n):
            if n == stop:
                raise KeyboardInterrupt
            read.append(n)
            return broken() if n == 5 else pixels(n)

        return [(f"{n}.jpg", lambda n=n: picture(n)) for n in range(COUNT)]

    with pytest.raises(KeyboardInterrupt):
        bridges.pull(split, watched(stop=9), batch=4, store=store)
    assert read[:8] == list(range(8))
    read.clear()
    pulled = bridges.pull(split, watched(), batch=4, store=store)
    assert read == [8, 9, 10]
    good = [n for n in range(COUNT) if n != 5]
    assert pulled.skipped == (("5.jpg", "truncated"),)
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, good), rtol=1e-5, atol=1e-6)
    read.clear()
    again = bridges.pull(split, watched(), batch=4, store=store)
    assert read == []
    np.testing.assert_array_equal(np.asarray(again.activations[:]), np.asarray(pulled.activations[:]))
    assert again.skipped == pulled.skipped


def cut(path):
    os.truncate(path, 128 + 5 * 4 * 4 * 6 * 4)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


def zeroed(path):
    content = path.read_bytes()
    path.write_bytes(content[:128] + bytes(200) + content[328:])


def of_another_header(path):
    path.write_bytes(path.read_bytes().replace(b"(11, 4, 4, 6)", b"(99, 4, 4, 6)").replace(b"<f4", b"<f2"))


DAMAGES = {
    "cut": (cut, 4), "cut header": (lambda path: os.truncate(path, 60), 0),
    "empty": (lambda path: os.truncate(path, 0), 0),
    "flipped bit": (flipped, 8), "zeroed block": (zeroed, 0), "another header": (of_another_header, 0),
}  # fmt: skip


@pytest.mark.parametrize("stopped", [None, 9], ids=["finished", "stopped"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_in_a_file_is_done_again(split, tmp_path, caplog, damage, stopped):
    path, read = tmp_path / "a.npy", []
    pull_until(split, path, stopped, [])
    change, kept = DAMAGES[damage]
    change(path)
    if stopped and damage == "flipped bit":
        # The last rows weren't written yet.
        kept = 8
    pulled = pull_until(split, path, None, read)
    assert read == list(range(kept, COUNT))
    assert ("damaged from row" in caplog.text) == (kept < (8 if stopped else COUNT))
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, range(COUNT)), rtol=1e-5, atol=1e-6)
    pull_until(split, path, None, read)
    assert len(read) == COUNT - kept
    assert path.stat().st_size == 128 + COUNT * 4 * 4 * 6 * 4


def pull_until(split, path, stop, read, failing=()):
    def picture(n):
        if n == stop:
            raise KeyboardInterrupt
        read.append(n)
        return broken() if n in failing else pixels(n)

    named = [(f"{n}.jpg", lambda n=n: picture(n)) for n in range(COUNT)]
    if stop is None:
        return bridges.pull(split, named, batch=4, store=path)
    with pytest.raises(KeyboardInterrupt):
        bridges.pull(split, named, batch=4, store=path)
    return None


def test_a_shortened_file_that_is_damaged_has_room_again(split, tmp_path):
    path, read = tmp_path / "a.npy", []
    pull_until(split, path, None, [], failing=(2, 9))
    flipped(path)
    # This time the picture can be read.
    pulled = pull_until(split, path, None, read, failing=(2,))
    assert read == [8, 9, 10]
    assert pulled.skipped == (("2.jpg", "truncated"),)
    good = [n for n in range(COUNT) if n != 2]
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, good), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "empty", "array"])
def test_what_is_damaged_in_a_zarr_store_is_done_again(split, tmp_path, monkeypatch, damage):
    zarr = pytest.importorskip("zarr", reason="zarr is optional")
    path, read = tmp_path / "a.zarr", []
    create = zarr.create_array
    # Several chunks, some with rows of two batches.
    small = lambda *words, chunks, **more: create(*words, chunks=(3, *chunks[1:]), **more)  # noqa: E731
    monkeypatch.setattr(zarr, "create_array", small)
    pull_until(split, path, None, [])
    chunk = path / "c" / "2" / "0" / "0" / "0"
    assert chunk.exists()
    if damage == "missing":
        chunk.unlink()
    elif damage == "array":
        (path / "zarr.json").write_text("{")
    else:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 4
        chunk.write_bytes({"flipped": content, "cut": content[:50], "empty": b""}[damage])
    pulled = pull_until(split, path, None, read)
    # The chunk has rows 6, 7 and 8.
    assert read == list(range(0 if damage == "array" else 4, COUNT))
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, range(COUNT)), rtol=1e-5, atol=1e-6)
    pull_until(split, path, None, read)
    assert len(read) in (7, COUNT)


def test_a_store_without_digests_is_gone_on_with_and_gets_them(split, tmp_path):
    path, read = tmp_path / "a.npy", []
    pull_until(split, path, 9, [])
    note = json.loads(path.with_name("a.npy.json").read_text())
    older = {name: value for name, value in note.items() if name not in ("blocks", "row")}
    path.with_name("a.npy.json").write_text(json.dumps(older))
    pulled = pull_until(split, path, None, read)
    assert read == [8, 9, 10]
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, range(COUNT)), rtol=1e-5, atol=1e-6)
    assert [block[0] for block in json.loads(path.with_name("a.npy.json").read_text())["blocks"]] == [8, 11]


def test_room_on_the_disk_is_taken_before_rows_are_written(split, tmp_path):
    path = tmp_path / "a.npy"
    pull_until(split, path, 9, [])
    # A file with holes has fewer blocks than its length.
    assert path.stat().st_blocks * 512 >= path.stat().st_size


@pytest.mark.parametrize("name", ["posix_fallocate", "replace"])
def test_a_full_disk_is_said_in_a_sentence(split, tmp_path, monkeypatch, name):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match=r"store='.*a\.npy' can't be written to \(No space left on device\); what it has"):
        bridges.pull(split, pictures(), batch=4, store=tmp_path / "a.npy")
    monkeypatch.undo()
    assert len(bridges.pull(split, pictures(), batch=4, store=tmp_path / "a.npy").names) == COUNT


def test_a_file_cut_to_what_was_kept_is_an_ordinary_npy(split, tmp_path):
    path = tmp_path / "a.npy"
    pulled = bridges.pull(split, pictures(failing=(2, 7)), batch=4, store=path)
    assert isinstance(pulled.activations, np.memmap)
    assert path.stat().st_size == 128 + 9 * 4 * 4 * 6 * 4
    np.testing.assert_array_equal(np.load(path), pulled.activations)


def test_other_work_in_the_store_is_not_overwritten(split, tmp_path):
    path = tmp_path / "a.npy"
    bridges.pull(split, pictures(), store=path)
    other = bridges.split(small.randomized(small.Plain(), seed=9), "body", preprocess=Preprocess(size=8))
    with pytest.raises(ValueError, match=r"holds other work: its model is not this one's; delete it"):
        bridges.pull(other, pictures(), store=path)
    with pytest.raises(ValueError, match="its pictures and pooled are not"):
        bridges.pull(split, pictures()[:5], store=path, pooled=True)
    note = path.with_name("a.npy.json")
    note.write_text(note.read_text().replace("3.jpg", "4.jpg"))
    with pytest.raises(ValueError, match="damaged note"):
        bridges.pull(split, pictures(), store=path)
    note.write_text("{")
    with pytest.raises(ValueError, match="damaged note"):
        bridges.pull(split, pictures(), store=path)
    path.with_name("a.npy.json").unlink()
    with pytest.raises(ValueError, match="exists and no note says what it holds"):
        bridges.pull(split, pictures(), store=path)


def test_progress_counts_every_picture_once(split, tmp_path):
    steps = []

    @contextlib.contextmanager
    def progress(stage, total):
        assert total == COUNT
        yield steps.append

    bridges.pull(split, pictures(failing=(3,)), batch=4, store=tmp_path / "a.npy", progress=progress)
    assert steps == [0, 4, 4, 3]
    steps.clear()
    bridges.pull(split, pictures(failing=(3,)), batch=4, store=tmp_path / "a.npy", progress=progress)
    assert steps == [COUNT]


def test_note_names_what_was_done(split, tmp_path):
    bridges.pull(split, pictures(failing=(3,)), batch=4, store=tmp_path / "a.npy")
    note = json.loads((tmp_path / "a.npy.json").read_text())
    assert note["identity"]["model"] == split.fingerprint
    assert len(note["names"]) == COUNT - 1


def test_half_precision_networks_give_float32():
    model = small.randomized(small.Plain()).to(torch.bfloat16)
    split = bridges.split(model, "body", preprocess=Preprocess(size=8))
    maps = bridges.pull(split, pictures()).activations
    assert maps.dtype == np.float32
    # Averages have more digits than what they are of.
    np.testing.assert_allclose(bridges.pull(split, pictures(), pooled=True).activations, maps.mean((1, 2)), rtol=1e-6)


def test_bad_arguments_are_named(split, tmp_path):
    with pytest.raises(ValueError, match="batch=0 isn't a number of pictures; give 1 or more"):
        bridges.pull(split, pictures(), batch=0)
    with pytest.raises(ValueError, match="pictures is empty"):
        bridges.pull(split, [])
    with pytest.raises(TypeError, match=r"pictures\[0\] is a ndarray, not a name \(a string or a path\) and a picture"):
        bridges.pull(split, (pixels(n) for n in range(2)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"none of the 1 pictures could be used; first: 0\.jpg: truncated"):
        bridges.pull(split, pictures(failing=(0,))[:1])
    with pytest.raises(ValueError, match=r"ends in '\.h5'; give a path that ends in \.npy or \.zarr"):
        bridges.pull(split, pictures(), store=tmp_path / "a.h5")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_cuda():
    model = small.randomized(small.Plain())
    cpu = bridges.split(model, "body", preprocess=Preprocess(size=8))
    want = expected(cpu, range(COUNT))
    split = bridges.split(model.cuda(), "body", preprocess=Preprocess(size=8))
    np.testing.assert_allclose(bridges.pull(split, pictures(), batch=4).activations, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("batch", [True, 2.0, "2", None, float("nan"), [2]]),
        ("pooled", [None, 1, "False", [True]]),
        ("progress", ["yes", 1, lambda stage: None]),
        ("store", [3, True, b"a.npy", "", ["a.npy"]]),
        ("pictures", [None, 3, {"a.jpg": pixels(0)}, "ab", np.array(1.0)]),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(split, argument, values):
    for value in values:
        # What annotations refuse is refused by beartype here, as tests switch it on.
        with pytest.raises((ValueError, TypeError), match=argument):
            bridges.pull(**({"split": split, "pictures": pictures()} | {argument: value}))


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.where(pixels(0) > 0, np.nan, pixels(0)), "of its values are NaN or infinite"),
        (np.full((8, 8, 3), np.inf, np.float32), "192 of its values are NaN or infinite"),
        (np.ma.masked_greater(pixels(0), 0), "is a masked array"),
        (np.zeros((8, 8, 3), np.uint8), "of uint8; expected real numbers y x colour"),
        (torch.zeros(8, 8, 3, requires_grad=True), "requires grad"),
    ],
    ids=["NaN", "infinity", "masked", "whole numbers", "gradients"],
)
def test_pictures_that_mean_nothing_are_left_out(split, picture, reason):
    pulled = bridges.pull(split, [*pictures()[:2], ("odd.jpg", picture)])
    assert pulled.names == ("0.jpg", "1.jpg")
    ((name, said),) = pulled.skipped
    assert name == "odd.jpg"
    assert reason in said


@pytest.mark.parametrize("dtype", [">f4", "f2", "f8", np.longdouble, "bfloat16"])
def test_pictures_of_other_real_types_are_read(split, dtype):
    plain = pixels(0).astype(np.float16).astype("bfloat16" if dtype == "bfloat16" else np.float16)
    pulled = bridges.pull(split, [("0.jpg", plain.astype(dtype))])
    wanted = split.features(plain.astype(np.float32)[None])
    np.testing.assert_allclose(np.asarray(pulled.activations), np.asarray(wanted), rtol=1e-5, atol=1e-6)


def test_two_runs_into_one_store_are_not_mixed(split, store):
    if store is None:
        pytest.skip("nobody else writes to memory")
    refused = []

    def meanwhile():
        with pytest.raises(ValueError, match="another run is writing to it; wait until it's done") as caught:
            bridges.pull(split, pictures(), store=store)
        refused.append(str(caught.value))
        return pixels(0)

    named = [("0.jpg", meanwhile), *pictures()[1:]]
    pulled = bridges.pull(split, named, batch=4, store=store)
    assert len(refused) == 1
    assert f"store={str(store)!r}" in refused[0]
    np.testing.assert_allclose(np.asarray(pulled.activations[:]), expected(split, range(COUNT)), rtol=1e-5, atol=1e-6)
    assert sorted(file.name for file in store.parent.iterdir()) == [store.name, f"{store.name}.json"]
    # Whatever the outcome, the store is free again; two stores in one folder are of two runs.
    assert len(bridges.pull(split, pictures(), store=store).names) == COUNT


def test_names_that_are_not_utf_8_are_kept(split, tmp_path):
    name = os.fsdecode(b"\xe9.jpg")
    for _ in range(2):
        pulled = bridges.pull(split, [(name, pixels(0))], store=tmp_path / "a.npy")
        assert pulled.names == (name,)


def test_tokens_of_a_transformer_are_kept_beside_its_maps():
    model = small.randomized(small.Tokens())
    split = bridges.split(model, "cat", preprocess=Preprocess(size=8, resize=8))
    pulled = bridges.pull(split, pictures(failing=(1, 8)), batch=4)
    images = np.stack([pixels(n) for n in range(COUNT) if n not in (1, 8)])
    with torch.no_grad():
        logits = model(torch.from_numpy(images).movedim(-1, 1)).numpy()
    assert pulled.activations.shape[1:] == (2, 2, 8)
    assert pulled.kept.shape == (9, 1, 8)
    np.testing.assert_allclose(split.head(pulled.activations, pulled.kept), logits, rtol=1e-4, atol=1e-5)
    averages = bridges.pull(split, pictures(), pooled=True)
    np.testing.assert_allclose(averages.activations, expected(split, range(COUNT)).mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert averages.kept is None


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
@pytest.mark.parametrize("hurt", ["nothing", "maps", "tokens"])
def test_tokens_in_a_store_go_on_in_step_with_their_maps(tmp_path, suffix, hurt):
    if suffix == ".zarr":
        pytest.importorskip("zarr", reason="zarr is optional")
    split = bridges.split(small.randomized(small.Tokens()), "cat", preprocess=Preprocess(size=8, resize=8))
    whole = bridges.pull(split, pictures(failing=(1, 8)), batch=4)
    path, read = tmp_path / f"a{suffix}", []
    pull_until(split, path, 9, [], failing=(1, 8))
    tokens = tmp_path / f"a-tokens{suffix}"
    if hurt != "nothing":
        # Of a store that's gone everything is done again, and of its companion as much.
        for file in (
            {"maps": path, "tokens": tokens}[hurt],
            {"maps": path, "tokens": tokens}[hurt].with_name(f"{'a' if hurt == 'maps' else 'a-tokens'}{suffix}.json"),
        ):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    pulled = pull_until(split, path, None, read, failing=(1, 8))
    assert min(read) == (0 if hurt != "nothing" else 8)
    assert pulled.names == whole.names
    np.testing.assert_array_equal(np.asarray(pulled.activations[:]), whole.activations)
    np.testing.assert_array_equal(np.asarray(pulled.kept[:]), whole.kept)
    again = bridges.pull(split, pictures(failing=(1, 8)), store=path)
    np.testing.assert_array_equal(np.asarray(again.kept[:]), whole.kept)
