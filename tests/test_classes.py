"""Classes by name and number."""

import pytest

from face_jax.classes import UnknownClassError, class_index

CLASSES = ("tench", "English springer, English springer spaniel", "church", "crane", "crane", "chain saw")


@pytest.mark.parametrize(
    ("target", "number"), [("church", 2), (" Church ", 2), ("English springer spaniel", 1), ("5", 5), (0, 0)]
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
        ("zzz", "such as tench"),
    ],
)
def test_not_found(target, said):
    with pytest.raises(UnknownClassError, match=said):
        class_index(CLASSES, target)
