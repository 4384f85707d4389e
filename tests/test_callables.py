"""Functions that people hand in are refused where they can't be called as they will be, or give something else."""

import contextlib
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_features, colour_model, pictures, recorded_progress

import face_jax as fj
from face_jax.support.interrupts import go_on, interruptible
from face_jax.support.progress import silent
from face_jax.support.progress_line import progress_of

RED = pictures(6, 0)
KERNEL = np.random.default_rng(0).random((14, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), RED, 0, rank=2, faithfulness=None, progress=False)


def network(function):
    """A head that isn't affine, of any function."""

    @jax.tree_util.register_static
    class Network:
        affine = False

        def __call__(self, maps):
            return function(maps)

    return Network()


def logits(maps):
    return maps.mean((1, 2)) @ jnp.asarray(KERNEL)


@contextlib.contextmanager
def gives_nothing(stage, total):
    yield None


@contextlib.contextmanager
def tells_nothing(stage, total):
    yield lambda: None


@pytest.mark.parametrize(
    "progress",
    [lambda: None, lambda stage: None, lambda stage, total, more: None],
    ids=["nothing", "one", "three"],
)
def test_progress_that_takes_other_arguments_is_refused_before_any_work(progress):
    with pytest.raises(ValueError, match=r"progress=.* can't be called as it will be.*give True, False, or a function"):
        progress_of(progress)


@pytest.mark.parametrize("progress", [lambda stage, total: None, lambda stage, total: 3, gives_nothing, tells_nothing])
def test_progress_that_gives_something_else_is_refused(progress):
    told = progress_of(progress)
    with pytest.raises(ValueError, match="progress"), told("Crops", 3):
        pass


@pytest.mark.parametrize(
    "said",
    [
        lambda maps: (logits(maps),),
        lambda maps: {"logits": logits(maps)},
        lambda maps: None,
        lambda maps: logits(maps)[:, 0],
        lambda maps: logits(maps)[:1],
        lambda maps: logits(maps)[..., None],
        lambda maps: (logits(maps) > 0).astype(jnp.int32),
        lambda maps: logits(maps).astype(jnp.complex64),
    ],
    ids=["tuple", "dict", "None", "no classes", "1 image", "3 axes", "integers", "complex"],
)
def test_heads_that_give_no_logits_are_refused(said):
    with pytest.raises(ValueError, match=r"head of colours gives .* image × class"):
        fj.explain(colour_model(head=network(said)), RED, 0, rank=2)


@pytest.mark.parametrize(
    "found",
    [
        lambda images: (colour_features(images),),
        lambda images: None,
        lambda images: colour_features(images)[:, 0],
        lambda images: colour_features(images)[:1],
        lambda images: colour_features(images) > 0,
        lambda images: colour_features(images).astype(jnp.complex64),
        lambda images: np.asarray(colour_features(images)).tolist(),
    ],
    ids=["tuple", "None", "3 axes", "1 image", "truth values", "complex", "list"],
)
def test_features_that_give_no_maps_are_refused(found):
    with pytest.raises(ValueError, match=r"features of colours give .* image × y × x × channel"):
        fj.explain(colour_model(features=found), RED, 0, rank=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", lambda: None),
        ("features", lambda images, more: None),
        ("non_negative_layers", lambda model: ()),
        ("non_negative_layers", "relu"),
        ("lowest", "0"),
        ("notes", "a note"),
        ("notes", (3,)),
        ("layer", 3),
        ("name", None),
        ("fingerprint", b"abc"),
    ],
)
def test_fields_of_a_model_that_are_something_else_are_refused(field, value):
    with pytest.raises((ValueError, TypeError), match=field):
        colour_model(**{field: value})


def test_heads_of_two_arguments_are_refused():
    @jax.tree_util.register_static
    class Two:
        affine = True

        def __call__(self, maps, more):
            return maps

    with pytest.raises(ValueError, match=r"head=.* can't be called as it will be.*missing.*more"):
        colour_model(head=Two())


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("crops", lambda: None),
        ("crops", lambda shapes: None),
        ("cache", lambda: None),
        ("cache", lambda depends_on: None),
    ],
)
def test_rules_and_caches_that_take_other_arguments_are_refused_before_any_work(argument, value):
    with pytest.raises(ValueError, match=f"{argument}=.* can't be called as it will be"):
        fj.explain(colour_model(), ["no such file"], 0, **{argument: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("earlier", lambda: None),
        ("earlier", lambda one, two: None),
        ("cache", None),
        ("cache", lambda depends_on: None),
        ("progress", lambda stage: None),
    ],
)
def test_recursion_refuses_functions_of_other_arguments(explanation, argument, value):
    given: dict[str, Any] = {"earlier": colour_model()} | {argument: value}
    with pytest.raises((ValueError, TypeError), match=argument):
        fj.recurse(explanation, **given)


def test_methods_of_other_arguments_are_refused(explanation):
    with pytest.raises(ValueError, match=r"method=.* can't be called as it will be"):
        explanation.maps(RED[:1], method=lambda model, dictionary, images: None)


@pytest.mark.parametrize("number", [-1, -2, 6, True, 1.0, "1", None, slice(0, 1)])
def test_photographs_that_are_not_there_are_refused(explanation, number):
    with pytest.raises(ValueError, match=r"number=.* isn't a number of a photograph; give 0 to 5"):
        explanation.maps_of(number)


@pytest.mark.parametrize("path", [None, "", 3, True, b"there", ["there"]])
def test_what_is_no_path_is_refused(explanation, path):
    for write in (fj.save, fj.write_report, lambda _, folder: fj.load(folder, explanation.model)):
        with pytest.raises((ValueError, TypeError), match="folder"):
            write(explanation, path)
    if path is not None:
        with pytest.raises((ValueError, TypeError), match="path"):
            fj.picture(explanation, RED[0], path)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("sanity", True), ("sanity", "yes"), ("visualization", [1]), ("command", 3), ("command", ["face-jax"])],
)
def test_reports_refuse_what_is_no_part_of_them(explanation, tmp_path, argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        fj.write_report(explanation, tmp_path / "report", **{argument: value})
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "3", None])
def test_pictures_of_no_number_of_concepts_are_refused(explanation, most):
    with pytest.raises((ValueError, TypeError), match="most"):
        fj.picture(explanation, RED[0], most=most)


@pytest.mark.parametrize("name", [3, None, colour_model()])
def test_stages_without_a_name_are_refused(explanation, name):
    # What annotations refuse is refused by beartype here, as tests switch it on.
    with pytest.raises((ValueError, TypeError), match="stages"):
        fj.sanity_check(explanation, [(name, colour_model())])


@pytest.fixture
def interrupts():
    """Ctrl-C as in a terminal: what is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("becomes", [None, RuntimeError("a callback failed")], ids=["swallowed", "another error"])
def test_an_interrupt_inside_a_callback_ends_an_explanation(becomes):
    """As a head in torch or NumPy may do, whose exceptions JAX turns into its own."""
    calls = []

    def host(maps):
        calls.append(len(calls))
        try:
            if len(calls) == 1:
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if becomes is not None:
                raise becomes from None
        return np.zeros((len(maps), 3), maps.dtype) + np.asarray([1, 0, 0], maps.dtype)

    def called_back(maps):
        shape = jax.ShapeDtypeStruct((maps.shape[0], 3), maps.dtype)
        return jax.pure_callback(host, shape, maps)

    before = signal.getsignal(signal.SIGINT)
    told, progress = recorded_progress()
    with pytest.raises(KeyboardInterrupt):
        fj.explain(colour_model(head=network(called_back)), RED, 0, rank=2, progress=progress)
    assert len(told) == 1
    assert signal.getsignal(signal.SIGINT) is before
    go_on()


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("progress", [silent, recorded_progress()[1]], ids=["silent", "own"])
def test_a_lost_interrupt_ends_the_work_at_its_next_step(progress):
    steps = []

    @interruptible()
    def work():
        with progress_of(progress)("Work", 3) as advance:
            for step in range(3):
                steps.append(step)
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
                advance(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == [0]


def test_programs_that_treat_interrupts_themselves_are_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            go_on()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_an_error_without_an_interrupt_stays_what_it_is():
    with pytest.raises(RuntimeError, match="other"), interruptible(), interruptible():
        raise RuntimeError("other")
