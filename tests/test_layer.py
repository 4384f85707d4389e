"""Layers inside a Flax model: they train end to end, and a penalty is tuned by its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from flax import nnx

from face_jax import layer
from face_jax.nmf import HALS, SemiNMF, encode


@pytest.fixture(scope="module", name="digits")
def _digits():
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn, which has the images, isn't installed")
    images, labels = sklearn.load_digits(return_X_y=True)
    return jnp.asarray(images[:256] / 16.0, jnp.float32), jnp.asarray(labels[:256])


class Classifier(nnx.Module):
    """A small convolutional classifier whose bottleneck is made of concepts."""

    def __init__(self, rank: int, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 8, (3, 3), rngs=rngs, dtype=jnp.float32, param_dtype=jnp.float32)
        self.second = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs, dtype=jnp.float32, param_dtype=jnp.float32)
        self.concepts = layer.Encode(16, rank, l1=0.01, rngs=rngs)
        self.head = nnx.Linear(rank, 10, rngs=rngs, dtype=jnp.float32, param_dtype=jnp.float32)

    def __call__(self, images):
        maps = jax.nn.relu(self.second(jax.nn.relu(self.first(images.reshape(-1, 8, 8, 1)))))
        codes = self.concepts(maps)
        return self.head(jnp.mean(codes, axis=(1, 2))), codes


def test_a_classifier_with_a_bottleneck_of_concepts_trains(digits):
    images, labels = digits
    model = Classifier(6, rngs=nnx.Rngs(0))
    before = model.concepts.concepts
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    def loss_of(model):
        logits, codes = model(images)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), codes

    @nnx.jit
    def step(model, optimizer):
        (loss, codes), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model)
        # Adam counts its steps in int32.
        with jax.numpy_dtype_promotion("standard"):
            optimizer.update(model, gradients)
        return loss, codes

    taken = [step(model, optimizer) for _ in range(60)]
    losses, codes = [float(loss) for loss, _ in taken], taken[-1][1]
    assert losses[0] > 2.0
    assert losses[-1] < 0.5 * losses[0]
    assert jnp.all(codes >= 0)
    assert jnp.any(codes == 0)
    after = model.concepts.concepts
    assert jnp.max(jnp.abs(after - before)) > 0.05, "the dictionary has to learn, too"
    np.testing.assert_allclose(jnp.linalg.norm(after, axis=1), 1.0, rtol=1e-6)


def test_encoding_is_encode(digits):
    images, _ = digits
    module = layer.Encode(64, 5, rngs=nnx.Rngs(1))
    codes = module(images.reshape(16, 16, 64))
    assert codes.shape == (16, 16, 5)
    assert codes.dtype == images.dtype
    expected = encode(images, module.concepts.astype(images.dtype))
    np.testing.assert_array_equal(codes.reshape(256, 5), expected)
    np.testing.assert_allclose(module.decode(codes)[0, 0], expected[0] @ module.concepts.astype(jnp.float32), rtol=1e-5)


def test_a_penalty_is_tuned_on_held_out_error():
    # Codes are found on noisy channels, with an ℓ1 penalty that's learned on what noise there can't explain.
    rng = np.random.default_rng(0)
    concepts = rng.random((12, 40)) * (rng.random((12, 40)) < 0.5)
    truth = rng.gamma(1.0, 1.0, (60, 12)) * (rng.random((60, 12)) < 0.15)
    clean = jnp.asarray(truth @ concepts)
    noisy = clean + jnp.asarray(0.7 * rng.standard_normal(clean.shape))
    module = layer.Encode(40, 12, l1=1e-3, learn_l1=True, rngs=nnx.Rngs(0))
    lengths = np.linalg.norm(concepts, axis=1, keepdims=True)
    module.dictionary[...] = jnp.asarray(np.log(np.expm1(np.maximum(concepts / lengths, 1e-9))))

    def held_out(log_l1):
        module.log_l1[...] = log_l1
        return jnp.mean((module.decode(module(noisy)) - clean) ** 2)

    def pure(log_l1):
        from face_jax.nmf import SquaredError

        used = module.concepts
        return jnp.mean((encode(noisy, used, objective=SquaredError(l1_codes=jnp.exp(log_l1))) @ used - clean) ** 2)

    value_and_grad = jax.jit(jax.value_and_grad(pure))
    at, step = jnp.log(0.3), 1e-6
    expected = (value_and_grad(at + step)[0] - value_and_grad(at - step)[0]) / (2 * step)
    value, found = value_and_grad(at)
    assert abs(expected) > 1e-4
    assert abs(found - expected) <= 1e-7 * abs(expected)
    np.testing.assert_allclose(held_out(at), value, rtol=1e-12)

    optimizer, log_l1 = optax.adam(0.2), jnp.log(1e-3)
    state, errors = optimizer.init(log_l1), []
    for _ in range(60):
        error, slope = value_and_grad(log_l1)
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimizer.update(slope, state)
        log_l1 = log_l1 + change
        errors.append(float(error))
    best = min(float(value_and_grad(jnp.log(x))[0]) for x in np.geomspace(1e-3, 3.0, 30))
    assert errors[-1] < 0.9 * errors[0]
    assert errors[-1] <= 1.01 * best


def test_factorizing_layer_is_differentiated_through_both_factors():
    # Sparse factors behind an invertible mixing of the channels, whose weights are differentiated.
    rng = np.random.default_rng(103)
    sparse = [rng.random(shape) * (rng.random(shape) < 0.5) for shape in ((16, 3), (3, 12))]
    inputs = jnp.asarray(sparse[0] @ sparse[1] + 0.1 * rng.random((16, 12)))
    kernel = jnp.eye(12)
    module = layer.Factorize(3, solver=HALS(rtol=1e-15, max_steps=4000))
    wanted = jnp.asarray(rng.standard_normal((3, 12)))

    def loss(kernel):
        codes, dictionary = module(jax.nn.relu(inputs @ kernel))
        return jnp.sum(wanted * dictionary) + jnp.sum(codes[:, 0])

    both = jax.jit(jax.value_and_grad(loss))
    gradient = both(kernel)[1]
    assert jnp.all(jnp.isfinite(gradient))
    way, step = jnp.asarray(rng.standard_normal(kernel.shape)), 1e-6
    expected = (both(kernel + step * way)[0] - both(kernel - step * way)[0]) / (2 * step)
    # Solved from the start each time, to another rounding: a looser bound than in the derivative's own tests.
    assert abs(jnp.sum(gradient * way) - expected) <= 1e-5 * abs(expected)


@pytest.mark.parametrize("options", [{"channels": 0, "rank": 3}, {"channels": 4, "rank": 0}])
def test_sizes_are_checked(options):
    with pytest.raises(ValueError, match="at least 1"):
        layer.Encode(**options, rngs=nnx.Rngs(0))


def test_penalties_are_checked():
    with pytest.raises(ValueError, match="a penalty"):
        layer.Encode(4, 3, learn_l1=True, rngs=nnx.Rngs(0))


def test_a_signed_layer_encodes_activations_of_either_sign():
    encoder = layer.Encode(6, 3, signed=True, rngs=nnx.Rngs(0))
    assert float(encoder.concepts.min()) < 0
    np.testing.assert_allclose(jnp.linalg.norm(encoder.concepts, axis=1), 1, atol=1e-6)
    rows = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    expected = np.stack([scipy.optimize.nnls(np.asarray(encoder.concepts.T, np.float64), row)[0] for row in rows])
    np.testing.assert_allclose(encoder(jnp.asarray(rows)), expected, atol=1e-5)
    found = layer.Factorize(3, solver=SemiNMF(max_steps=20))(jnp.asarray(rows))
    assert float(found[0].min()) >= 0 > float(found[1].min())
