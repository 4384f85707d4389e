"""Every torchvision classification family computes the same after its import: values, gradients, any batch."""

from __future__ import annotations

import copy

import jax
import pytest

torch = pytest.importorskip("torch", reason="the import of torch modules needs the torch extra")
pytest.importorskip("torchvision", reason="the families are torchvision's")

from classifier_families import FAMILIES, family  # noqa: E402
from face_jax.bridges.flax_import import to_flax  # noqa: E402
from face_jax.bridges.flax_import.check import compare, widened  # noqa: E402
from face_jax.bridges.flax_import.export import evaluating  # noqa: E402


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_input_gradients_agree_with_torch(name: str) -> None:
    model, example = family(name)
    network = to_flax(model, example)
    errors = network.errors
    assert errors is not None
    assert errors.values <= 1e-4
    assert errors.gradients <= 1e-3
    assert errors.batch != example.shape[0]
    # At most one of the three pictures may sit on a kink, or the gradients would hardly have been compared
    assert errors.kinks <= 1

    # torch's own derivative of hardsigmoid is only as exact as 1.0f / 6.0f
    gradient_rtol = 1e-7 if name == "mobilenet_v3" else 1e-10
    wide = jax.tree.map(widened, network)
    with evaluating(model):
        exact = compare(wide, copy.deepcopy(model).double(), (example.double(),), key=jax.random.key(5))
    assert exact.values <= 1e-10
    assert exact.gradients <= gradient_rtol
