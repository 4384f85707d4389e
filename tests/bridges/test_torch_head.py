"""A torch head inside JAX programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch
from face_jax.bridges.torch_features import features_of

from face_jax import bridges
from face_jax.model import Head, Preprocess

EIGHT = Preprocess(size=8, resize=8)


@pytest.fixture(scope="module")
def split():
    return bridges.split(small.randomized(small.Plain()).double(), "body.1", preprocess=EIGHT)


@pytest.fixture(scope="module")
def maps(split):
    return split.features(np.random.default_rng(0).standard_normal((3, 8, 8, 3)))


def test_is_a_head(split):
    assert isinstance(split.head, bridges.TorchHead)
    assert isinstance(split.head, Head)
    assert not split.head.affine


def test_jit_gives_the_same_as_torch(split, maps):
    with torch.no_grad():
        expected = split.head.module(torch.from_numpy(np.array(maps)).movedim(-1, 1)).numpy()
    np.testing.assert_allclose(split.head(maps), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(split.head)(maps), expected, rtol=1e-12)


def test_gradient_agrees_with_a_central_difference(split, maps):
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((3, 5)))
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(maps.shape))
    # The head begins with a ReLU: no value may cross zero within the step.
    step = 1e-6
    assert float(jnp.min(jnp.abs(maps) - 2 * step * jnp.abs(direction))) > 0

    def loss(values):
        return jnp.sum(split.head(values) * weights)

    exact = jnp.sum(jax.jit(jax.grad(loss))(maps) * direction)
    difference = (loss(maps + step * direction) - loss(maps - step * direction)) / (2 * step)
    assert abs(exact) > 1e-2
    np.testing.assert_allclose(exact, difference, rtol=1e-7)


def test_forward_derivative_agrees_with_backward_and_with_a_central_difference(split, maps):
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(maps.shape))
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((3, 5)))
    step = 1e-6
    value, forward = jax.jit(lambda a, t: jax.jvp(split.head, (a,), (t,)))(maps, direction)
    np.testing.assert_allclose(value, split.head(maps), rtol=1e-12)
    difference = (split.head(maps + step * direction) - split.head(maps - step * direction)) / (2 * step)
    np.testing.assert_allclose(forward, difference, rtol=1e-7, atol=1e-9)
    (backward,) = jax.vjp(split.head, maps)[1](weights)
    np.testing.assert_allclose(jnp.sum(forward * weights), jnp.sum(direction * backward), rtol=1e-11)


def test_linearized_and_transposed(split, maps):
    # What Gauss–Newton asks of a head.
    logits, push = jax.linearize(split.head, maps)
    pull = jax.linear_transpose(push, maps)
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(maps.shape))
    np.testing.assert_allclose(push(direction), jax.jvp(split.head, (maps,), (direction,))[1], rtol=1e-11)
    np.testing.assert_allclose(pull(logits)[0], jax.vjp(split.head, maps)[1](logits)[0], rtol=1e-11)
    basis = jnp.eye(3 * 5).reshape(15, 3, 5)
    rows = jax.jit(jax.vmap(lambda c: pull(c)[0]))(basis)
    np.testing.assert_allclose(jnp.einsum("knyxc,nyxc->k", rows, direction), push(direction).ravel(), rtol=1e-9)


def test_what_torch_derives_only_once_has_a_forward_derivative_too():
    class Gated(torch.nn.Module):
        """Squeeze and excitation as MobileNetV3 has it, and a rectifier that overwrites its input."""

        def __init__(self):
            super().__init__()
            self.body = torch.nn.Conv2d(3, 6, 3, padding=1)
            self.gate, self.act = torch.nn.Hardsigmoid(), torch.nn.Hardswish(inplace=True)
            self.fc = torch.nn.Linear(6, 5)

        def forward(self, x):
            x = self.body(x)
            return self.fc(self.act(x * self.gate(x.mean((2, 3), keepdim=True))).mean((2, 3)))

    head = bridges.split(small.randomized(Gated()).double(), "body", preprocess=EIGHT).head
    maps, direction = np.random.default_rng(0).standard_normal((2, 3, 8, 8, 6))
    # All gates between their ends, and no value near a kink of the other.
    assert np.abs(maps.mean((1, 2))).max() < 2.9
    along = jax.jit(lambda a, t: jax.jvp(head, (a,), (t,))[1])(maps, direction)
    step = 1e-6
    np.testing.assert_allclose(
        along, (head(maps + step * direction) - head(maps - step * direction)) / (2 * step), rtol=1e-6, atol=1e-9
    )
    pulled = jax.vjp(head, maps)[1](along)[0]
    np.testing.assert_allclose(jnp.sum(along**2), jnp.sum(pulled * direction), rtol=1e-7)


def test_attention_has_a_forward_derivative_too():
    split = bridges.split(small.randomized(small.Tokens()).double(), "cat", preprocess=EIGHT)
    maps, head = split.halves(np.random.default_rng(0).standard_normal((2, 8, 8, 3)))
    direction = jnp.asarray(np.random.default_rng(2).standard_normal(maps.shape))
    step = 1e-6
    difference = (head(maps + step * direction) - head(maps - step * direction)) / (2 * step)
    np.testing.assert_allclose(jax.jvp(head, (maps,), (direction,))[1], difference, rtol=1e-6, atol=1e-9)


def test_second_derivatives_are_refused(split, maps):
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        jax.grad(lambda a: jnp.sum(jax.grad(lambda b: split.head(b).sum())(a) ** 2))(maps)


def test_passes_through_jit_as_an_argument(split, maps):
    assert jax.tree.leaves(split.head) == []
    np.testing.assert_allclose(jax.jit(lambda head, a: head(a))(split.head, maps), split.head(maps), rtol=1e-12)


def test_vmap_of_value_and_gradient(split, maps):
    stacked = jnp.stack([maps, 2 * maps])
    expected = jnp.stack([split.head(maps), split.head(2 * maps)])
    np.testing.assert_allclose(jax.vmap(split.head)(stacked), expected, rtol=1e-12)

    def loss(values):
        return jnp.sum(jax.nn.log_softmax(split.head(values))[:, 0])

    gradients = jax.jit(jax.vmap(jax.grad(loss)))(stacked)
    np.testing.assert_allclose(gradients[1], jax.grad(loss)(2 * maps), rtol=1e-10)


def test_rows_of_all_places_are_maps(split, maps):
    rows = maps.reshape(-1, maps.shape[-1])
    np.testing.assert_allclose(split.head(rows), split.head(maps), rtol=1e-12)
    with pytest.raises(ValueError, match="190 rows, which isn't a multiple of the 64 places"):
        split.head(rows[:190])


def test_precision_of_the_maps_is_kept(split, maps):
    assert split.head(maps.astype(jnp.float32)).dtype == jnp.float32
    assert jax.grad(lambda a: split.head(a).sum())(maps.astype(jnp.float32)).dtype == jnp.float32


def test_bfloat16_maps(split, maps):
    logits = split.head(maps.astype(jnp.bfloat16))
    assert logits.dtype == jnp.bfloat16
    np.testing.assert_allclose(logits.astype(jnp.float64), split.head(maps), rtol=0.1, atol=0.05)


def test_maps_that_are_not_the_layers_are_refused(split, maps):
    with pytest.raises(ValueError, match=r"maps has dtype int64, and so would the logits; give maps\.astype"):
        split.head(jnp.ones(maps.shape, int))
    with pytest.raises(ValueError, match=r"maps has shape \(4,\); give image y x channel, or all places"):
        split.head(maps[0, 0, 0])
    for call in (split.head, jax.jit(split.head)):
        with pytest.raises(ValueError, match=r"shape \(8, 8, 3\) for each image, .* doesn't take .*y × x = 8 × 8"):
            call(maps[..., :3])
    flat = bridges.split(small.randomized(small.FlatHead()).double(), "conv", preprocess=EIGHT).head
    with pytest.raises(ValueError, match=r"maps has shape \(8, 7, 6\) for each image"):
        flat(jnp.ones((2, 8, 7, 6)))
    tokens = bridges.split(small.randomized(small.Tokens()).double(), "permute", preprocess=EIGHT).head
    with pytest.raises(ValueError, match="maps have 5 × 2 places, and the layer has 2 × 2"):
        tokens(jnp.ones((2, 5, 2, 8)))
    beside = bridges.split(small.randomized(small.Tokens()).double(), "cat", preprocess=EIGHT).head
    for given in ((), (jnp.ones((2, 2, 8)),), (jnp.ones((3, 1, 8)),)):
        with pytest.raises(ValueError, match=r"maps of 2 × 2 places and 1 tokens beside them.*head\(maps, tokens\)"):
            beside(jnp.ones((2, 2, 2, 8)), *given)


def test_other_grids_of_the_same_channels_are_taken(split, maps):
    np.testing.assert_allclose(split.head(jnp.tile(maps, (1, 2, 1, 1))).shape, (3, 5))


@pytest.mark.parametrize("layer", ["conv", "hidden"])
def test_one_image_alone_where_the_network_squeezes(layer):
    split = bridges.split(small.randomized(small.Squeezing()).double(), layer, preprocess=EIGHT)
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 3))
    maps = split.features(images)
    alone = split.features(images[:1])
    np.testing.assert_allclose(alone, maps[:1], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(split.head(alone), split.head(maps)[:1], rtol=1e-10)
    gradient = jax.grad(lambda a: split.head(a)[:, 1].sum())
    np.testing.assert_allclose(gradient(alone), gradient(maps)[:1], rtol=1e-10, atol=1e-14)
    pushed = jax.jvp(split.head, (maps,), (maps,))[1][:1]
    np.testing.assert_allclose(jax.jvp(split.head, (alone,), (alone,))[1], pushed, rtol=1e-9)
    cotangent = jnp.ones(maps.shape)
    np.testing.assert_allclose(
        features_of(split).vjp(images[:1])[1](cotangent[:1]),
        features_of(split).vjp(images)[1](cotangent)[:1],
        rtol=1e-9,
    )


def test_derivatives_under_torchs_inference_mode(split, maps):
    with torch.inference_mode():
        given = jax.grad(lambda a: split.head(a).sum())(maps)
    np.testing.assert_allclose(given, jax.grad(lambda a: split.head(a).sum())(maps), rtol=1e-12)


def test_derivatives_by_patches_are_torchs_own():
    model = small.randomized(small.Tokens()).double()
    split = bridges.split(model, "cat", preprocess=EIGHT)
    maps, head = split.halves(np.random.default_rng(0).standard_normal((2, 8, 8, 3)))
    tokens = torch.from_numpy(np.concatenate([np.asarray(head.kept), np.asarray(maps).reshape(2, 4, 8)], axis=1))
    tokens.requires_grad_()
    assert isinstance(split.head, bridges.TorchHead)
    split.head.module(tokens)[:, 1].sum().backward()
    given = jax.jit(jax.grad(lambda a: head(a)[:, 1].sum()))(maps)
    np.testing.assert_allclose(given.reshape(2, 4, 8), tokens.grad[:, 1:], rtol=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda kept: split.head(maps, kept)[:, 1].sum())(head.kept), tokens.grad[:, :1], rtol=1e-12
    )


def test_large_maps_do_not_lock_up():
    torch.manual_seed(0)
    split = bridges.split(small.randomized(small.Plain(channels=256)), "body.4", preprocess=Preprocess(size=64))
    maps = split.features(np.random.default_rng(0).standard_normal((32, 64, 64, 3)).astype(np.float32))
    # Some JAX versions waited for ever when a callback was handed more than a few megabytes.
    assert maps.nbytes > 2**24
    value = jax.jit(lambda a: split.head(jnp.sqrt(jnp.abs(a) + 1)).sum())(maps)
    assert np.isfinite(float(value))
