"""One check for each kind of argument: what it takes, and what it says of the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from face_jax.support import arguments
from face_jax.support.concepts import concepts_of

ONE = [1, np.int8(1), np.uint64(1), np.array(1), jnp.asarray(1), torch.tensor(1)]
NO_NUMBERS = [True, np.True_, jnp.asarray(True), torch.tensor(True), 1.0, np.float64(1), torch.tensor(1.0), "1", b"1",
              None, [1], np.array([1]), torch.tensor([1]), 1j, object()]  # fmt: skip


@pytest.mark.parametrize("value", ONE, ids=repr)
def test_whole_numbers_of_any_package(value):
    for found in (
        arguments.index_or_none(value),
        arguments.whole("n", value, "things"),
        arguments.check_count("n", value, ""),
    ):
        assert type(found) is int
        assert found == 1
    assert concepts_of(value, 3) == concepts_of([value], 3) == (1,)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: "object" if type(value) is object else repr(value))
def test_what_is_no_whole_number_is_refused_by_name(value):
    assert arguments.index_or_none(value) is None
    with pytest.raises(ValueError, match=r"^n=.* isn't a number of things; give 0 to 5, a whole number$"):
        arguments.whole("n", value, "things", most=5)


@pytest.mark.parametrize("value", [-1, 6, np.int64(6)])
def test_whole_numbers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=f"n={value} isn't a number of things"):
        arguments.whole("n", value, "things", most=5)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), jnp.asarray(0.5), torch.tensor(0.5)], ids=repr)
def test_numbers_of_any_package(value):
    assert arguments.real("x", value, "share") == arguments.share("x", value, 0.1) == 0.5
    assert type(arguments.real("x", value, "share")) is float


@pytest.mark.parametrize("value", [None, True, "0.5", b"0.5", 0.5j, [0.5], np.array([0.5]), np.nan, np.inf], ids=repr)
def test_what_is_no_finite_number_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"^x=.* isn't a share; give a finite number"):
        arguments.real("x", value, "share")
    with pytest.raises(ValueError, match=r"^x=.* isn't a share; give a number between 0 and 1, such as 0\.1$"):
        arguments.share("x", value, 0.1)


def test_the_range_is_in_the_error():
    with pytest.raises(ValueError, match=r"x=2 isn't a share; give a finite number at least 0 and at most 1"):
        arguments.real("x", 2, "share", least=0, most=1)
    with pytest.raises(ValueError, match=r"x=0 isn't a share; give a finite number above 0 and below 1"):
        arguments.real("x", 0, "share", above=0, below=1)


def test_keys_and_seeds_draw_the_same_numbers():
    # Made of the seed as NumPy has it, which other seeds for the tests leave alone.
    made, none = (jax.random.key(np.uint32(seed)) for seed in (7, 0))
    expected = jax.random.bits(made)
    for key in (made, jax.random.PRNGKey(7), np.asarray(jax.random.PRNGKey(7)), 7, np.int64(7)):
        assert jax.random.bits(arguments.key_of(key)) == expected
    assert jax.random.bits(arguments.key_of(None)) == jax.random.bits(none)


@pytest.mark.parametrize(
    "key",
    [-1, 2**32, 1.0, True, "0", [0, 1], jax.random.split(jax.random.key(0)), jnp.zeros(2), jnp.zeros(3, "uint32")],
)
def test_what_is_no_key_is_refused(key):
    with pytest.raises(ValueError, match=r"^seed=.* isn't a key; give one, such as jax\.random\.key\(0\)"):
        arguments.key_of(key, "seed")


def test_keys_pass_through_programs():
    draw = jax.jit(lambda key: jax.random.bits(arguments.key_of(key)))
    assert draw(jax.random.key(7)) == jax.random.bits(jax.random.key(7))
    assert jax.vmap(draw)(jax.random.split(jax.random.key(7), 3)).shape == (3,)


def test_concepts_in_the_order_asked_for():
    assert concepts_of(None, 3) == (0, 1, 2)
    assert concepts_of(np.array([2, 0]), 3) == concepts_of((n for n in (2, 0)), 3) == (2, 0)
    assert concepts_of(range(2), 3) == (0, 1)


@pytest.mark.parametrize(
    "concepts", ["a", "01", b"a", {0, 1}, {0: 1}, True, np.array([True, False]), 1.0, np.array(1.0)]
)
def test_what_is_no_list_of_concepts_is_refused(concepts):
    with pytest.raises(ValueError, match=r"^concepts=.*; give numbers from 0 to 2"):
        concepts_of(concepts, 3)


@pytest.mark.parametrize(
    ("concepts", "wrong"), [([3], "3"), ([0, -1], "-1"), ([], ""), ([0, 1.5], "1.5"), ([[0]], r"\[0\]")]
)
def test_concepts_that_are_not_there_are_refused(concepts, wrong):
    with pytest.raises(ValueError, match=rf"^concepts=\[{wrong}\] of a dictionary with 3; give numbers from 0 to 2"):
        concepts_of(concepts, 3)


def test_values_are_shown_without_their_contents():
    assert arguments.shown(np.zeros((3, 4), np.float32)) == "(an array of shape (3, 4), float32)"
    assert arguments.shown(0.5) == "0.5"
    assert len(arguments.shown("a" * 1000)) < 100


def test_random_keys_are_no_numbers():
    with pytest.raises(ValueError, match=r"^A is random keys, not numbers"):
        arguments.native("A", jax.random.key(0))


class OnAnAccelerator:
    """What a library's array in a GPU's memory has, where no GPU is."""

    shape, dtype, ndim = (4, 3), torch.float32, 2

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **kwargs):
        raise BufferError("there is no GPU here")

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


@pytest.mark.parametrize(("package", "remedy"), [("torch", r"value\.detach\(\)\.cpu\(\)"), ("cupy", r"value\.get\(\)")])
def test_arrays_that_stay_on_an_accelerator_are_refused_with_the_way_out(package, remedy):
    kind = type("ndarray", (OnAnAccelerator,), {"__module__": f"{package}.core"})
    with pytest.raises(ValueError, match=rf"^A can't be read as an array .*; give {remedy}"):
        arguments.native("A", kind())


def test_arrays_on_an_accelerator_are_taken_there(monkeypatch):
    taken = jnp.ones((4, 3))
    monkeypatch.setattr(jax.dlpack, "from_dlpack", lambda value: taken)
    assert arguments.native("A", OnAnAccelerator()) is taken
    # Those in the processor's memory stay NumPy's, with all their digits whatever JAX is set to.
    assert isinstance(arguments.native("A", torch.ones(4, 3, dtype=torch.float64)), np.ndarray)
