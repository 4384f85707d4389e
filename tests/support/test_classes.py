"""Classes by name and number, and the ways in which their names are given."""

import collections
import enum
import pathlib
import unicodedata

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from face_jax.support.classes import UnknownClassError, class_index, class_names, other_reading

CLASSES = ("tench", "English springer, English springer spaniel", "church", "crane", "crane", "chain saw")
FOLDERS = ("0", "1", "10", "11", "2")  # in the order in which folders are listed


@pytest.mark.parametrize(
    ("target", "number"), [("church", 2), (" Church ", 2), ("English springer spaniel", 1), ("5", 5), (0, 0), ("05", 5)]
)
def test_found(target, number):
    assert class_index(CLASSES, target) == number


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("chrch", "did you mean church"),
        ("springer", "English springer"),
        ("crane", r"\[3, 4\]"),
        (6, "0…5"),
        (-1, "0…5"),
        ("-1", "isn.t a class"),
        ("+1", "isn.t a class"),
        ("²", "isn.t a class"),
        ("٣", "isn.t a class"),
        ("1_0", "isn.t a class"),
        ("", "isn.t a class"),
        ("9" * 5000, "0…5"),
        ("1" + "0" * 5000, "0…5"),
        ("zzz", "such as tench"),
    ],
)
def test_not_found(target, said):
    with pytest.raises(UnknownClassError, match=said):
        class_index(CLASSES, target)


@pytest.mark.parametrize(
    ("classes", "target", "number"),
    [
        (("7", "0", "3"), "0", 1),
        (("7", "0", "3"), "7", 0),
        (("7", "0", "3"), 0, 0),
        (FOLDERS, "2", 4),
        (FOLDERS, 2, 2),
        (("007", "agent"), "007", 0),
        (("²", "x"), "²", 0),
        (("-1", "+1"), "+1", 1),
        (("Cat", "cat"), "cat", 1),
        (("Cat", "CAT", "dog"), "CAT", 1),
        ((" cat", "dog"), "cat", 0),
        (("zero", "two, 1", "three"), "1", 1),
        (("zero", "one", "two, 1"), "1", 2),
        (("Straße", "road"), "STRASSE", 0),
    ],
)
def test_a_string_that_is_a_name_means_that_class(classes, target, number):
    assert class_index(classes, target) == number


def test_zeros_before_a_number_never_mean_another_class_than_the_one_named_so():
    with pytest.raises(UnknownClassError, match="which has '2'; give that name"):
        class_index(FOLDERS, "02")
    with pytest.raises(UnknownClassError, match="which has '02'; give that name"):
        class_index(("00", "01", "10", "02"), "2")
    assert class_index(("00", "01", "02"), "2") == 2


@pytest.mark.parametrize("target", ["1", "01"])
def test_a_number_never_means_another_class_than_the_one_whose_name_is_as_much(target):
    with pytest.raises(UnknownClassError, match=r"which has '1\.0'; give that name"):
        class_index(("2.0", "0.0", "1.0"), target)
    assert class_index(("0.0", "1.0", "2.0"), target) == 1
    assert class_index(("nan", "1_0", "x"), target) == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_the_same_however_they_are_written(form):
    composed, apart = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    target = unicodedata.normalize(form, "café")
    assert class_index(("cafe", composed), target) == class_index(("cafe", apart), target) == 1
    assert class_index(("cafe", f"bar, {apart}"), target.upper()) == 1
    assert class_index((composed, apart), target) == ["NFC", "NFD"].index(form)
    assert class_index((composed, "cafe"), "cafe") == 1


def test_names_that_several_classes_have_are_refused_with_their_numbers():
    with pytest.raises(UnknownClassError, match=r"\[0, 2\]; give the number of one, as an integer"):
        class_index(("1", "x", "1"), "1")
    with pytest.raises(UnknownClassError, match=r"\[0, 1\]"):
        class_index(("Cat", "CAT"), "cat")


@pytest.mark.parametrize("number", [np.int64(2), np.uint8(2), np.array(2), jnp.asarray(2), torch.tensor(2)])
def test_numbers_of_any_package_are_numbers(number):
    assert class_index(CLASSES, number) == 2
    assert type(class_index(CLASSES, number)) is int


@pytest.mark.parametrize(
    "target",
    [True, np.True_, jnp.asarray(True), torch.tensor(True), 1.0, np.float32(1), torch.tensor(1.0), [1], ("tench",),
     np.array([1]), torch.tensor([1]), b"tench", b"1", None, {"tench"}],
)  # fmt: skip
def test_what_is_neither_a_name_nor_a_whole_number_is_refused(target):
    with pytest.raises(UnknownClassError, match="neither a name nor a whole number"):
        class_index(CLASSES, target)


def test_both_readings_are_told_where_they_differ():
    told = other_reading(FOLDERS, "2") or ""
    assert "class named '2', which is number 4" in told
    assert "Class number 2 is named '10'" in told
    told = other_reading(FOLDERS, 2) or ""
    assert "class number 2, which is named '10'" in told
    assert "class named '2' is number 4" in told
    assert "number 1" in (other_reading(("zero", "one", "two, 1"), "1") or "")


@pytest.mark.parametrize(
    ("classes", "target"),
    [
        (("1", "1", "2"), 1),
        (FOLDERS, "0"),
        (FOLDERS, "10"),
        (FOLDERS, 0),
        (CLASSES, "5"),
        (CLASSES, 5),
        (CLASSES, "church"),
        (CLASSES, None),
    ],
)
def test_a_single_reading_is_not_told(classes, target):
    assert other_reading(classes, target) is None


class Series:
    """Values with an index, as pandas has them: no mapping, and what it gives one after another are the values."""

    def __init__(self, **values):
        self._values = values

    def __iter__(self):
        return iter(self._values.values())

    def items(self):
        return ((int(key[1:]), value) for key, value in self._values.items())


class _Colours(enum.StrEnum):
    RED = "red"
    GREEN = "green"


@pytest.mark.parametrize(
    "classes",
    [
        ["red", "green"],
        {0: "red", 1: "green"},
        {1: "green", 0: "red"},
        {np.int64(1): "green", np.int64(0): "red"},
        {"1": "green", "0": "red"},  # as JSON writes it
        {"green": 1, "red": 0},
        collections.OrderedDict(green=np.int64(1), red=np.int64(0)),
        np.array(["red", "green"]),
        (name for name in ("red", "green")),
        _Colours,
        Series(_1="green", _0="red"),
    ],
)
def test_names_in_order(classes):
    found = class_names(classes, 2)
    assert found == ("red", "green")
    assert all(type(name) is str for name in found)


def test_names_that_are_digits_are_found_in_mappings():
    assert class_names({"7": 0, "0": 1, "3": 2}) == ("7", "0", "3")
    assert class_names({0: "7", 1: "0", 2: "3"}) == ("7", "0", "3")
    assert class_names("abc") == class_names("abc", 3) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"red", "green"}, "no order"),
        (frozenset({"red", "green"}), "no order"),
        ({"red": 0, "green": 1}.keys(), "no order"),
        (pathlib.Path("classes.txt"), "no order"),
        (b"ab", "no order"),
        (2, "no order"),
        (None, "no order"),
        ("classes.txt", "one word"),
        ("red,green", "one word"),
        ("red", "one word"),
        ({1: "red", 2: "green"}, r"id2label\[i\]"),
        ({0: "red", 2: "green"}, r"id2label\[i\]"),
        ({"red": 0, "green": 0}, "class_to_idx.get"),
        ({"red": True, "green": False}, "class_to_idx.get"),
        ({"red": "first", "green": "second"}, "class_to_idx.get"),
        ({"0": "1", "1": "0"}, "class_to_idx.get"),
        ({}, "list of names"),
        ({0: ["n0", "red"], 1: ["n1", "green"]}, r"classes\[0\]=\['n0', 'red'\] isn't a name"),
        ({0: 1, 1: 0}, r"classes\[0\]=1 isn't a name"),
        ([0, 1], r"classes\[0\]=0 isn't a name"),
        (["red", None], r"classes\[1\]=None isn't a name"),
        ([b"red", b"green"], r"classes\[0\]=b'red' isn't a name"),
        (["red", " "], r"classes\[1\]=' ' is an empty name"),
        (["red"], "1 names and the model gives 2 logits"),
        (["red", "green", "blue"], "3 names and the model gives 2 logits"),
    ],
)
def test_names_without_an_order_or_that_are_no_words_are_refused(classes, said):
    with pytest.raises(ValueError, match=said):
        class_names(classes, 2)
