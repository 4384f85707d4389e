"""The term itself: losses, units, gradients, curvature, grouping, and every way in which its input can be wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from both_modes import both_modes

import face_jax as fj
from face_jax.faithfulness import Faithfulness, ForwardKL, InMeans, ReverseKL, SigmoidKL, SquaredLogits
from face_jax.heads import Affine
from face_jax.nmf import HALS, encode, factorize
from face_jax.nmf.terms import lambda_weights

ROWS, CHANNELS, CLASSES, RANK = 36, 14, 5, 4
LOSSES = (ForwardKL(), ReverseKL(), SquaredLogits(), SigmoidKL())


def _arrays(seed=0):
    generator = np.random.default_rng(seed)
    activations = np.maximum(generator.normal(0.3, 1, (ROWS, CHANNELS)), 0)
    kernel, bias = generator.normal(size=(CHANNELS, CLASSES)), generator.normal(size=CLASSES)
    codes, dictionary = generator.random((ROWS, RANK)), generator.random((RANK, CHANNELS))
    return tuple(map(jnp.asarray, (activations, kernel, bias, codes, dictionary)))


def _network(rows):
    return jnp.tanh(rows[:, :CLASSES] ** 2 + rows[:, CLASSES : 2 * CLASSES])


def _terms(places=1):
    _, kernel, bias, *_ = _arrays()
    return [Faithfulness(Affine(kernel, bias, places=places), loss=loss) for loss in LOSSES]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses_are_their_definitions(loss):
    generator = np.random.default_rng(3)
    original, logits = generator.normal(size=(2, 7, CLASSES)) * 2
    p, q = (scipy.special.softmax(x, axis=1) for x in (original, logits))
    a, b = (scipy.special.expit(x) for x in (original, logits))
    expected = {
        ForwardKL: (p * np.log(p / q)).sum(1),
        ReverseKL: (q * np.log(q / p)).sum(1),
        SquaredLogits: ((original - logits) ** 2).sum(1) / 2,
        SigmoidKL: (a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))).sum(1),
    }[type(loss)]
    target = loss.target(jnp.asarray(original))
    np.testing.assert_allclose(loss.values(target, jnp.asarray(logits)), expected, rtol=1e-10)
    np.testing.assert_allclose(loss.values(target, jnp.asarray(original)), 0, atol=1e-14)
    slope = jax.grad(lambda x: jnp.sum(loss.values(target, x)))(jnp.asarray(logits))
    np.testing.assert_allclose(loss.slope(target, jnp.asarray(logits)), slope, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_curvatures_are_positive_and_exact_where_they_can_be(loss):
    generator = np.random.default_rng(4)
    original, logits = jnp.asarray(generator.normal(size=(2, 3, CLASSES)))
    target = loss.target(original)
    # The reverse divergence's stands for its second derivative, which it is at the target.
    at = original if isinstance(loss, ReverseKL) else logits
    hessian = jax.vmap(lambda t, x: jax.hessian(lambda y: loss.values(t[None], y[None])[0])(x), in_axes=(0, 0))(
        target, at
    )
    product = loss.curvature(target, at)
    directions = jnp.asarray(generator.normal(size=(RANK, CLASSES)))
    for direction in directions:
        found = product(jnp.broadcast_to(direction[None], at.shape))
        np.testing.assert_allclose(found, hessian @ direction, atol=1e-10)
    mean = jnp.mean(jnp.einsum("kc,ncd,ld->nkl", directions, hessian, directions), axis=0)
    np.testing.assert_allclose(loss.mean_curvature(target, at, directions), mean, atol=1e-10)
    assert np.linalg.eigvalsh(hessian).min() > -1e-10


@pytest.mark.parametrize("places", [1, 9])
@pytest.mark.parametrize("number", range(len(LOSSES)))
def test_gradients_are_those_of_the_value(places, number):
    activations, _, _, codes, dictionary = _arrays()
    term = _terms(places)[number]
    prepared = term.prepare(activations)
    expected = jax.grad(term.value, argnums=(1, 2))(prepared, codes, dictionary)
    for found, slope in zip(term.gradient(prepared, codes, dictionary), expected, strict=True):
        assert np.abs(slope).max() > 1e-3
        np.testing.assert_allclose(found, slope, atol=1e-12)


@pytest.mark.parametrize("places", [1, 9])
def test_affine_heads_and_networks_have_the_same_models(places):
    """The concept × class route against linearizing the very same head as a network."""
    activations, kernel, bias, codes, dictionary = _arrays()
    affine = Faithfulness(Affine(kernel, bias, places=places))

    def network(rows):
        return jnp.mean(rows.reshape(-1, places, CHANNELS), axis=1) @ kernel + bias[None]

    other = Faithfulness(network)
    assert not other.affine
    prepared = affine.prepare(activations)
    generator = np.random.default_rng(5)
    for factor, name in ((codes, "local_codes"), (dictionary, "local_dictionary")):
        direction = jnp.asarray(generator.normal(size=factor.shape))
        mine = getattr(affine, name)(prepared, codes, dictionary)
        theirs = getattr(other, name)(prepared, codes, dictionary)
        np.testing.assert_allclose(mine.slope, theirs.slope, atol=1e-12)
        np.testing.assert_allclose(mine.product(direction), theirs.product(direction), atol=1e-11)
    pair = jnp.asarray(generator.normal(size=codes.shape)), jnp.asarray(generator.normal(size=dictionary.shape))
    both = affine.local_both(prepared, codes, dictionary)(*pair)
    jacobian = jax.jvp(affine.rebuilt, (codes, dictionary), pair)[1]
    curved = affine.loss.curvature(prepared.target, affine.rebuilt(codes, dictionary))(jacobian)
    quadratic = float(jnp.sum(jacobian * curved))
    assert float(sum(jnp.sum(a * b) for a, b in zip(pair, both, strict=True))) == pytest.approx(quadratic, rel=1e-10)


def test_a_head_that_says_it_is_affine_is_read_off():
    activations, kernel, bias, codes, dictionary = _arrays()
    inner = Affine(kernel, bias)

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Wrapped:
        affine = True

        def __call__(self, maps):
            return inner(maps)

    wrapped, plain = Faithfulness(Wrapped()), Faithfulness(inner)
    prepared = plain.prepare(activations)
    np.testing.assert_allclose(wrapped.prepare(activations).target, prepared.target, atol=1e-12)
    np.testing.assert_allclose(
        wrapped.values(prepared, codes, dictionary), plain.values(prepared, codes, dictionary), atol=1e-12
    )


def test_the_published_unit():
    """Mean squared error plus λ times the mean divergence, times half the entries, is the objective with that unit."""
    activations, kernel, bias, codes, dictionary = _arrays()
    weight = 0.37
    for places in (1, 9):
        head = Affine(kernel, bias, places=places)
        term = Faithfulness(head, unit=InMeans())
        value = term.value(term.prepare(activations), codes, dictionary)
        ours = fj.SquaredError().value(activations, codes, dictionary) + weight * value
        log_p, log_q = (
            np.log(scipy.special.softmax(np.asarray(head(x)), axis=1)) for x in (activations, codes @ dictionary)
        )
        published = np.mean(np.asarray(activations - codes @ dictionary) ** 2)
        published += weight * np.mean((np.exp(log_p) * (log_p - log_q)).sum(1))
        assert float(ours) == pytest.approx(published * activations.size / 2, rel=1e-10)


def _with_bias(head, bias):
    # The annotations' check would be faster than ours; users don't have it.
    object.__setattr__(head, "bias", bias)
    return head


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda k, b: Faithfulness(None), "head=None"),
        (lambda k, b: Faithfulness(3), "can't be called"),
        (lambda k, b: Faithfulness(Affine(k[:-1], b)), "takes 13 channels and activations has 14"),
        (lambda k, b: Faithfulness(Affine(k, b, places=7)), "isn't a multiple of the 7 places"),
        (lambda k, b: Faithfulness(Affine(k.at[2, 1].set(jnp.nan), b)), "NaN or infinite for 36 of 36 images"),
        (lambda k, b: Faithfulness(Affine(k, b), weights=jnp.ones(3)), r"weights has shape \(3,\)"),
        (lambda k, b: Faithfulness(Affine(k, b), weights=-jnp.ones(ROWS)), "negative"),
        (lambda k, b: Faithfulness(lambda x: np.asarray(x) @ np.ones((CHANNELS, 3))), "TracerArrayConversionError"),
        (lambda k, b: Faithfulness(lambda x: x[0]), "it has to give image"),
        (lambda k, b: Faithfulness(lambda x: x @ k if x.sum() > 0 else x @ -k), "TracerBoolConversionError"),
    ],
)
def test_what_does_not_fit_is_refused(build, said):
    activations, kernel, bias, *_ = _arrays()
    with pytest.raises(ValueError, match=said):
        factorize(activations, RANK, objective=fj.SquaredError() + 1.0 * build(kernel, bias))


def test_a_bias_of_another_length_is_refused():
    activations, kernel, bias, *_ = _arrays()
    with pytest.raises(ValueError, match="5 classes and its bias 4"):
        Faithfulness(_with_bias(Affine(kernel, bias), bias[:-1])).check(activations)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_refused(weight):
    activations, kernel, bias, *_ = _arrays()
    with pytest.raises(ValueError, match="isn't a weight of a term"):
        factorize(activations, RANK, objective=fj.SquaredError() + weight * Faithfulness(Affine(kernel, bias)))


def test_solvers_and_weights_that_cannot_have_terms_are_refused():
    activations, kernel, bias, *_ = _arrays()
    term = 1.0 * Faithfulness(Affine(kernel, bias))
    with pytest.raises(ValueError, match=r"solver=HALS\(\).*ADMM\(\)"):
        factorize(activations, RANK, objective=fj.SquaredError() + term, solver=HALS())
    with pytest.raises(ValueError, match="weights of single entries"):
        factorize(activations, RANK, objective=fj.SquaredError(weights=jnp.ones_like(activations)) + term)


def test_an_objective_needs_its_squared_error():
    activations, kernel, bias, _, dictionary = _arrays()
    term = Faithfulness(Affine(kernel, bias))
    for lone in (2.0 * term, 2.0 * term + term):
        with pytest.raises(ValueError, match=r"no squared error.*SquaredError\(\) \+ λ"):
            factorize(activations, RANK, objective=lone)
        with pytest.raises(ValueError, match=r"no squared error.*SquaredError\(\) \+ λ"):
            encode(activations, dictionary, objective=lone)


@pytest.mark.parametrize(("weight", "said"), [("auto", "chosen by faithfulness_path"), (None, "λ=None isn't a weight")])
def test_weights_that_are_no_numbers(weight, said):
    _, kernel, bias, *_ = _arrays()
    objective = fj.SquaredError() + 1.0 * Faithfulness(Affine(kernel, bias))
    # Where types are checked, as here, it doesn't get so far.
    object.__setattr__(objective.terms[0], "weight", weight)
    with pytest.raises(ValueError, match=said):
        lambda_weights.active(objective)


def test_a_head_does_not_close_over_what_is_differentiated():
    activations, kernel, *_ = _arrays()

    def closed(kernel):
        objective = fj.SquaredError() + 2.0 * Faithfulness(lambda rows: rows @ kernel)
        return factorize(activations, RANK, objective=objective).codes.sum()

    with pytest.raises(ValueError, match=r"closes over values.*Partial"):
        jax.grad(closed)(kernel)
    assert np.isfinite(closed(kernel))

    class Plain:
        affine = True

        def __call__(self, rows):
            return rows @ kernel

    with pytest.raises(ValueError, match=r"Plain.*register_dataclass"):
        Faithfulness(Plain())


def test_encoding_with_the_term_is_a_convex_minimum():
    activations, kernel, bias, _, dictionary = _arrays()
    term, weight = Faithfulness(Affine(kernel, bias)), 3.0
    objective = fj.SquaredError() + weight * term
    codes = encode(activations, dictionary, objective=objective)
    prepared = term.prepare(activations)
    slope = fj.SquaredError().gradient(activations, codes, dictionary)[0]
    slope = slope + weight * term.gradient(prepared, codes, dictionary)[0]
    assert (codes >= 0).all()
    assert 0.05 < float(jnp.mean(codes == 0)) < 0.95
    assert float(jnp.abs(jnp.where(codes > 0, slope, 0)).max()) < 1e-6
    assert float(jnp.where(codes == 0, slope, 0).min()) > -1e-6
    plain = encode(activations, dictionary)
    assert term.value(prepared, codes, dictionary) < 0.9 * term.value(prepared, plain, dictionary)
    np.testing.assert_array_equal(encode(activations, dictionary, objective=fj.SquaredError() + 0.0 * term), plain)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("weight", [100.0, 1e5])
@pytest.mark.parametrize("places", [1, 4])
def test_encoding_arrives_however_much_the_term_weighs(dtype, weight, places):
    activations, kernel, bias, _, dictionary = (x.astype(dtype) for x in _arrays())
    term = Faithfulness(Affine(kernel, bias, places=places))
    objective = fj.SquaredError() + weight * term
    codes = encode(activations, dictionary, objective=objective)
    assert codes.dtype == dtype
    assert float(codes.min()) == 0
    prepared = term.prepare(activations)
    slope = fj.SquaredError().gradient(activations, codes, dictionary)[0]
    slope = slope + jnp.asarray(weight, dtype) * term.gradient(prepared, codes, dictionary)[0]
    off = jnp.where(codes > 0, jnp.abs(slope), jnp.maximum(-slope, 0))
    # The slopes are differences of numbers of this size.
    size = weight * float(jnp.abs(kernel).max()) + float(jnp.abs(activations @ dictionary.T).max())
    assert float(off.max()) < 100 * float(jnp.finfo(dtype).eps) * size


def _rounding(activations, kernel, bias, dictionary, codes, weight, places):
    """What slopes in float32 may be off, to first order: a rounding of every number that is added, not of their sum.

    Logits are off by `δ`, roundings of the numbers that make them; a softmax's shares (a sigmoid's too) by `2 δ` of
    themselves and some roundings of their own; the slope adds these up, weighed by what each class sees of a concept.
    """
    pooled = lambda x: x.reshape(-1, places, x.shape[1]).mean(1)  # noqa: E731
    seen = dictionary @ kernel
    fit = np.abs(codes) @ (dictionary @ dictionary.T) + activations @ dictionary.T
    shares = (
        scipy.special.softmax(pooled(codes) @ seen + bias, axis=1),
        scipy.special.expit(pooled(codes) @ seen + bias),
    )
    before = (
        scipy.special.softmax(pooled(activations) @ kernel + bias, axis=1),
        scipy.special.expit(pooled(activations) @ kernel + bias),
    )
    off = pooled(codes) @ (dictionary @ np.abs(kernel)) + pooled(activations) @ np.abs(kernel) + 2 * np.abs(bias)
    both = np.maximum(*shares) + np.maximum(*before)
    term = (both * (2 * off.max(axis=1, keepdims=True) + 4)) @ np.abs(seen).T / places
    return float(np.finfo(np.float32).eps) * (fit + weight * np.repeat(term, places, axis=0))


@pytest.mark.parametrize("loss", [ForwardKL(), SigmoidKL()], ids=str)
@pytest.mark.parametrize("places", [1, 4])
def test_single_precision_arrives_as_far_as_its_slopes_can_be_known(loss, places):
    """Slopes at the codes of float32, in float64: no more than what float32 can't see of them."""
    for seed in range(12):
        for weight in (100.0, 1e5):
            activations, kernel, bias, _, dictionary = (x.astype(jnp.float32) for x in _arrays(seed))
            objective = fj.SquaredError() + weight * Faithfulness(Affine(kernel, bias, places=places), loss=loss)
            codes = encode(activations, dictionary, objective=objective)
            given = [x.astype(jnp.float64) for x in (activations, kernel, bias, dictionary, codes)]
            activations, kernel, bias, dictionary, codes = given
            term = Faithfulness(Affine(kernel, bias, places=places), loss=loss)
            slope = fj.SquaredError().gradient(activations, codes, dictionary)[0]
            slope = slope + weight * term.gradient(term.prepare(activations), codes, dictionary)[0]
            off = np.where(codes > 0, np.abs(slope), np.maximum(-slope, 0))
            known = _rounding(*map(np.asarray, given), weight=weight, places=places)
            assert (off <= known).all(), f"seed {seed}, λ={weight}: {(off / known).max():.1f} times what is rounding"


@pytest.mark.parametrize("weight", [30.0, 1000.0])
def test_encoding_behind_any_head_is_never_above_where_it_began_nor_negative(weight):
    activations, kernel, _, _, dictionary = _arrays()
    inner = jnp.asarray(np.random.default_rng(8).normal(size=(CHANNELS, CHANNELS)))
    term = Faithfulness(lambda rows: jax.nn.relu(rows @ inner) @ kernel)
    objective = fj.SquaredError() + weight * term
    prepared = term.prepare(activations)

    def each(codes):
        rest = activations - codes @ dictionary
        return jnp.sum(rest**2, axis=1) / 2 + weight * term.values(prepared, codes, dictionary)

    codes, plain = encode(activations, dictionary, objective=objective), encode(activations, dictionary)
    assert float(codes.min()) == 0
    assert (each(codes) <= each(plain) * (1 + 1e-9)).all()
    assert float(each(codes).sum()) < 0.6 * float(each(plain).sum())


def test_codes_of_a_picture_do_not_depend_on_its_company():
    activations, kernel, bias, _, dictionary = _arrays()
    objective = fj.SquaredError() + 100.0 * Faithfulness(Affine(kernel, bias, places=4))
    together = encode(activations, dictionary, objective=objective)
    np.testing.assert_allclose(encode(activations[:4], dictionary, objective=objective), together[:4], atol=1e-10)


def _coded(at, bias):
    objective = fj.SquaredError() + at["weight"] * Faithfulness(Affine(at["kernel"], bias))
    return encode(at["activations"], at["dictionary"], objective=objective)


_coded_both_ways = both_modes(_coded)


@pytest.mark.parametrize(
    ("argument", "weight"),
    [("activations", 3.0), ("dictionary", 3.0), ("kernel", 3.0), ("weight", 3.0), ("kernel", 1000.0)],
)
def test_the_derivative_of_encoding_with_the_term(argument, weight):
    """Against central differences; then backward against forward."""
    activations, kernel, bias, _, dictionary = _arrays()
    at = {"activations": activations, "dictionary": dictionary, "kernel": kernel, "weight": jnp.asarray(weight)}
    direction = np.random.default_rng(6).normal(size=at[argument].shape)
    # A single number's direction may be as good as none.
    direction = jnp.asarray(direction / np.max(np.abs(direction)))
    ways = {name: direction if name == argument else jnp.zeros_like(x) for name, x in at.items()}
    cotangent = jnp.asarray(np.random.default_rng(7).normal(size=(ROWS, RANK)))
    step = 1e-5
    (ahead, *_), (behind, *_), (_, tangent, back) = (
        _coded_both_ways(({name: x + size * ways[name] for name, x in at.items()}, bias), (ways, 0 * bias), cotangent)
        for size in (step, -step, 0.0)
    )
    assert ((ahead > 0) == (behind > 0)).all(), "a code changes between zero and positive"
    difference = (ahead - behind) / (2 * step)
    assert float(jnp.abs(difference).max()) > 1e-3
    np.testing.assert_allclose(tangent, difference, atol=2e-6 * float(jnp.abs(difference).max()))
    assert float(jnp.sum(back[0][argument] * direction)) == pytest.approx(float(jnp.sum(cotangent * tangent)), rel=1e-8)
