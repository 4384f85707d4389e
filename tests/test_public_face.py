"""What `face_jax` and its packages offer: defaults that can be spelled, errors that can be caught, optional keys."""

import importlib.metadata
import inspect
import pkgutil

import pytest

import face_jax as fj
from face_jax import bridges

PACKAGES = (
    fj, fj.attribution, fj.evaluation, fj.heads, fj.importance, fj.layer, fj.methods, fj.metrics, fj.study,
)  # fmt: skip
OFFERED = {id(getattr(package, name)) for package in PACKAGES for name in vars(package)}
FUNCTIONS = sorted(
    {
        (f"{package.__name__}.{name}", thing)
        for package in PACKAGES
        for name, thing in vars(package).items()
        if not name.startswith("_") and inspect.isfunction(thing)
    },
    key=lambda entry: entry[0],
)


def test_these_are_many():
    assert len(FUNCTIONS) > 50


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_every_default_can_be_spelled_and_no_key_is_demanded(name, function):
    for parameter in inspect.signature(function).parameters.values():
        kind = type(parameter.default)
        if parameter.default is not parameter.empty and kind.__module__.startswith("face_jax"):
            assert id(kind) in OFFERED, f"{name}: {parameter.name}={parameter.default!r} isn't offered"
        if parameter.name == "key" and name != "face_jax.study.score":
            assert parameter.default is None, f"{name} demands a key"


def _errors():
    for package in (fj, bridges):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for name, thing in vars(module).items():
                if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == module.__name__:
                    yield name, thing


def test_every_error_that_users_may_catch_is_offered():
    pytest.importorskip("torch", reason="torch isn't installed")
    pytest.importorskip("typer", reason="the command isn't installed")
    offered = OFFERED | {id(getattr(bridges, name)) for name in dir(bridges)}
    hidden = [
        name for name, thing in _errors() if name.endswith("Error") and name[0] != "_" and id(thing) not in offered
    ]
    assert not hidden


def test_the_version_is_that_of_the_distribution():
    assert fj.__version__ == importlib.metadata.version("face-jax")
