"""Every public function has an example in its docstring, which runs and says what the docstring says it says.

Names in the examples: `fj`, `bridges`, `jax`, `jnp`, `np`, `torch`, `torchvision`; `A`, activations of 60 rows and 12
channels made of 3 concepts; `model`, a classifier of warm and cold colours, `earlier`, the same one cut at an earlier
layer, `images` of coloured squares, `rows` of the model's activations, and `explanation`, of its class "warm" by 4
concepts; `network`, a small torch classifier; `folder`, a folder that is empty; `clip`, one with a small CLIP.
"""

import collections
import doctest
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layered_model import layered_model, warm_pictures

import face_jax as fj

PACKAGES = [fj, fj.attribution, fj.evaluation, fj.heads, fj.importance, fj.methods, fj.metrics, fj.study]


def _functions():
    found = {}
    packages = PACKAGES
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401

        from face_jax import bridges

        packages = [*PACKAGES, bridges]
    except ImportError:
        pass
    for package in packages:
        for name in dir(package):
            thing = getattr(package, name)
            if inspect.isfunction(thing) and thing.__module__.startswith("face_jax") and name[0] != "_":
                found[f"{package.__name__}.{name}"] = thing
    return found


FUNCTIONS = _functions()


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    random = np.random.default_rng(np.random.PCG64(0))
    planted = np.maximum(random.normal(size=(60, 3)), 0) @ np.maximum(random.normal(size=(3, 12)), 0)
    model, images = layered_model("last"), warm_pictures()
    found = {
        "fj": fj,
        "jax": jax,
        "jnp": jnp,
        "np": np,
        "pathlib": pathlib,
        "A": jnp.asarray(planted, jnp.float32),
        "model": model,
        "images": images,
        "rows": model.features(jnp.asarray(model.preprocess(images[:12]))).mean((1, 2)),
        "explanation": fj.explain(model, images, "warm", rank=4, faithfulness=None, key=0),
        "earlier": layered_model("middle"),
        "folder": tmp_path_factory.mktemp("examples"),
    }
    try:
        import torch
        import torchvision
        from torch import nn

        from face_jax import bridges

        torch.manual_seed(0)
        first, last = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Linear(6, 5)
        stages = {"conv": first, "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": last}
        network = nn.Sequential(collections.OrderedDict(stages)).eval()
        found |= {"torch": torch, "torchvision": torchvision, "bridges": bridges, "network": network}
        from small_clip import write_clip

        found["clip"] = write_clip(tmp_path_factory.mktemp("clip"))
    except ImportError:
        pass
    return found


def test_there_are_many():
    assert len(FUNCTIONS) > 50


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_says_what_is_true(name, names):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, dict(names), name, None, None)
    assert example.examples, f"{name} has no example in its docstring"
    said = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)
