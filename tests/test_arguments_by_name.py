"""Arguments of another kind are refused by name, before any work, by every public function."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from toy_model import colour_features, colour_model, pictures

import face_jax as fj
from face_jax import attribution as at
from face_jax import metrics, study
from face_jax import nmf as ff

MODEL, RED = colour_model(), pictures(6, 0)
A = np.random.default_rng(0).random((12, 6))
BANK = np.random.default_rng(1).random((2, 14)).astype(np.float32)
CODES = jnp.asarray(np.random.default_rng(2).random((3, 1, 1, 2)), jnp.float32)
IMAGES = np.random.default_rng(3).random((2, 16, 16, 3)).astype(np.float32)

# What no argument below may be; each is something that people give.
JUNK = ["HALS", b"1", object(), object, [[0.5]], {"a": 1}, 1j]
NO_COUNT = [*JUNK, True, np.True_, 1.5, -1, float("nan"), None]
NO_KEY = [*JUNK, True, 0.5, -1, [0, 1], np.zeros(3)]
NO_SETTINGS = [*JUNK, 3, ff.HALS, colour_features]
# These have annotations that beartype checks before the functions themselves can.
ANNOTATED = (
    "activations",
    "solution",
    "adjoint",
    "signed_dictionary",
    "objective",
    "cotangents",
    "held_out",
    "term",
    "weights",
    "grid",
    "keep_predictions",
    "model",
    "throw",
    "one_each",
    "cache",
    "pooled",
    "importance",
)
NO_NUMBER = [*JUNK, True, float("nan"), float("inf"), -2.0, None]


def factorize(**changes):
    given: dict[str, Any] = {"rank": 2} | changes
    return fj.factorize(A, **given)


def explain(**changes):
    return fj.explain(**({"model": MODEL, "images": RED, "target": 0, "rank": 2} | changes))


def scan(**changes):
    given: dict[str, Any] = {"ranks": (2,)} | changes
    return fj.rank_scan(A, **given)


def sobol(**changes):
    given: dict[str, Any] = {"target": 0} | changes
    return fj.total_sobol(MODEL.head, CODES, jnp.asarray(BANK), **given)


def visualize(**changes):
    return fj.visualize(MODEL, BANK, **changes)


def codes(**changes):
    return at.Codes()(**({"model": MODEL, "dictionary": BANK, "images": IMAGES} | changes))


@functools.cache
def solution():
    return fj.factorize(A, 2)


HEAD = fj.heads.Affine(jnp.ones((6, 3)), jnp.zeros(3))
PAIR = (jnp.ones((12, 2)), jnp.ones((2, 6)))
NO_MATRIX = [*JUNK[:4], {"a": 1}, np.ones((12, 6)) * 1j, A[:, :1], A[:5], A.astype(str), A.astype(object), A[0], None]


def vjp(**changes):
    return fj.implicit_vjp(**({"activations": A, "solution": solution(), "cotangents": PAIR} | changes))


def stats(**changes):
    return fj.derivative_stats(**({"activations": A, "solution": solution()} | changes))


def certify(**changes):
    term = fj.Faithfulness(HEAD)
    return fj.certify(**({"term": term, "activations": A, "solution": solution()} | changes))


def faithfulness(**changes):
    return fj.Faithfulness(HEAD, **changes)


@pytest.mark.parametrize(
    ("function", "argument", "values"),
    [
        *((each, "activations", NO_MATRIX) for each in (vjp, stats)),
        *((each, "solution", [*JUNK, None, PAIR]) for each in (vjp, stats, certify)),
        *((each, "adjoint", [*NO_SETTINGS, None, fj.StopGradient(), fj.ImplicitAdjoint(rtol=-1.0),
                             fj.ImplicitAdjoint(max_steps=0), fj.ImplicitAdjoint(refinements=-1)])
          for each in (vjp, stats)),
        *((each, "signed_dictionary", [*JUNK, 1, "False", None, np.asarray(2)]) for each in (vjp, stats)),
        *((each, "objective", [*NO_SETTINGS, None]) for each in (vjp, stats, certify)),
        (vjp, "cotangents", [*JUNK, None, PAIR[:1], (*PAIR, PAIR[0]), PAIR[::-1], (np.ones((12, 2)) * 1j, PAIR[1]),
                             (PAIR[0], "x"), dict(zip("ab", PAIR, strict=True))]),
        (certify, "activations", [*NO_MATRIX[:6], *NO_MATRIX[8:]]),
        (certify, "held_out", [*NO_MATRIX[:6], *NO_MATRIX[8:-1], A + 0j, A * np.nan]),
        (certify, "term", [*JUNK, None, HEAD]),
        (faithfulness, "weights", ["abc", b"1", object, {"a": 1}, {1}, lambda: 0, iter([1.0]), [[1.0], [1.0, 2.0]],
                                   np.ones(12) * 1j, np.ones(12).astype(str), torch.ones(12, requires_grad=True)]),
        (faithfulness, "grid", [*JUNK, 3, (3,), (2, True), (2.0, 2.0), (0, 2), [2, 2]]),
        (faithfulness, "keep_predictions", [*JUNK, None, 1, "False"]),
        (factorize, "rank", NO_COUNT),
        (factorize, "key", NO_KEY),
        (factorize, "solver", [*NO_SETTINGS, None, ff.ADMM(max_steps=-1), ff.ADMM(rtol=np.nan), ff.HALS(sweeps=0)]),
        (factorize, "start", [*NO_SETTINGS, None, "random", ff.NNDSVD(passes=-1)]),
        (factorize, "adjoint", [*NO_SETTINGS, None, ff.ImplicitAdjoint(max_steps=0)]),
        (factorize, "objective", [*NO_SETTINGS, None]),
        (factorize, "throw", [*JUNK, None, 1]),
        (explain, "model", [*JUNK, None, torch.nn.Linear(2, 2)]),
        (explain, "target", [*JUNK[1:], True, 1.5, -1]),
        (explain, "rank", NO_COUNT),
        (explain, "held_out", [*NO_NUMBER, 0, 1]),
        (explain, "strongest", NO_COUNT),
        (explain, "batch", NO_COUNT),
        (explain, "key", NO_KEY),
        (explain, "solver", NO_SETTINGS),
        (explain, "start", NO_SETTINGS),
        (explain, "objective", NO_SETTINGS),
        (explain, "crops", [*JUNK, fj.RandomCrops]),
        (explain, "faithfulness", NO_NUMBER[:-1]),
        (explain, "one_each", [*JUNK, None]),
        (explain, "cache", [*JUNK, None]),
        (explain, "progress", [*JUNK, 1]),
        (scan, "ranks", [*JUNK, 3, None, (), (2.5,), (0,)]),
        (scan, "key", NO_KEY),
        (scan, "folds", [*NO_COUNT, 1]),
        (scan, "starts", [*NO_COUNT, 1]),
        (scan, "left_out", [*NO_NUMBER, 0, 1]),
        (scan, "solver", NO_SETTINGS),
        (sobol, "target", [*NO_COUNT, "reddish", 3]),
        (sobol, "designs", [*NO_COUNT, 3]),
        (sobol, "scrambles", [*NO_COUNT, 1]),
        (sobol, "key", NO_KEY),
        (visualize, "concepts", [*JUNK, True, "a", [], [2], 2, [0.5]]),
        (visualize, "steps", NO_COUNT),
        (visualize, "rate", NO_NUMBER[:-1]),
        (visualize, "power", NO_NUMBER),
        (visualize, "decay", NO_NUMBER),
        (visualize, "key", NO_KEY),
        (codes, "model", [*JUNK, None]),
        (codes, "concepts", [*JUNK, True, "a", [], [2], 2, [0.5]]),
        (codes, "pooled", [*JUNK, None]),
        (codes, "key", NO_KEY),
        (codes, "images", [*JUNK, None, IMAGES[0], IMAGES.astype(np.uint8), np.full_like(IMAGES, np.nan)]),
        (codes, "dictionary", [*JUNK[:4], {"a": 1}, 1j, None, BANK[0], np.full_like(BANK, np.nan)]),
        (fj.RandomCrops, "per_image", NO_COUNT),
        (fj.RandomCrops, "smallest", NO_NUMBER),
        (fj.RandomCrops, "largest", NO_NUMBER),
        (fj.GridCrops, "size", NO_NUMBER),
        (fj.GridCrops, "overlap", NO_NUMBER),
        (fj.Preprocess, "size", NO_COUNT),
        (fj.Preprocess, "interpolation", [*JUNK, None]),
        (fj.Preprocess, "mean", [*JUNK, None, "abc", (0.0, 0.0), (0.0, 0.0, float("nan"))]),
        (at.RISE, "probability", NO_NUMBER),
        (at.RISE, "masks", NO_COUNT),
        (at.HSIC, "designs", [*NO_COUNT, 3]),
        (at.LIME, "samples", NO_COUNT),
        (at.Blurred, "sigma", NO_NUMBER),
        (fj.Views, "shift", NO_NUMBER),
        (metrics.gini_ceiling, "concepts", NO_COUNT),
        (metrics.gini, "importance", [*JUNK, None]),
    ],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, list) else "",
)  # fmt: skip
def test_arguments_of_another_kind_are_refused_by_name(function, argument, values):
    for value in values:
        # What annotations refuse is refused by beartype here, as tests switch it on.
        with pytest.raises((ValueError, TypeError) if argument in ANNOTATED else ValueError, match=argument[:4]):
            function(**{argument: value})


@pytest.mark.parametrize("baseline", ["grey", None, float("nan"), at.Blurred, np.zeros((2, 5)), object()])
def test_baselines_of_another_kind_are_refused(baseline):
    with pytest.raises(ValueError, match="baseline"):
        at.IntegratedGradients(steps=1, baseline=baseline)(MODEL, BANK, IMAGES)


def test_images_with_colours_first_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"images has shape \(2, 3, 16, 16\).*np\.moveaxis"):
        at.Codes()(MODEL, BANK, np.moveaxis(IMAGES, -1, 1))
    with pytest.raises(ValueError, match=r"images has shape \(2, 3, 16, 16\).*np\.moveaxis"):
        at.concept_gradients(MODEL, BANK, np.moveaxis(IMAGES, -1, 1))


def test_heads_without_affine_are_refused_where_it_decides():
    head = jax.tree_util.Partial(lambda maps: maps[:, 0, 0])
    with pytest.raises((ValueError, TypeError), match="head"):
        fj.total_sobol(head, CODES, jnp.asarray(BANK), 0)  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, TypeError), match="head"):
        colour_model(head=head)


@pytest.mark.parametrize("explanation", [None, "reddish", 3])
def test_what_is_no_explanation_is_refused(explanation):
    for function, more in (
        (fj.recurse, (MODEL,)),
        (fj.sanity_check, ([("same", MODEL)],)),
        (fj.suggest_recursion, ()),
        (study.intruder_trials, ()),
        (study.binary_trials, ()),
        (study.utility_trials, (RED,)),
    ):
        with pytest.raises((ValueError, TypeError), match="explanation"):
            function(explanation, *more)  # pyright: ignore[reportArgumentType]
