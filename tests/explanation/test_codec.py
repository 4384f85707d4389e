"""Records as a JSON value and arrays, and back, by what is said where their fields are declared."""

import dataclasses
import json
import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from changing import changed
from jaxtyping import Float, Int
from layered_model import layered_model

import face_jax as fj
from face_jax.explanation.codec import decode, encode
from face_jax.explanation.parts import Target
from face_jax.explanation.sub_concepts import Division
from face_jax.faithfulness.lambda_path import Point
from face_jax.support.fields import axes, counted, elsewhere, within
from face_jax.support.json_values import Unfit

SAMPLE = pathlib.Path(__file__).parent / "saved_format_5"
MODEL = layered_model("last")


def through_files(record, **how):
    value, arrays = encode(record)
    return decode(type(record), json.loads(json.dumps(value, allow_nan=False)), arrays, **how)


def leaves(value, where=""):
    """Everything in a record, with its place: all fields of all dataclasses, whatever they are."""
    if isinstance(value, fj.SplitModel):
        yield where, value.fingerprint
    elif dataclasses.is_dataclass(value):
        yield where, type(value)
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, tuple | list | dict):
        yield where, (type(value), len(value))
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{where}[{name}]")
    elif isinstance(value, np.ndarray):
        yield where, (value.dtype, value.shape, value.tobytes())
    else:
        yield where, "nan" if isinstance(value, float) and math.isnan(value) else value


def test_every_field_of_an_explanation_comes_back(tmp_path):
    explanation = fj.load(SAMPLE, MODEL)
    found = list(leaves(explanation))
    kinds = [kind for _, kind in found]
    assert {Division, Point, fj.RankScan, fj.Photograph} <= {kind for kind in kinds if isinstance(kind, type)}
    assert kinds.count("nan") > 2
    again = fj.load(fj.save(explanation, tmp_path), MODEL)
    assert list(leaves(again)) == found
    # The walk sees a change anywhere.
    deep = explanation.recursion.divisions[0].parts[0].division
    assert deep is not None
    other = dataclasses.replace(deep, codes=np.nextafter(deep.codes, 9))
    part = dataclasses.replace(explanation.recursion.divisions[0].parts[0], division=other)
    division = dataclasses.replace(explanation.recursion.divisions[0], parts=(part,))
    assert list(leaves(changed(again, {"recursion.divisions": (division,)}))) != found


@dataclasses.dataclass(frozen=True)
class Wider(Target):
    weights: Float[np.ndarray, "class colour"] = dataclasses.field(metadata=within(0, 1))
    words: dict[str, tuple[float, ...]]
    best: int | None = dataclasses.field(default=None, metadata=within(1, "colour"))


WIDER = Wider(1, "asked for", np.eye(2, 3, dtype=np.float32), {"a": (1.5, math.nan), "b": ()}, best=3)


def test_a_field_more_is_saved_and_read_by_its_declaration():
    value, arrays = encode(WIDER)
    assert value == {"index": 1, "chosen": "asked for", "words": {"a": [1.5, None], "b": []}, "best": 3}
    assert list(arrays) == ["weights"]
    assert list(leaves(through_files(WIDER))) == list(leaves(WIDER))


def test_a_field_more_may_be_declared_of_any_dataclass():
    more = dataclasses.make_dataclass("More", [("seen", Int[np.ndarray, " place"])], bases=(Target,), frozen=True)
    globals()["More"] = more
    record = more(0, "by itself", np.arange(4))
    assert list(leaves(through_files(record, lengths={"class": 2}))) == list(leaves(record))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value, arrays: value.update(more=1), "has 'more', which doesn't belong there"),
        (lambda value, arrays: value.pop("best"), "has no best"),
        (lambda value, arrays: value.pop("words"), "has no words"),
        (lambda value, arrays: value.update(best=4), "best is 4, not a number from 1 to 3"),
        (lambda value, arrays: value.update(best=0), "best is 0, not a number"),
        (lambda value, arrays: value.update(best=1.5), "best is 1.5, not a whole number"),
        (lambda value, arrays: value.update(best=True), "best is True, not a whole number"),
        (lambda value, arrays: value.update(index=2), "index is 2, not a number from 0 to 1"),
        (lambda value, arrays: value.update(words={"a": 1.0}), r"words\.a is 1.0, not a list"),
        (lambda value, arrays: value.update(words={"a": ["1"]}), r"words\.a\[0\] is '1', not a number"),
        (lambda value, arrays: value.update(words=[]), r"words is \[\], not an object"),
        (lambda value, arrays: value.update(weights=[[1.0]]), "'weights', which doesn't belong there"),
        (lambda value, arrays: arrays.clear(), "has no weights"),
        (lambda value, arrays: arrays.update(weights=np.eye(2, 3, dtype=int)), "weights is of type I64, not of real"),
        (lambda value, arrays: arrays.update(weights=np.ones(2)), "weights has shape .2., not class × colour"),
        (lambda value, arrays: arrays.update(weights=np.full((2, 3), 1.5)), "weights has values from 1.5 to 1.5"),
        (lambda value, arrays: arrays.update(weights=np.full((2, 3), np.nan)), "weights has values from nan"),
        (lambda value, arrays: arrays.update({"words.a": np.ones(2)}), "'words.a', which doesn't belong there"),
        (lambda value, arrays: arrays.update({"words.c": np.ones(2)}), "words.c is array.*, not a list"),
        (lambda value, arrays: arrays.update({"nowhere.c": np.ones(2)}), "'nowhere.c', which doesn't belong there"),
    ],
)
def test_what_was_not_declared_is_refused_with_its_place(change, said):
    value, arrays = encode(WIDER)
    change(value, arrays)
    with pytest.raises(Unfit, match=said):
        decode(Wider, value, arrays, lengths={"class": 2})


def test_axes_agree_across_a_record():
    with pytest.raises(Unfit, match=r"weights has shape \[2, 3\], not 4 × 3"):
        through_files(WIDER, lengths={"class": 4})


@dataclasses.dataclass(frozen=True)
class Inner:
    rows: Float[np.ndarray, "row column"]


@dataclasses.dataclass(frozen=True)
class Outer:
    rows: Float[np.ndarray, " row"]
    names: tuple[str, ...] = dataclasses.field(metadata=counted("column"))
    same: Inner
    renamed: Inner = dataclasses.field(metadata=axes(row="other"))
    own: tuple[Inner, ...] = dataclasses.field(metadata=axes(row=None, column=None))
    secret: object = dataclasses.field(metadata=elsewhere())


def outer(**changes):
    inner = [Inner(np.ones(shape)) for shape in ((2, 3), (5, 3), (7, 1), (1, 9))]
    return Outer(
        **(
            {
                "rows": np.ones(2),
                "names": ("a", "b", "c"),
                "same": inner[0],
                "renamed": inner[1],
                "own": tuple(inner[2:]),
                "secret": 5,
            }
            | changes
        )
    )


def test_an_array_of_jax_is_saved_as_one_of_numpy():
    value, arrays = encode(Inner(jnp.ones((1, 2))))  # pyright: ignore[reportArgumentType]
    assert value == {}
    assert type(arrays["rows"]) is np.ndarray


def test_axes_may_be_called_otherwise_or_be_a_parts_own():
    record = through_files(outer(), given={"secret": 6})
    assert record.own[1].rows.shape == (1, 9)
    assert (record.secret, through_files(outer()).secret) == (6, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"same": Inner(np.ones((4, 3)))}, r"same\.rows has shape \[4, 3\], not 2 × 3"),
        ({"renamed": Inner(np.ones((4, 2)))}, r"renamed\.rows has shape \[4, 2\], not 4 × 3"),
        ({"names": ("a",)}, r"same\.rows has shape \[2, 3\], not 2 × 1"),
        ({"names": ()}, "names has 0 entries"),
    ],
)
def test_axes_that_disagree_are_named(changes, said):
    with pytest.raises(Unfit, match=said):
        through_files(outer(**changes))
