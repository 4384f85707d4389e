"""Rows on many devices stay where they are: results are one device's, and what is sent doesn't grow with the rows."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest
from collectives import beside
from compiling import QUICKLY, compiled_as_here

from face_jax.linalg.control_flow import after

TESTS = pathlib.Path(__file__).resolve().parents[1]
BEGIN = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from collectives import beside, collectives
import face_jax as fj
RANK, CHANNELS = 3, 8
DEVICES = len(jax.devices())
MESH = Mesh(np.array(jax.devices()), ("row",))
def planted(rows):
    rng = np.random.default_rng(3)
    A = rng.gamma(0.3, 1, (rows, RANK)) @ rng.gamma(0.3, 1, (RANK, CHANNELS))
    return np.maximum(A + 0.3 * A.mean() * rng.standard_normal(A.shape), 0)
def split(A, mesh=MESH):
    return jax.device_put(A, NamedSharding(mesh, P("row")))
def sent(compiled, A):
    text = compiled.lower(split(A)).compile().as_text()
    # Between processes, messages of a loop and others beside it could meet each other.
    assert not beside(text), beside(text)
    return collectives(text)
def by_rows(x):
    return x.sharding.spec[0] == "row" and len(x.sharding.device_set) == DEVICES
def close(found, wanted, tolerance):
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
# A sixteenth, which is factorized first, has more rows than channels, and stays where it is.
A = planted(64 * DEVICES)
W = np.abs(np.random.default_rng(1).standard_normal((RANK, CHANNELS)))
"""
SCRIPTS = {
    "fits": """
from face_jax.nmf.solvers import loop
from face_jax.nmf.solvers.problem import Problem
solver = fj.ADMM(rtol=1e-11, max_steps=400)
fit = jax.jit(lambda a: fj.factorize(a, RANK, solver=solver))
for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-5)):
    one, many = fit(A.astype(dtype)), fit(split(A.astype(dtype)))
    assert by_rows(many.codes) and many.dictionary.sharding.is_fully_replicated
    assert abs(many.stats.final_objective / one.stats.final_objective - 1) < tolerance
    close(many.dictionary, one.dictionary, tolerance)
    close(many.codes, one.codes, 10 * tolerance)
direct = fj.factorize(split(A), RANK, solver=solver)
assert by_rows(direct.codes)
close(direct.dictionary, fit(A).dictionary, 1e-10)
# Twice the rows: the same messages, none of which gathers anything, though a sample of the rows is factorized first.
messages = sent(fit, A)
assert {kind for kind, _ in messages} == {"all-reduce"}, messages
assert messages == sent(fit, planted(128 * DEVICES))

def step(a, state):
    return loop._step(Problem(a, fj.SquaredError(), fj.ADMM(), None, jnp.sum(a**2)), state)
def begin(a):
    problem = Problem(a, fj.SquaredError(), fj.ADMM(), None, jnp.sum(a**2))
    return loop._first(problem, jnp.ones((RANK, len(a))), jnp.asarray(W))
a = split(A)
state = jax.jit(begin)(a)
messages = collectives(jax.jit(step).lower(a, state).compile().as_text())
numbers = RANK**2 + RANK * CHANNELS
assert {kind for kind, _ in messages} == {"all-reduce"}, messages
# Each device's `U A` and `U Uᵀ`, and ‖A‖² that is computed here anew.
assert numbers * 8 <= sum(size for _, size in messages) <= 2 * numbers * 8, messages
""",
    "encodes": """
encode = jax.jit(lambda a: fj.encode(a, W))
many = encode(split(A))
assert by_rows(many) and by_rows(fj.encode(split(A), W))
close(many, fj.encode(A, W), 1e-14)
# One truth value: whether any row is of odd size.
assert sent(encode, A) == [("all-reduce", 1)]
weights = fj.SquaredError(weights=np.random.default_rng(5).random(A.shape), l1_codes=0.1)
repeated = np.concatenate([W, W[:1] + W[1:2]])
for objective, dictionary in ((weights, W), (fj.SquaredError(), repeated)):
    close(fj.encode(split(A), dictionary, objective=objective), fj.encode(A, dictionary, objective=objective), 1e-14)
forward = jax.jit(lambda a: jax.jvp(lambda a: fj.encode(a, W), (a,), (jnp.cos(a),))[1])
backward = jax.jit(jax.grad(lambda a, w: jnp.sum(jnp.sin(fj.encode(a, w))), (0, 1)))
close(forward(split(A)), forward(A), 1e-14)
assert {kind for kind, _ in sent(forward, A)} == {"all-reduce"}
for found, wanted in zip(backward(split(A), W), backward(A, W)):
    close(found, wanted, 1e-12)
assert by_rows(backward(split(A), W)[0])
# Inside shard_map, with its own check of what differs between devices.
mapped = jax.shard_map(fj.encode, mesh=MESH, in_specs=(P("row"), P()), out_specs=P("row"))
close(jax.jit(mapped)(A, W), many, 1e-14)
close(jax.jit(mapped)(A, repeated), fj.encode(A, repeated), 1e-14)
inside = jax.jit(jax.grad(lambda w: jnp.sum(jnp.sin(mapped(A, w)))))(W)
close(inside, backward(A, W)[1], 1e-12)
""",
    "differentiates": """
solver = fj.ADMM(rtol=1e-11, max_steps=400)
C = np.random.default_rng(5).standard_normal((RANK, CHANNELS))
def loss(a):
    found = fj.factorize(a, RANK, solver=solver, adjoint=fj.ImplicitAdjoint(rtol=1e-10, throw=False))
    encoded = fj.encode(a, found.dictionary)
    return jnp.sum(C * found.dictionary) + jnp.sum(jnp.cos(found.codes)) + jnp.sum(jnp.sin(2 * encoded))
backward = jax.jit(jax.grad(loss))
many = backward(split(A))
assert by_rows(many) and jnp.any(many != 0)
close(many, backward(A), 1e-8)
messages = sent(backward, A)
assert {kind for kind, _ in messages} == {"all-reduce"} and max(messages)[1] < 8 * 1024, messages
objective = fj.SquaredError(l1_codes=0.01, l1_dictionary=0.01)
def pair(a):
    found = fj.factorize(a, RANK, solver=solver, objective=objective, adjoint=fj.ImplicitAdjoint(rtol=1e-10))
    return found.codes, found.dictionary
forward = jax.jit(lambda a: jax.jvp(pair, (a,), (jnp.cos(a),))[1])
for found, wanted in zip(forward(split(A)), forward(A)):
    close(found, wanted, 1e-8)
""",
    "keeps predictions": """
head = fj.heads.Affine(np.random.default_rng(3).standard_normal((CHANNELS, 4)), np.zeros(4))
# More rows than are looked at together.
A = planted(4096)
for kept in (True, False):
    objective = fj.SquaredError() + 0.5 * fj.Faithfulness(head, keep_predictions=kept)
    solver = fj.ADMM(rtol=1e-9, max_steps=40)
    fit = jax.jit(lambda a: fj.factorize(a, RANK, objective=objective, solver=solver))
    many = fit(split(A))
    # What is kept is what would be made again: one device finds the same either way.
    one = fit(A) if kept else one
    assert by_rows(many.codes)
    assert abs(many.stats.final_objective / one.stats.final_objective - 1) < 1e-10
    close(many.dictionary, one.dictionary, 1e-6)
    messages = sent(fit, A)
    assert {kind for kind, _ in messages} == {"all-reduce"} and max(messages)[1] < 8 * 1024, messages
A = A[:1024]
encode = jax.jit(lambda a: fj.encode(a, W, objective=objective))
close(encode(split(A)), encode(A), 1e-9)
assert {kind for kind, _ in sent(encode, A)} == {"all-reduce"}
""",
    "takes shardings that are types": """
mesh = jax.make_mesh((DEVICES,), ("row",), axis_types=(jax.sharding.AxisType.Explicit,))
a = split(A, mesh)
assert jax.typeof(a).sharding.spec[0] == "row"
many = fj.factorize(a, RANK)
assert jax.typeof(many.codes).sharding.spec[0] == "row" and by_rows(many.codes)
close(many.dictionary, fj.factorize(A, RANK).dictionary, 1e-12)
with jax.set_mesh(mesh):
    codes = jax.jit(fj.encode)(a, W)
assert jax.typeof(codes).sharding.spec[0] == "row" and by_rows(codes)
close(codes, fj.encode(A, W), 1e-14)
plain, typed = (fj.kkt_residual(x, u, W).scaled for x, u in ((A, jnp.asarray(np.asarray(codes))), (a, codes)))
assert abs(plain - typed) < 1e-12
found = fj.certify_codes(a, codes, W)
assert bool(found.met.all()) and by_rows(found.violation)
scan = lambda x: fj.rank_scan(x, [2], folds=2, starts=2, solver=fj.ADMM(rtol=0.0, max_steps=3))
close(scan(a).held_out, scan(A).held_out, 1e-10)
""",
    "keeps checkpoints": """
import dataclasses, pathlib, pytest
from face_jax.nmf import checkpoint as keeping
pytest.importorskip("orbax.checkpoint")
SOLVER = fj.ADMM(rtol=1e-9, max_steps=40)
told = []
class Told:
    def __enter__(self):
        return told.append
    def __exit__(self, *error):
        pass
def fitted(folder, a, **changes):
    kept = folder and fj.Checkpoint(pathlib.Path(folder), steps=5)
    given = {"solver": SOLVER, "checkpoint": kept, "progress": lambda stage, total: Told()} | changes
    return fj.factorize(a, RANK, **given)
def killed(folder, a, after=3):
    save = keeping.Keeper.save
    def saved(self, step, *given):
        save(self, step, *given)
        if step == 5 * after:
            raise KeyboardInterrupt
    keeping.Keeper.save = saved
    with pytest.raises(KeyboardInterrupt):
        fitted(folder, a, solver=dataclasses.replace(SOLVER, max_steps=17))
    keeping.Keeper.save = save
    assert sorted(each.name for each in pathlib.Path(folder).glob("step-*")) == [
        f"step-{step:09d}" for step in (5 * after - 5, 5 * after)]
# Of no ordinary size, so that they are brought to another unit.
A = 1e7 * A
one, whole = fj.factorize(A, RANK, solver=SOLVER), fitted("whole", split(A))
assert sum(told) == int(whole.stats.steps) > 20
assert by_rows(whole.codes) and whole.dictionary.sharding.is_fully_replicated
close(whole.dictionary, one.dictionary, 1e-8)
assert abs(whole.stats.final_objective / one.stats.final_objective - 1) < 1e-10
killed("killed", split(A))
again = fitted("killed", split(A))
assert by_rows(again.codes)
for found, wanted in zip(jax.tree.leaves(again), jax.tree.leaves(whole)):
    np.testing.assert_array_equal(found, wanted)
# Spread in another way, or by types, it's the same problem.
for a in (split(A, Mesh(MESH.devices[:2], ("row",))),
          split(A, jax.make_mesh((DEVICES,), ("row",), axis_types=(jax.sharding.AxisType.Explicit,)))):
    found = fitted("killed", a)
    assert found.codes.sharding.is_equivalent_to(jax.NamedSharding(a.sharding.mesh, P("row", None)), 2)
    assert jax.typeof(found.codes).sharding.mesh == jax.typeof(a).sharding.mesh
    close(found.dictionary, whole.dictionary, 1e-9)
penalized = fj.SquaredError(l2_codes=1e-3, l2_dictionary=1e-3)
for what, a, changes in (
    ("numbers", A + 1e-3 * (np.arange(len(A)) == 7)[:, None], {}), ("solver", A, {"solver": fj.HALS()}),
    ("key", A, {"key": 1}), ("objective", A, {"objective": penalized}),
):
    with pytest.raises(fj.CheckpointError, match=f"another problem: its .*{what}"):
        fitted("killed", split(a), **changes)
term = fj.Faithfulness(fj.heads.Affine(W.T, np.zeros(3)))
for match, a, changes in (
    ("further terms", split(A), {"objective": fj.SquaredError() + term}),
    ("PaperAdam", split(A), {"solver": fj.PaperAdam()}),
    ("UnrolledAdjoint", split(A), {"adjoint": fj.UnrolledAdjoint()}),
    ("spread by rows", jax.device_put(A, NamedSharding(MESH, P(None, "row"))), {}),
):
    with pytest.raises(ValueError, match=match):
        fitted("other", a, **changes)
last = sorted(pathlib.Path("killed").glob("step-*"))[-1]
for file in last.rglob("d/*"):
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
with pytest.raises(fj.CheckpointError, match=f"{last.name}', is damaged"):
    fitted("killed", split(A))
""",
}


TEXT = """
branch {
  ROOT %sum = f64[] all-reduce(%x), to_apply=%add
}

ENTRY main {
  %a = pred[8]{0} parameter(0)
  %early = pred[8]{0} all-reduce(%a), to_apply=%or
  %way = (f64[]) conditional(%early), branch_computations={%branch, %other}
  %needs = f64[] get-tuple-element(%way), index=0
  %waits = pred[8]{0} all-reduce(%NEEDED), to_apply=%or
}
"""


def test_messages_beside_a_branch_that_sends_are_found():
    assert beside(TEXT.replace("NEEDED", "needs")) == []
    assert beside(TEXT.replace("NEEDED", "a")) == [("way", "waits")]


def test_what_comes_after_a_number_needs_it():
    x = jnp.ones(3)
    for known in (0.0, 0):
        assert (after(x, jnp.asarray(known)) == x).all()
    for unknown in (jnp.nan, -1):
        assert jnp.isnan(after(x, jnp.asarray(unknown))).all()


@pytest.mark.parametrize("script", SCRIPTS)
def test_many_devices(tmp_path, script):
    # Programs are the same for any number of devices, and take longer to compile for many.
    devices = 8 if script == "fits" else 4
    flags = f"{QUICKLY} --xla_force_host_platform_device_count={devices}"
    environment = compiled_as_here(XLA_FLAGS=flags, PYTHONPATH=str(TESTS))
    code = BEGIN + f"assert DEVICES == {devices}\n" + SCRIPTS[script] + '\nprint("same")'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == "same", done.stderr[-3000:]
