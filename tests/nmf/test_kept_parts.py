"""Scans and paths that were stopped go on behind what was finished, and steps are told while a compiled loop runs."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import face_jax as fj
from face_jax.heads import Affine
from face_jax.nmf import encoding, kept_parts
from face_jax.nmf.objective import Term
from face_jax.support import progress_line, watched_steps
from face_jax.support.progress import open_stage, silent

RNG = np.random.default_rng(0)
A = jnp.asarray(RNG.gamma(0.5, 1, (60, 3)) @ RNG.gamma(0.5, 1, (3, 12)) + 0.01 * RNG.random((60, 12)))
SOLVER = fj.ADMM(rtol=0.0, max_steps=5)


class StoppedError(Exception):
    """What a killed run is to the code under test."""


@pytest.fixture
def stopped_after(monkeypatch):
    """Lets so many parts be computed, then stops; without a number, counts."""
    made = itertools.count()
    most = [10**6]

    class Counting(kept_parts.ArrayCache):
        def __call__(self, depends_on, compute):
            def counted():
                if next(made) >= most[0]:
                    raise StoppedError
                return compute()

            return super().__call__(depends_on, counted)

    monkeypatch.setattr(kept_parts, "ArrayCache", Counting)

    def stop(after):
        nonlocal made
        made, most[0] = itertools.count(), after
        return lambda: next(made)

    return stop


def scanned(given, **more):
    return fj.rank_scan(given, [2, 3], folds=2, starts=2, solver=SOLVER, **more)


def same_scan(found, wanted):
    for name in ("held_out", "held_out_error", "fitted", "stability", "floor"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


@pytest.mark.parametrize("in_blocks", [False, True])
def test_a_scan_that_was_stopped_goes_on_and_ends_with_the_same_numbers(in_blocks, stopped_after, tmp_path):
    given = fj.RowBlocks(np.asarray(A), rows=20) if in_blocks else A
    wanted = scanned(given)
    # Four ranks of masks, and the starts of two ranks.
    for after in (3, 5):
        with contextlib.suppress(StoppedError):
            stopped_after(after)
            scanned(given, checkpoint=tmp_path / str(after))
        made = stopped_after(10**6)
        same_scan(scanned(given, checkpoint=tmp_path / str(after)), wanted)
        assert made() == 6 - after
    # Another key, other rows, another solver: nothing of this one's is taken.
    for other, more in ((given, {"key": 1}), (fj.RowBlocks(np.asarray(2 * A + 1)) if in_blocks else 2 * A + 1, {})):
        made = stopped_after(10**6)
        scanned(other, checkpoint=tmp_path / "5", **more)
        assert made() == 6


def test_a_path_that_was_stopped_goes_on_and_ends_with_the_same_numbers(stopped_after, tmp_path, monkeypatch):
    head = Affine(jnp.asarray(RNG.normal(size=(12, 4))), jnp.zeros(4))
    term = fj.Faithfulness(head)
    settings = {"weights": [1.0, 10.0], "solver": SOLVER}
    wanted = fj.faithfulness_path(A[:40], 3, term, A[40:], **settings)
    stopped_after(2)
    with pytest.raises(StoppedError):
        fj.faithfulness_path(A[:40], 3, term, A[40:], checkpoint=tmp_path, **settings)
    made = stopped_after(10**6)
    found = fj.faithfulness_path(A[:40], 3, term, A[40:], checkpoint=tmp_path, **settings)
    assert made() == 1
    assert found.table() == wanted.table()
    assert found.chosen == wanted.chosen
    for ours, theirs in zip(jax.tree.leaves(found.solution), jax.tree.leaves(wanted.solution), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Another term is another path.
    made = stopped_after(10**6)
    other = fj.Faithfulness(Affine(2 * head.kernel, head.bias))
    fj.faithfulness_path(A[:40], 3, other, A[40:], checkpoint=tmp_path, **settings)
    assert made() == 3
    # So is one by other code.
    monkeypatch.setattr(kept_parts, "package_digest", lambda: b"edited")
    made = stopped_after(10**6)
    fj.faithfulness_path(A[:40], 3, other, A[40:], checkpoint=tmp_path, **settings)
    assert made() == 3


@pytest.mark.parametrize("wrong", ["", 3, True])
def test_a_checkpoint_that_is_no_folder_is_refused(wrong):
    with pytest.raises(ValueError, match=r"checkpoint=.* isn't the path of a folder"):
        scanned(A, checkpoint=wrong)


class Told:
    """A progress that writes down what it's told."""

    def __init__(self):
        self.stages, self.texts = [], []

    @contextlib.contextmanager
    def __call__(self, stage, total):
        self.stages.append([stage, total, 0])

        def advance(steps):
            self.stages[-1][2] += steps

        advance.more = self.texts.append  # pyright: ignore[reportFunctionMemberAccess]
        yield advance


def test_the_scan_tells_how_far_it_is():
    told = Told()
    scanned(A, progress=told)
    assert told.stages == [["Comparing ranks", 8, 8]]


@pytest.mark.parametrize(
    ("solver", "more"),
    [
        (fj.ADMM(rtol=0.0, max_steps=7), {}),
        (fj.HALS(rtol=0.0, max_steps=7), {"objective": fj.BetaDivergence(1)}),
        (fj.ADMM(rtol=0.0, max_steps=7), {"start": fj.NNDSVD()}),
    ],
    ids=["warm", "divergence", "NNDSVD"],
)
def test_steps_of_a_compiled_loop_are_told_and_change_nothing(solver, more):
    told = Told()
    rows = jnp.tile(A + 0.1, (5, 1))
    found = fj.factorize(rows, 3, solver=solver, progress=told, **more)
    wanted = fj.factorize(rows, 3, solver=solver, **more)
    np.testing.assert_array_equal(found.dictionary, wanted.dictionary)
    steps = int(wanted.stats.steps)
    assert told.stages == [["Factorizing", 7, steps]]
    # Those of samples aren't told of.
    assert [text.split(",")[0] for text in told.texts] == [f"step {number + 1}" for number in range(steps)]
    assert f"residual {float(wanted.stats.residual[steps]):.1e}" in told.texts[-1]
    share = float(wanted.stats.objective[steps] / wanted.stats.objective[0])
    assert f"objective {share:.3g} of the start's" in told.texts[-1]
    assert all(text.endswith(" rows/s") for text in told.texts[1:])


def test_steps_are_told_beside_terms_and_not_where_they_are_traced():
    told = Told()
    term = fj.Faithfulness(Affine(jnp.asarray(RNG.normal(size=(12, 4))), jnp.zeros(4)))
    found = fj.factorize(A, 3, objective=fj.SquaredError() + 1.0 * term, solver=SOLVER, progress=told)
    assert told.texts[-1].startswith(f"step {int(found.stats.steps)}, ")
    nobody = Told()
    assert jax.jit(lambda a: fj.factorize(a, 3, solver=SOLVER, progress=nobody).dictionary)(A).shape == (3, 12)
    assert nobody.stages == []


OTHER = np.random.default_rng(1)
HEAD = Affine(jnp.asarray(OTHER.normal(size=(12, 4))), jnp.zeros(4))
ROWS, WEIGHTS = (jnp.asarray(OTHER.random((50, 12))) for _ in range(2))
ENCODED = {
    "weights": (fj.SquaredError(weights=WEIGHTS, row_weights=WEIGHTS[:, 0], l1_codes=0.01), 7),
    "divergence": (fj.BetaDivergence(1), 7),
    # Of two rows each, which stay together.
    "terms": (fj.SquaredError() + 0.5 * fj.Faithfulness(HEAD, grid=(1, 2), weights=jnp.arange(25.0)), 6),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_rows_that_are_encoded_are_told_some_after_the_other_and_are_the_same(kind, monkeypatch):
    objective, size = ENCODED[kind]
    monkeypatch.setattr(encoding, "_TOLD_ROWS", 7)
    told, dictionary = Told(), A[:3]
    found = fj.encode(ROWS, dictionary, objective=objective, progress=told)
    np.testing.assert_allclose(found, fj.encode(ROWS, dictionary, objective=objective), rtol=1e-9, atol=1e-12)
    assert told.stages == [["Encoding", 50, 50]]
    assert len(told.texts) == -(-50 // size)
    assert all(text.endswith(" rows/s") for text in told.texts)


def test_rows_in_blocks_and_sparse_ones_are_told_too(monkeypatch):
    monkeypatch.setattr(encoding, "_TOLD_ROWS", 20)
    for rows, stage in (
        (fj.RowBlocks(np.asarray(ROWS), rows=20), "Encoding, blocks of rows"),
        (scipy.sparse.csr_array(np.asarray(ROWS)), "Encoding"),
    ):
        told = Told()
        fj.encode(rows, A[:3], progress=told)
        assert told.stages == [[stage, 50, 50]]


def test_what_an_encoding_can_not_tell_changes_nothing(monkeypatch):
    class Whole(Term):
        """A term that sees all rows, and nothing of some."""

        def prepare(self, activations):
            return activations

        def value(self, prepared, codes, dictionary):
            return jnp.sum((codes @ dictionary) ** 2) / 2

        def rows_together(self, rows):
            return 1

        def values(self, prepared, codes, dictionary):
            return jnp.sum((codes @ dictionary) ** 2, axis=1) / 2

        def counted(self, prepared, counts):
            return prepared

    jax.tree_util.register_static(Whole)
    monkeypatch.setattr(encoding, "_TOLD_ROWS", 20)
    told = Told()
    fj.encode(ROWS, A[:3], objective=fj.SquaredError() + 1.0 * Whole(), progress=told)
    assert len(told.texts) == 1
    # Where codes leave the range, their rows are counted through all parts.
    wrong = np.ones((50, 12), np.float32)
    wrong[45] = 1e30
    with pytest.raises(ValueError, match="codes of 1 rows, the first 45, leave the range"):
        fj.encode(wrong, np.full((1, 12), 1e-30, np.float32), progress=Told())
    nobody = Told()
    assert jax.jit(lambda rows: fj.encode(rows, A[:3], progress=nobody))(ROWS).shape == (50, 3)
    assert nobody.stages == []
    assert "callback" not in str(jax.make_jaxpr(lambda rows: fj.encode(rows, A[:3], progress=True))(ROWS))


def test_on_a_terminal_only_what_takes_long_is_told_and_only_once(monkeypatch):
    monkeypatch.setattr(progress_line, "_watched", lambda: True)
    told = Told()
    monkeypatch.setattr(progress_line, "line", told)
    fj.factorize(A, 3, solver=SOLVER)
    assert told.stages == []
    monkeypatch.setattr(watched_steps, "_LARGE", 0)
    fj.factorize(A, 3, solver=SOLVER)
    assert told.stages == [["Factorizing", 5, 5]]
    # Part of work of which somebody, or nobody, is told.
    with open_stage():
        fj.factorize(A, 3, solver=SOLVER)
    with silent("everything", 1):
        fj.factorize(A, 3, solver=SOLVER)
    with progress_line.progress_of(Told())("everything", 1):
        fj.factorize(A, 3, solver=SOLVER)
    assert len(told.stages) == 1
    fj.factorize(A, 3, solver=SOLVER)
    assert len(told.stages) == 2
