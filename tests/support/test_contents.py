"""Digests of what values hold and functions do: the same again in another process, another for whatever was edited."""

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.methods import NMF, Bank, ByVectors
from face_jax.support.contents import NoContentsError, contents_digest, package_digest

OWN = """
import dataclasses
import numpy as np

SHARE = 0.5

def helper(rows, power=2):
    return rows ** power * SHARE

def weighing(scale):
    return lambda codes: scale * codes

@dataclasses.dataclass(frozen=True)
class Mine:
    name: str = "mine"
    known: dict = dataclasses.field(default_factory=dict, compare=False)

    def fit(self, activations, rank, key):
        if self.name in {"first", "second", "third"}:
            return np.zeros(rank)
        # Largest first.
        return self._largest(helper(activations))

    def _largest(self, rows):
        return [each for each in np.sort(rows) if each > 0]
"""


def module(folder, text=OWN, name="own_of_test"):
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def of(value):
    return contents_digest(value, "value")


def test_another_process_says_the_same(tmp_path):
    own = module(tmp_path)
    value = "[own_of_test.Mine(), own_of_test.weighing(3), {'a': np.arange(3), 'b': {'x', 'y', 'z'}}, NMF()]"
    code = (
        "import numpy as np, own_of_test; from face_jax.methods import NMF; "
        f"from face_jax.support.contents import contents_digest; print(contents_digest({value}, 'value').hex())"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    ).stdout.strip()
    here = [own.Mine(), own.weighing(3), {"a": np.arange(3), "b": {"x", "y", "z"}}, NMF()]
    assert of(here).hex() == said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("np.zeros(rank)", "np.ones(rank)"),
        ("rows ** power", "rows + power"),
        ("power=2", "power=3"),
        ("SHARE = 0.5", "SHARE = 0.25"),
        ("each > 0", "each > 1"),
        ('name: str = "mine"', 'name: str = "other"'),
        ('"third"}', '"fourth"}'),
    ],
)
def test_whatever_is_edited_is_seen(tmp_path, old, new):
    assert OWN.count(old) == 1
    before, after = (of(module(tmp_path, text).Mine()) for text in (OWN, OWN.replace(old, new)))
    assert before != after


def test_a_file_called_like_a_module_of_pythons_is_still_ones_own(tmp_path):
    texts = (OWN, OWN.replace("np.zeros(rank)", "np.ones(rank)"))
    before, after = (of(module(tmp_path, text, "antigravity").Mine()) for text in texts)
    del sys.modules["antigravity"]
    assert before != after


def test_what_decides_nothing_does_not_count(tmp_path):
    before = of(module(tmp_path).Mine())
    own = module(tmp_path, "\n\n" + OWN.replace("# Largest first.", "# The largest come first."))
    assert of(own.Mine()) == before
    # A cache that a field is said to be.
    assert of(own.Mine(known={"a": 1})) == before
    # Equal parts, shared or not.
    shared = [1, 2]
    assert of([shared, shared]) == of([[1, 2], [1, 2]])


def test_functions_of_one_factory_are_told_apart(tmp_path):
    own = module(tmp_path)
    assert of(own.weighing(1)) == of(own.weighing(1)) != of(own.weighing(2))
    wrapped = [of(jax.jit(own.weighing(1))), of(jax.vmap(own.weighing(1))), of(functools.partial(own.weighing, 1))]
    other = [of(jax.jit(own.weighing(2))), of(jax.vmap(own.weighing(2))), of(functools.partial(own.weighing, 2))]
    assert len({*wrapped, *other}) == 6
    assert of(own.Mine().fit) != of(own.Mine("other").fit)


def test_arrays_count_by_their_numbers_where_objects_do_not_show_them():
    first, second = (ByVectors(np.full((40, 40), value)) for value in (0.1, 0.2))
    assert repr(first) == repr(second)
    assert of(first) != of(second)
    assert of(Bank(np.ones((2, 3)))) == of(Bank(np.ones((2, 3)))) != of(Bank(np.ones((3, 2))))
    assert of(jnp.ones(3)) == of(jnp.ones(3))
    assert of(jax.random.key(0)) != of(jax.random.key(1))
    assert of(np.random.default_rng(0)) != of(np.random.default_rng(1))


def test_values_within_themselves_end(tmp_path):
    first, second = list[Any]([1]), list[Any]([2])
    first.append(first)
    second.append(second)
    assert of(first) != of(second)
    recursive = module(tmp_path, "def count(n):\n    return 0 if n == 0 else 1 + count(n - 1)\n")
    assert of(recursive.count) == of(recursive.count)


def test_a_module_of_ones_own_counts_with_those_that_it_takes_from(tmp_path):
    module(tmp_path, "value = 1\n", "deep_of_test")
    module(tmp_path, "import deep_of_test\n", "middle_of_test")
    text = "import middle_of_test\n\ndef fit():\n    return middle_of_test.deep_of_test.value\n"
    before = of(module(tmp_path, text).fit)
    within = "def fit():\n    import middle_of_test\n    return middle_of_test.deep_of_test.value\n"
    inside = of(module(tmp_path, within).fit)
    module(tmp_path, "value = 2\n", "deep_of_test")
    module(tmp_path, "import deep_of_test\n", "middle_of_test")
    assert of(module(tmp_path, text).fit) != before
    assert of(module(tmp_path, within).fit) != inside


def test_what_cannot_be_told_is_refused_in_a_sentence():
    @dataclasses.dataclass
    class Holds:
        lock: object

    with pytest.raises(NoContentsError, match=r"method has a lock .* leave it out, say in a dataclass's field"):
        contents_digest(Holds(threading.Lock()), "method")


def test_face_jax_itself_has_a_digest_of_its_files():
    assert package_digest() == package_digest()
    assert len(package_digest()) == 32
