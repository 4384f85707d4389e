"""The affine head: what it's made of, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.heads import Affine


def _made(**values):
    # The annotations' check would be faster than ours; users don't have it.
    head = Affine(jnp.ones((4, 3)), jnp.zeros(3))
    for name, value in values.items():
        object.__setattr__(head, name, value)
    head.__post_init__()
    return head


@pytest.mark.parametrize("places", [0, -1, 2.0, "7", None])
def test_places_that_count_nothing_are_refused(places):
    with pytest.raises(ValueError, match=rf"places={places!r} isn't a number of rows"):
        _made(places=places)


def test_the_weights_of_a_torch_layer_are_copied():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(4, 3)
    head = _made(kernel=layer.weight.T, bias=layer.bias)
    rows = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    expected = layer(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(jax.jit(lambda head, rows: head(rows))(head, rows), expected, atol=1e-6)
    with torch.no_grad():
        layer.weight.zero_()
    np.testing.assert_allclose(head(jnp.asarray(rows)), expected, atol=1e-6)
