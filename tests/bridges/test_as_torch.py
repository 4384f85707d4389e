"""JAX functions in torch's autograd."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from face_jax import bridges


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).requires_grad_()


def test_values_and_gradients_of_two_arguments():
    a, b = random(3, 4), random(4, 2, seed=1)
    result = bridges.as_torch(lambda x, y: jnp.tanh(x @ y))(a, b)
    expected = torch.tanh(a @ b)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)
    weights = random(3, 2, seed=2).detach()
    given = torch.autograd.grad(result, (a, b), weights)
    for left, right in zip(given, torch.autograd.grad(expected, (a, b), weights), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_torchs_own_check_of_gradients():
    function = bridges.as_torch(lambda x, y: {"s": jnp.sin(x) * y, "p": jnp.prod(x, axis=1)})
    assert torch.autograd.gradcheck(lambda x, y: tuple(function(x, y).values()), (random(2, 3), random(2, 3, seed=1)))


def test_several_results_keep_their_structure():
    a = random(3)
    result = bridges.as_torch(lambda x: (x**2, {"count": jnp.sum(x > 0), "sum": jnp.sum(x)}))(a)
    assert not result[1]["count"].requires_grad
    assert int(result[1]["count"]) == int((a > 0).sum())
    # One result unused: its cotangent is zero, not missing.
    (gradient,) = torch.autograd.grad(result[0].sum(), a)
    torch.testing.assert_close(gradient, 2 * a)


@pytest.mark.parametrize("gradients", [False, True])
def test_each_shape_has_its_own_structure(gradients):
    function = bridges.as_torch(lambda x: [2 * x[i] for i in range(x.shape[0])])
    for count in (2, 3, 2):
        results = function(torch.ones(count, dtype=torch.float64, requires_grad=gradients))
        assert [result.item() for result in results] == [2.0] * count


@pytest.mark.parametrize("gradients", [False, True])
def test_one_value_handed_out_twice_is_not_the_same_memory(gradients):
    first, second = bridges.as_torch(lambda x: (2 * x,) * 2)(random(3).requires_grad_(gradients))
    expected = first.detach().clone()
    with torch.no_grad():
        second += 1
    torch.testing.assert_close(first.detach(), expected)


def test_integers_that_jax_cannot_hold_are_refused():
    function = bridges.as_torch(lambda x: x)
    with jax.enable_x64(False):
        assert int(function(torch.tensor([2**30]))) == 2**30
        with pytest.raises(ValueError, match=r"torch\.int64 has values from 3 to 1099511627776, and JAX's 64-bit"):
            function(torch.tensor([2**40, 3]))
    assert int(function(torch.tensor([2**40]))) == 2**40


def test_only_what_needs_a_gradient_gets_one():
    a, b = random(3), random(3, seed=1).detach()
    numbers = torch.arange(3)
    result = bridges.as_torch(lambda x, y, n: x * y * n.astype(x.dtype))(a, b, numbers)
    result.sum().backward()
    torch.testing.assert_close(a.grad, b * numbers)
    assert b.grad is None


def test_nothing_is_kept_without_gradients():
    function = bridges.as_torch(jnp.sin)
    with torch.no_grad():
        assert function(random(3)).grad_fn is None
    assert function(random(3).detach()).grad_fn is None


def test_compiled_once_for_each_shape():
    traces = []

    def function(x):
        traces.append(x.shape)
        return jnp.sin(x)

    bridged = bridges.as_torch(function)
    for _ in range(3):
        a = random(5)
        bridged(a).sum().backward()
    assert traces == [(5,)]
    bridged(random(6)).sum().backward()
    assert traces == [(5,), (6,)]


def test_backward_is_compiled_once_too():
    traces = []

    @jax.custom_vjp
    def function(x):
        return jnp.sin(x)

    def backward(x, cotangent):
        traces.append(x.shape)
        return (cotangent * jnp.cos(x),)

    function.defvjp(lambda x: (jnp.sin(x), x), backward)
    bridged = bridges.as_torch(function)
    for _ in range(3):
        bridged(random(5)).sum().backward()
    assert traces == [(5,)]


def test_several_backward_passes_of_one_forward_pass():
    a = random(3)
    result = bridges.as_torch(lambda x: x**3)(a)
    for k in range(3):
        (gradient,) = torch.autograd.grad(result[k], a, retain_graph=True)
        expected = torch.zeros(3, dtype=torch.float64)
        expected[k] = 3 * a[k].detach() ** 2
        torch.testing.assert_close(gradient, expected)


def test_an_argument_handed_through_is_not_the_same_memory():
    a = random(3).detach()
    result = bridges.as_torch(lambda x: x)(a)
    result += 1
    torch.testing.assert_close(result, a + 1)


@pytest.mark.parametrize("which", ["argument", "result"])
def test_overwriting_what_the_derivative_needs_is_noticed(which):
    a = random(3)
    b = a * 1
    result = bridges.as_torch(jnp.exp)(b)
    with torch.no_grad():
        (b if which == "argument" else result).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_second_derivatives_are_refused():
    a = random(3)
    (gradient,) = torch.autograd.grad(bridges.as_torch(jnp.sin)(a).sum(), a, create_graph=True)
    torch.testing.assert_close(gradient, torch.cos(a))
    with pytest.raises(NotImplementedError, match="no second derivative"):
        (gradient**2).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_is_kept(dtype):
    a = torch.ones(3, dtype=dtype, requires_grad=True)
    result = bridges.as_torch(lambda x: x * 2)(a)
    assert result.dtype == dtype
    result.sum().backward()
    assert a.grad.dtype == dtype


def test_arguments_must_be_tensors():
    with pytest.raises(TypeError, match="argument 1 is a float; give torch tensors"):
        bridges.as_torch(jnp.add)(torch.ones(3), 1.0)
    with pytest.raises(TypeError, match="no arguments"):
        bridges.as_torch(lambda: jnp.ones(3))()


COMPLEX = {
    "abs": (jnp.abs, torch.abs),
    "exp": (jnp.exp, torch.exp),
    "with the conjugate": (lambda z: z**2 * jnp.conj(z) ** 3, lambda z: z**2 * z.conj() ** 3),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_tensors_have_torchs_gradient(name):
    ours, torchs = COMPLEX[name]
    values = torch.randn(4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    gradients = []
    for function in (bridges.as_torch(ours), torchs):
        z = values.clone().requires_grad_()
        (function(z) * weights).abs().pow(2).sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_real_numbers_have_a_gradient_through_complex_results():
    values = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    for function in (bridges.as_torch(jnp.fft.fft), torch.fft.fft):
        x = values.clone().requires_grad_()
        (function(x)[1].abs() ** 3).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_views_that_stand_for_conjugates_and_negatives_are_what_they_stand_for():
    double = bridges.as_torch(lambda a: 2 * a)
    z = torch.randn(4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(double(z.conj()), (2 * z).conj().resolve_conj())
    assert torch.equal(double(z.conj().imag), -2 * z.imag)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.to_sparse(), r"is sparse .*tensor\.to_dense\(\)"),
        (lambda x: x.to_sparse_csr(), r"is sparse .*tensor\.to_dense\(\)"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), r"is quantized .*tensor\.dequantize\(\)"),
        (lambda x: x.to("meta"), "is on the meta device and has no values"),
        (lambda x: torch.nested.nested_tensor([x, x[:1]]), r"is nested; give tensor\.to_padded_tensor\(0\)"),
    ],
)
def test_tensors_that_jax_cant_share_are_refused_with_what_to_call(change, said):
    with pytest.raises(TypeError, match=f"argument 1 {said}"):
        bridges.as_torch(lambda a, b: a)(torch.ones(1), change(torch.ones(2, 3)))
