"""What holds at any layer: its halves, their derivatives and concepts behind its head are the network's."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import torch
from face_jax.bridges.torch_features import features_of

from face_jax import bridges
from face_jax.importance import total_sobol
from face_jax.model import Preprocess

# A class whose logit is looked at.
CLASS = 3


def logits_of(model, images):
    """A network's own logits, whatever it returns them in."""
    given = model(images)
    return getattr(given, "logits", given)


def check_cut(model, seen, place, images):
    """Compares a network cut at a place with the network: logits, both derivatives, pulled and rebuilt activations.

    Importance has to be finite, and exact behind an affine head. In 64 bits no rounding crosses a ReLU's kink.
    """
    assert images.dtype == torch.float64
    size = images.shape[-1]
    split = bridges.split(model, place.name, preprocess=Preprocess(size=size, resize=size), seen=seen)
    arrays = images.movedim(1, -1).numpy()
    pixels = images.clone().requires_grad_()
    logits = logits_of(model, pixels)
    (slope,) = torch.autograd.grad(logits[:, CLASS].sum(), pixels)

    maps, pullback = features_of(split).vjp(arrays)
    head = split.halves(arrays)[1]
    given, back = jax.vjp(head, maps)
    assert maps.shape[1:] == place.shape
    _close(given, logits.detach())
    (toward,) = back(jnp.zeros_like(given).at[:, CLASS].set(1))
    if not place.prefix:
        # Else pixels reach the logits through the tokens beside the maps as well.
        _close(pullback(toward), slope.movedim(1, -1))

    pulled = bridges.pull(split, zip("ab", arrays, strict=True))
    _close(pulled.activations, maps)
    assert (pulled.kept is None) == (place.prefix == 0)
    rows = pulled.activations.reshape(-1, maps.shape[-1])
    dictionary = rows[[0, -1]] / np.linalg.norm(rows[[0, -1]], axis=1, keepdims=True)
    codes = np.stack([scipy.optimize.nnls(dictionary.T, row)[0] for row in rows])
    codes = codes.reshape(*maps.shape[:3], 2)
    rebuilt = codes @ dictionary
    _close(head(jnp.asarray(rebuilt)), _behind(split, seen, place, rebuilt, pulled.kept))

    found = total_sobol(head, jnp.asarray(codes), jnp.asarray(dictionary), CLASS, designs=2, scrambles=2, key=0)
    assert found.exact == place.affine
    assert found.total.shape == (len(images), 2)
    assert np.isfinite(found.total).all()


def _behind(split, seen, place, maps, kept):
    """What torch makes of maps in the place of a layer's own."""
    node = next(node for node in seen.places if place.name in seen.traced.names[node])
    kept = None if kept is None else torch.from_numpy(kept)
    with torch.no_grad():
        return seen.head_at(node)(features_of(split).layout.from_maps(torch.from_numpy(maps), kept))


def _close(given, expected):
    given, expected = np.asarray(given), np.asarray(expected)
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
