"""Sobol indices of concepts behind a head that was trained: sampling finds the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_cat import cat
from toy_model import Disguised

from face_jax.activations import pooled
from face_jax.cli.demo_photograph import embedded_photograph
from face_jax.importance import total_sobol
from face_jax.nmf.encoding import encode_maps
from face_jax.pictures.photographs import network_input


@pytest.fixture(scope="module")
def indices():
    """Exact and sampled, of the cat's concepts in three photographs, for the cat's logit."""
    pretrained = cat()
    model = pretrained.model
    others = [network_input(embedded_photograph(name).pixels(), model.preprocess) for name in ("coffee", "china")]
    maps = np.asarray(model.features(np.stack([pretrained.picture[0], *others])))
    codes = jnp.asarray(encode_maps(pooled(maps), pretrained.dictionary))
    rest = (codes, jnp.asarray(pretrained.dictionary), pretrained.target)
    key = jax.random.key(0)
    return total_sobol(model.head, *rest, key=key), total_sobol(Disguised(model.head), *rest, designs=256, key=key)


def test_closed_form_is_used_for_the_pretrained_head(indices):
    exact, sampled = indices
    assert exact.exact
    assert not sampled.exact
    np.testing.assert_allclose(exact.total.sum(-1), 1, rtol=1e-5)
    # The question would be idle if one concept had it all.
    assert (exact.total[0] > 0.05).sum() >= 2


def test_exact_indices_lie_in_the_sampled_ones_intervals(indices):
    exact, sampled = indices
    inside = (sampled.low <= exact.total) & (exact.total <= sampled.high)
    # Twelve intervals of 95 %: fewer than nine hits have a chance of 1 in 500.
    assert inside.sum() >= 9
    # They are narrow enough to say something.
    assert (sampled.high - sampled.low).max() < 0.2
    np.testing.assert_allclose(sampled.total, exact.total, atol=0.05)
