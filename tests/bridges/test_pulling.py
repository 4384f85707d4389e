"""Activations of many pictures: in memory, on disk, taken up again, with failures by name."""

import contextlib
import json

import numpy as np
import pytest
import small_models as small
import torch

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
    path.with_name("a.npy.json").write_text("{")
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
    assert bridges.pull(split, pictures()).activations.dtype == np.float32


def test_bad_arguments_are_named(split, tmp_path):
    with pytest.raises(ValueError, match="batch=0; give 1 or more"):
        bridges.pull(split, pictures(), batch=0)
    with pytest.raises(ValueError, match="pictures is empty"):
        bridges.pull(split, [])
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
