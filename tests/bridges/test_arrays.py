"""Arrays between torch and JAX: values, types, and that nothing is copied where nothing need be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from face_jax.bridges.arrays import Layout, share_with_jax, to_jax, to_torch

CPU = torch.device("cpu")


def test_torch_to_jax_is_the_same_memory():
    tensor = torch.rand(2, 3, 4, 5)
    assert to_jax(tensor).unsafe_buffer_pointer() == tensor.data_ptr()


def test_convolutions_output_with_channels_side_by_side_is_the_same_memory():
    tensor = torch.rand(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    maps = Layout(4, 1).to_maps(tensor)
    array = to_jax(maps)
    assert array.shape == (2, 3, 4, 5)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()


def test_jax_to_torch_is_the_same_memory():
    array = jnp.ones((2, 3, 4, 5))
    assert to_torch(array, device=CPU).data_ptr() == array.unsafe_buffer_pointer()


def test_permuted_memory_is_put_in_order():
    tensor = torch.rand(2, 5, 3, 4).movedim(1, -1)
    array = to_jax(tensor)
    np.testing.assert_array_equal(array, tensor.numpy())
    # In order: a function compiled for ordinary arrays takes it without compiling again.
    traces = []
    function = jax.jit(lambda a: traces.append(1) or a.sum())
    function(jnp.zeros((2, 3, 4, 5), jnp.float32))
    function(array)
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_types(dtype):
    tensor = torch.tensor([1.5, -2.0, 0.25], dtype=dtype)
    array = to_jax(tensor)
    assert array.dtype == (jnp.float64 if dtype == torch.float64 else jnp.float32)
    np.testing.assert_array_equal(array, tensor.double().numpy())
    assert share_with_jax(tensor).dtype.itemsize == tensor.dtype.itemsize
    assert to_torch(share_with_jax(tensor), device=CPU).dtype == dtype


def test_double_precision_where_jax_has_none():
    with jax.enable_x64(False):
        assert to_jax(torch.ones(3, dtype=torch.float64)).dtype == jnp.float32


def test_read_only_and_reversed_numpy_arrays():
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    np.testing.assert_array_equal(to_torch(array, device=CPU), array)
    np.testing.assert_array_equal(to_torch(array[::-1], device=CPU), array[::-1])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint64])
def test_long_integers_where_jax_has_none(dtype):
    with jax.enable_x64(False):
        np.testing.assert_array_equal(share_with_jax(torch.tensor([0, 2**30], dtype=dtype)), [0, 2**30])
        assert share_with_jax(torch.tensor([], dtype=dtype)).shape == (0,)
        with pytest.raises(ValueError, match="values from 0 to 1099511627776"):
            share_with_jax(torch.tensor([0, 2**40], dtype=dtype))


def test_bfloat16_of_numpy():
    array = np.asarray([1.5, -2.0, 0.25]).astype(jnp.bfloat16)
    assert to_torch(array, device=CPU).tolist() == [1.5, -2.0, 0.25]
    assert to_torch(array[::-1], device=CPU).dtype == torch.bfloat16
    assert to_torch(array, device=CPU, dtype=torch.float64).dtype == torch.float64


def test_empty_tensors():
    assert to_jax(torch.zeros(0, 3)).shape == (0, 3)
    assert to_torch(jnp.zeros((0, 3)), device=CPU).shape == (0, 3)


@pytest.mark.parametrize(
    ("layout", "shape", "maps"),
    [
        (Layout(4, 1), (2, 5, 3, 4), (2, 3, 4, 5)),
        (Layout(4, 3), (2, 3, 4, 5), (2, 3, 4, 5)),
        (Layout(3, 2), (2, 7, 5), (2, 7, 1, 5)),
        (Layout(3, 1), (2, 5, 7), (2, 7, 1, 5)),
        (Layout(2, 1), (2, 5), (2, 1, 1, 5)),
    ],
)
def test_layouts_there_and_back(layout, shape, maps):
    tensor = torch.rand(shape)
    there = layout.to_maps(tensor)
    assert there.shape == maps
    assert there.data_ptr() == tensor.data_ptr()
    assert torch.equal(layout.from_maps(there), tensor)
    assert torch.equal(there.select(-1, 3).reshape(2, -1), tensor.select(layout.channel, 3).reshape(2, -1))
