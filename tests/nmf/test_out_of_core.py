"""Rows in blocks are factorized and encoded as in memory, to rounding, and nothing of their number is held."""

import threading
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import face_jax as fj

RANK, SHAPE = 4, (1503, 24)
BLOCK = 600
EVEN = SHAPE[0] // 3  # no shorter block at the end, which would be programs of its own; float64 has one


def planted(dtype=np.float64):
    random = np.random.default_rng(0)
    clean = random.gamma(0.5, 1, (SHAPE[0], RANK)) @ random.gamma(0.5, 1, (RANK, SHAPE[1]))
    return np.maximum(clean + 0.2 * clean.mean() * random.standard_normal(SHAPE), 0).astype(dtype)


A = planted()
RANDOM = np.random.default_rng(1)
WEIGHTS, OF_ROWS = RANDOM.uniform(size=SHAPE), jnp.asarray(RANDOM.uniform(size=SHAPE[0]))
GIVEN = fj.Given(*(jnp.asarray(RANDOM.uniform(size=size)) for size in ((SHAPE[0], RANK), (RANK, SHAPE[1]))))


def blocks(rows=A, size=BLOCK):
    return fj.RowBlocks(rows, rows=size)


def off(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def assert_same(found, wanted, rtol):
    for name in ("dictionary", "codes", "scale"):
        assert off(getattr(found, name), getattr(wanted, name)) <= rtol, name
    assert int(found.stats.steps) == int(wanted.stats.steps)
    assert int(found.stats.dead) == int(wanted.stats.dead)
    assert found.result.message == wanted.result.message
    assert off(found.stats.final_objective, wanted.stats.final_objective) <= rtol
    assert off(found.stats.objective, wanted.stats.objective) <= rtol


CASES: dict[str, Any] = {
    "as usual": {},
    "multiplicative": {"solver": fj.MultiplicativeUpdate(max_steps=15)},
    "at random": {"start": fj.Random(), "key": 3},
    "singular vectors": {"start": fj.NNDSVD()},
    "singular vectors, filled at random": {"start": fj.NNDSVDar(), "key": 3},
    "more concepts than channels": {"rank": 26, "start": fj.NNDSVDa(), "solver": fj.HALS(max_steps=4)},
    "given": {"start": GIVEN},
    "mini-batch": {"start": fj.MiniBatch(rows=200)},
    "weights and penalties": {
        "objective": fj.SquaredError(WEIGHTS * 3, OF_ROWS, l1_codes=0.1, l2_dictionary=0.2),
        "solver": fj.ADMM(max_steps=20),
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_blocks_are_factorized_as_memory_is(case):
    case = {"rank": RANK, **case}
    assert_same(fj.factorize(blocks(), **case), fj.factorize(A, **case), 1e-10)


def test_dictionaries_of_either_sign_are_found_as_in_memory():
    # Least squares for the dictionary make more of rounding.
    centred = A - A.mean()
    case: dict[str, Any] = {"solver": fj.SemiNMF(max_steps=12)}
    assert_same(fj.factorize(blocks(centred), RANK, **case), fj.factorize(centred, RANK, **case), 1e-8)


def test_float32_is_factorized_as_in_memory():
    rows = A.astype(np.float32)
    found, wanted = fj.factorize(blocks(rows, EVEN), RANK), fj.factorize(rows, RANK)
    assert found.codes.dtype == found.dictionary.dtype == np.float32
    assert off(found.dictionary, wanted.dictionary) <= 1e-5
    assert off(found.codes, wanted.codes) <= 1e-5


@pytest.mark.parametrize("scale", [1e-60, 1e80])
def test_any_unit_will_do(scale):
    # Powers of two change no digit.
    assert_same(fj.factorize(blocks(A * scale), RANK), fj.factorize(A * scale, RANK), 1e-10)


def test_codes_go_into_a_store_of_a_name(tmp_path):
    pytest.importorskip("zarr", reason="zarr is optional")
    wanted = fj.factorize(A, RANK).codes
    for name in ("codes.npy", "deep/codes.zarr"):
        found = fj.factorize(blocks(), RANK, codes=tmp_path / name)
        assert off(found.codes[:], wanted) <= 1e-10
        assert (
            sorted(each.name for each in (tmp_path / name).parent.iterdir() if "codes" in each.name)[0]
            == (tmp_path / name).name
        )
    kept = np.load(tmp_path / "codes.npy")
    assert off(kept, wanted) <= 1e-10
    with pytest.raises(ValueError, match="exists; delete it"):
        fj.factorize(blocks(), RANK, codes=tmp_path / "codes.npy")


def test_codes_that_are_not_kept_are_made_again_and_lead_to_the_same_minimum():
    solver = fj.ADMM(rtol=1e-7, max_steps=2000)
    found, wanted = fj.factorize(blocks(), RANK, solver=solver, codes=False), fj.factorize(A, RANK, solver=solver)
    assert found.result.message == wanted.result.message
    assert off(found.dictionary, wanted.dictionary) <= 1e-4
    assert found.codes.shape == (SHAPE[0], RANK)
    assert off(found.codes[100:300], fj.encode(A[100:300], found.dictionary)) <= 1e-10
    # The residual of the pair is what a measure of it in memory says.
    codes = jnp.asarray(np.asarray(found.codes))
    np.testing.assert_array_equal(codes, np.concatenate(list(found.codes.blocks())))
    assert off(found.codes[7], codes[7]) <= 1e-12
    assert off(found.codes @ found.dictionary, codes @ found.dictionary) <= 1e-12
    assert off(fj.RowBlocks(found.codes)[100:300], codes[100:300]) <= 1e-12
    measured = fj.kkt_residual(jnp.asarray(A), codes, found.dictionary)
    assert float(measured.scaled) <= 1e-6


def test_blocks_are_encoded_as_memory_is(tmp_path):
    dictionary = fj.factorize(A, RANK).dictionary
    for objective in (fj.SquaredError(), fj.SquaredError(WEIGHTS, OF_ROWS, l1_codes=0.1)):
        wanted = fj.encode(A, dictionary, objective=objective)
        assert off(fj.encode(blocks(), dictionary, objective=objective), wanted) <= 1e-10
    kept = fj.encode(blocks(), dictionary, codes=tmp_path / "codes.npy")
    assert isinstance(kept, np.memmap)
    assert off(kept, fj.encode(A, dictionary)) <= 1e-10


def test_half_precision_is_summed_in_single():
    # 8 and 11 binary digits: each entry is off by a share of up to 2⁻⁹ and 2⁻¹².
    exact = fj.factorize(A.astype(np.float32), RANK)
    for kind, entry in ((ml_dtypes.bfloat16, 2**-9), (np.float16, 2**-12)):
        stored = A.astype(kind)
        found = fj.factorize(blocks(stored, EVEN), RANK)
        assert found.codes.dtype == found.dictionary.dtype == np.float32
        # The very factorization of the numbers that are stored.
        same = fj.factorize(stored.astype(np.float32), RANK)
        assert off(found.dictionary, same.dictionary) <= 1e-5
        # Independent errors of entries average out over rows; the whole is off by no more than a single entry is.
        assert off(found.dictionary, exact.dictionary) <= entry
        off_objective = abs(float(found.stats.final_objective) / float(exact.stats.final_objective) - 1)
        assert off_objective <= entry


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_in_memory_is_computed_in_single(kind, monkeypatch):
    from face_jax.blocks import row_blocks
    from face_jax.nmf import factorization

    stored = A.astype(kind)
    single = stored.astype(np.float32)
    wanted = fj.factorize(single, RANK)
    read = []
    blockwise = factorization.factorize_blocks
    monkeypatch.setattr(
        factorization, "factorize_blocks", lambda rows, *a, **k: read.append(rows) or blockwise(rows, *a, **k)
    )
    codes = fj.encode(single, wanted.dictionary)
    for small in (row_blocks._SMALL, 0):
        monkeypatch.setattr(row_blocks, "_SMALL", small)
        for given in (stored, jnp.asarray(stored)):
            (found,) = fj.factorize_many([given], RANK) if given is stored else (fj.factorize(given, RANK),)
            assert isinstance(found.codes, jax.Array)
            assert found.codes.dtype == found.dictionary.dtype == jnp.float32
            assert off(found.dictionary, wanted.dictionary) <= 1e-5
            encoded = fj.encode(given, wanted.dictionary)
            assert isinstance(encoded, jax.Array)
            assert off(encoded, codes) <= 1e-5
    # Small ones are converted as a whole, large ones stay in their 16 bits.
    assert [rows.dtype for rows in read] == [np.dtype(kind)] * 2


def test_half_precision_is_traced_in_single():
    """In float32 as outside of `jit`; the derivative is in the 16 bits that it's for."""
    dictionary = jnp.asarray(GIVEN.dictionary, jnp.float32)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def total(rows):
        codes = fj.encode(rows, dictionary)
        return jnp.sum(codes**2), codes

    stored = jnp.asarray(A[:60], jnp.bfloat16)
    (_, found), slope = total(stored)
    (_, wanted), exact = total(stored.astype(jnp.float32))
    assert found.dtype == jnp.float32
    assert slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    # Rounded once, by up to 2⁻⁸ of each.
    np.testing.assert_allclose(np.asarray(slope, np.float32), exact, rtol=2**-8)


def test_the_next_block_is_sent_before_this_ones_result_is_asked_for(monkeypatch):
    """By the thread that reads, and no more than the next one: two blocks are on an accelerator at a time."""
    from face_jax.nmf.solvers import stream

    told, sent, rows = threading.Condition(), [], stream.Stream.of(fj.RowBlocks(A, rows=200))
    count = len(rows.pieces.ends)

    def recorded(device, part):
        with told:
            sent.append(threading.current_thread().name)
            told.notify_all()
        return part

    monkeypatch.setattr(stream, "_sent", recorded)
    for number, _ in enumerate(rows.there(), 1):
        # Nothing asks for this block's result before the loop's next turn.
        with told:
            assert told.wait_for(partial(lambda least: len(sent) >= least, min(number + 1, count)), timeout=120)
            assert len(sent) <= number + 1
    assert len(sent) == count > 3
    assert all(name.startswith("rows") for name in sent)


def test_blocks_that_were_sent_are_computed_with_as_those_that_are_not(monkeypatch):
    from face_jax.nmf.solvers import stream

    settings = {"start": GIVEN, "solver": fj.ADMM(max_steps=3)}
    wanted = fj.factorize(blocks(), RANK, **settings)
    codes = fj.encode(blocks(), wanted.dictionary)
    sent = []

    def there(device, part):
        sent.append(len(part[0]))
        return tuple(jnp.asarray(each) for each in part)

    monkeypatch.setattr(stream, "_sent", there)
    found = fj.factorize(blocks(), RANK, **settings)
    # Of the first codes' pass, three steps and the last one's, all rows.
    assert sum(sent) == 5 * SHAPE[0]
    np.testing.assert_array_equal(found.dictionary, wanted.dictionary)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(fj.encode(blocks(), wanted.dictionary), codes)
    assert sum(sent) == 6 * SHAPE[0]


def test_what_has_64_bits_is_sent_by_the_thread_that_knows_whether_it_keeps_them(monkeypatch):
    from face_jax.nmf.solvers import stream

    part = (A[:3].astype(np.float32), A[:3])
    assert stream._sent(None, part) is part
    assert stream._sent(jax.devices("cpu")[0], part) is part
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(jax, "default_backend", lambda: "gpu")
        single, double = stream._sent(None, part)
    assert isinstance(single, jax.Array)
    np.testing.assert_array_equal(single, part[0])
    assert double is part[1]


def bad(change):
    rows = A.copy()
    change(rows)
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (bad(lambda rows: rows.__setitem__((700, 3), np.nan)), r"NaN or infinite in rows .*the first at \(700, 3\)"),
        (bad(lambda rows: rows.__setitem__((1502, 0), np.inf)), r"NaN or infinite.*\(1502, 0\)"),
        (bad(lambda rows: rows.__setitem__((2, 0), -1.0)), r"1 of 36072 entries below zero.*SemiNMF"),
        (np.full(SHAPE, 1e-310), "smallest normal number"),
    ],
)
def test_what_memory_refuses_is_refused_in_blocks(rows, message):
    with pytest.raises(ValueError, match=message):
        fj.factorize(blocks(rows), RANK)


HEAD = fj.heads.Affine(jnp.eye(SHAPE[1])[:, :2], jnp.zeros(2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"solver": fj.PaperAdam()}, "rows in blocks aren't there at once"),
        ({"adjoint": fj.UnrolledAdjoint()}, "UnrolledAdjoint"),
        ({"objective": fj.SquaredError(WEIGHTS[:5])}, r"weights has shape \(5, 24\)"),
        ({"objective": fj.SquaredError(-WEIGHTS)}, "weights has entries"),
        ({"objective": fj.SquaredError(row_weights=OF_ROWS[:5])}, r"row_weights has shape \(5,\)"),
        ({"start": fj.Given(GIVEN.codes[:5], GIVEN.dictionary)}, r"start.codes has shape \(5, 4\)"),
        ({"codes": "codes.h5"}, r"codes='codes\.h5' ends in"),
        ({"codes": True}, "codes=True isn't valid"),
        ({"objective": fj.SquaredError() + fj.Faithfulness(HEAD), "codes": False}, "codes=False makes codes again"),
        ({"start": fj.MiniBatch(rows=0)}, "start.rows=0"),
    ],
)
def test_what_cannot_go_block_by_block_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fj.factorize(blocks(), RANK, **given)


def test_blocks_cannot_be_traced():
    def fitted(penalty):
        found = fj.factorize(blocks(), RANK, objective=fj.SquaredError(l2_codes=penalty, l2_dictionary=penalty))
        return jnp.sum(found.dictionary)

    with pytest.raises(ValueError, match="can't be traced"):
        jax.grad(fitted)(1.0)


def test_where_codes_go_is_asked_of_blocks_alone():
    for function in (fj.factorize, fj.encode):
        with pytest.raises(ValueError, match="these are in memory"):
            function(A, RANK if function is fj.factorize else GIVEN.dictionary, codes="codes.npy")


def test_a_run_that_has_no_room_says_so_before_it_starts(monkeypatch, tmp_path):
    # In memory, before anything is copied.
    large = np.broadcast_to(np.float32(1), (2**20, 64))
    monkeypatch.setattr("face_jax.support.memory.free_memory", lambda: 2**27)
    with pytest.raises(fj.NotEnoughMemoryError, match=r"1,048,576 × 64 activations in memory .*fj\.RowBlocks"):
        fj.factorize(large, RANK)
    # On the disk, for what is kept of all rows.
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    rows = fj.RowBlocks(large, scratch=tmp_path)
    with pytest.raises(fj.NotEnoughMemoryError, match=r"would need about 0\.\d GiB, .*scratch=.*codes=False"):
        fj.factorize(rows, RANK)


def test_progress_tells_steps_and_what_they_came_to(capsys):
    told = []

    class Told:
        def __init__(self, stage, total):
            self.stage, self.total, self.done = stage, total, 0

        def __enter__(self):
            told.append(self)

            def advance(steps):
                self.done += steps

            advance.more = told.append  # pyright: ignore[reportFunctionMemberAccess]
            return advance

        def __exit__(self, *_):
            return None

    found = fj.factorize(blocks(), RANK, progress=lambda stage, total: Told(stage, total))
    run, *states = told
    assert 0 < run.done <= run.total
    assert len(states) == int(found.stats.steps) + 1
    assert states[-1].startswith(f"step {int(found.stats.steps)}, residual ")
    assert "rows/s" in states[-1]
    # In the activations' own unit, also where the run has another one.
    for factor in (1.0, 1e-8):
        told.clear()
        given = fj.RowBlocks(factor * np.asarray(blocks()))
        found = fj.factorize(given, RANK, progress=lambda stage, total: Told(stage, total))
        said = float(told[-1].split("objective ")[1].split(",")[0])
        assert said == pytest.approx(float(found.stats.final_objective), rel=1e-3)
    # Nobody watches here, and nothing is written.
    fj.factorize(blocks(), RANK)
    assert capsys.readouterr() == ("", "")
