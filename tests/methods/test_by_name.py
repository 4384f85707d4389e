"""Methods by words and in files."""

import sys

import pytest

from face_jax import methods
from face_jax.methods.by_name import KNOWN, method_in, method_named

MINE = """
from beside import NAME

class Mine:
    name = NAME
    def fit(self, activations, rank, key): ...

class Asking(Mine):
    def __init__(self, steps): ...

mine, number = Asking(3), 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("NAME = 'mine'")
    return tmp_path


def test_every_word_makes_a_method_with_a_name_of_its_own():
    made = [known.make() for known in KNOWN.values()]
    assert all(isinstance(each, methods.Method) for each in made)
    assert len({each.name for each in made}) == len(KNOWN)
    assert method_named("craft").make() == methods.CRAFT()


def test_ones_own_is_a_class_or_an_object_in_a_file_which_imports_what_lies_beside_it(folder):
    for name in ("Mine", "mine"):
        assert method_named(f"{folder / 'mine.py'}:{name}").make().name == "mine"


def test_a_file_called_as_something_that_is_loaded_takes_nothings_place(folder):
    import json

    (folder / "json.py").write_text(MINE)
    assert method_in(folder / "json.py", "Mine").name == "mine"
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nfm", "'nfm' is no method; nearest: nmf; all: face, "),
        ("mine.py", r"'mine\.py' names no class in the file; give FILE\.py:NAME"),
        ("yours.py:Mine", "'yours.py': there is no such file"),
        ("mine.py:Other", "'mine.py' has no Other"),
        ("mine.py:Asking", r"Asking in 'mine\.py' can't be made without arguments .*steps"),
        ("mine.py:number", r"number in 'mine\.py' isn't a method; it needs a name and fit"),
    ],
)
def test_what_names_no_method_is_refused(folder, monkeypatch, word, said):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=said):
        method_named(word)
