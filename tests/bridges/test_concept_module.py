"""Images to concept codes as a torch module: derivatives, and every one of Captum's methods unchanged."""

import captum.attr
import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch
import torchvision
from captum._utils.models.linear_model import SkLearnLinearRegression
from face_jax.bridges.torch_features import features_of

from face_jax import bridges, signs_apart
from face_jax.attribution import concept_gradients
from face_jax.model import Preprocess, SplitModel
from face_jax.nmf import encode

CONCEPTS, CHANNELS = 3, 6
# Captum says that it switches gradients on for the images, which is what it's asked for.
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")


def dictionary(channels=CHANNELS, seed=0):
    # Each concept has channels of its own, so that each occurs somewhere; the rest overlaps.
    values = 0.3 * np.random.default_rng(seed).uniform(size=(CONCEPTS, channels))
    values[np.arange(channels) % CONCEPTS, np.arange(channels)] += 1
    return jnp.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def split():
    model = small.randomized(small.Plain(channels=CHANNELS), seed=3).double()
    return bridges.split(model, "body", preprocess=Preprocess(size=8, resize=8))


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(4).standard_normal((2, 3, 8, 8)))


@pytest.fixture(params=[False, True], ids=["grid", "pooled"])
def pooled(request):
    return request.param


def test_codes_are_those_of_jax(split, images, pooled):
    maps = split.features(images.movedim(1, -1).numpy())
    rows = jnp.mean(maps, axis=(1, 2)) if pooled else maps.reshape(-1, CHANNELS)
    expected = encode(rows, dictionary())
    codes = bridges.ConceptModule(split, dictionary(), pooled=pooled)(images)
    assert codes.shape == ((2, CONCEPTS) if pooled else (2, 4, 4, CONCEPTS))
    np.testing.assert_allclose(codes.reshape(-1, CONCEPTS).numpy(force=True), expected, rtol=1e-10, atol=1e-12)


def test_signs_are_put_apart_in_torch_for_torch_s_methods(images, pooled):
    model = small.randomized(small.Plain(channels=CHANNELS), seed=3).double()
    mixed = bridges.split(model, "body.4", preprocess=Preprocess(size=8, resize=8))
    apart = signs_apart(mixed)
    inputs = images.movedim(1, -1).numpy()
    maps, both = mixed.features(inputs), apart.features(inputs)
    assert float(maps.min()) < 0 <= float(both.min())
    channels = maps.shape[-1]
    np.testing.assert_array_equal(both[..., :channels] - both[..., channels:], maps)
    np.testing.assert_allclose(apart.head(both), mixed.head(maps), rtol=1e-10)
    for split, bank in ((apart, dictionary(2 * channels)), (mixed, dictionary(channels) - 0.2)):
        module = bridges.ConceptModule(split, bank, pooled=pooled)
        given = images.clone().requires_grad_()
        codes = module(given)
        found = split.features(inputs)
        rows = jnp.mean(found, axis=(1, 2)) if pooled else found.reshape(-1, found.shape[-1])
        np.testing.assert_allclose(codes.reshape(-1, CONCEPTS).numpy(force=True), encode(rows, bank), atol=1e-10)
        (gradient,) = torch.autograd.grad(codes[..., 0].sum(), given)
        expected = concept_gradients(split, bank, inputs, concepts=[0], pooled=pooled)[0]
        np.testing.assert_allclose(gradient.movedim(1, -1).numpy(), expected, atol=1e-10)


def test_gradient_agrees_with_a_central_difference(split, images, pooled):
    module = bridges.ConceptModule(split, dictionary(), pooled=pooled)
    images.requires_grad_()
    codes = module(images)
    # Guards: some codes are zero and some aren't, and none of these is about to cross.
    if not pooled:
        assert 0.05 < float((codes == 0).double().mean()) < 0.95
        assert float(codes[codes > 0].detach().min()) > 1e-4
    direction = torch.from_numpy(np.random.default_rng(5).standard_normal(images.shape))
    step = 1e-6
    for k in range(CONCEPTS):
        (gradient,) = torch.autograd.grad(codes[..., k].sum(), images, retain_graph=True)
        with torch.no_grad():
            ahead, behind = (module(images + sign * step * direction)[..., k].sum() for sign in (1, -1))
        exact = float((gradient * direction).sum().detach())
        assert abs(exact) > 1e-4
        assert float((ahead - behind) / (2 * step)) == pytest.approx(exact, rel=1e-6)


def test_gradient_agrees_through_a_torchvision_network():
    torch.manual_seed(0)
    model = small.randomized(torchvision.models.resnet18(weights=None)).double()
    split = bridges.split(model, "layer2", preprocess=Preprocess(size=32))
    module = bridges.ConceptModule(split, dictionary(128), pooled=True)
    random = np.random.default_rng(6)
    images = torch.from_numpy(random.standard_normal((1, 3, 32, 32))).requires_grad_()
    direction = torch.from_numpy(random.standard_normal(images.shape))
    module(images)[:, 1].sum().backward()
    with torch.no_grad():
        ahead, behind = (module(images + sign * 1e-6 * direction)[:, 1].sum() for sign in (1, -1))
    exact = float((images.grad * direction).sum())
    assert abs(exact) > 1e-4
    assert float((ahead - behind) / 2e-6) == pytest.approx(exact, rel=1e-6)


@pytest.fixture
def module(split):
    return bridges.ConceptModule(split, dictionary(), pooled=True)


def by_hand(module, images, target):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(module(images)[:, target].sum(), images)[0]


def test_captum_saliency(module, images):
    given = captum.attr.Saliency(module).attribute(images, target=1)
    torch.testing.assert_close(given, by_hand(module, images, 1).abs())
    assert float(given.max()) > 0


def test_captum_saliency_of_one_place_of_the_grid(split, images):
    grid = bridges.ConceptModule(split, dictionary())
    y, x, k = torch.nonzero(grid(images)[0] > 0.01)[0].tolist()
    given = captum.attr.Saliency(grid).attribute(images, target=(y, x, k))
    # A place on the grid sees the few pixels beneath it and no more: two convolutions of 3, one with stride 2.
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[max(0, 2 * y - 2) : 2 * y + 3, max(0, 2 * x - 2) : 2 * x + 3] = False
    assert float(given[0].max()) > 0
    assert float(given[0][:, outside].abs().max()) == 0


def test_captum_input_times_gradient(module, images):
    given = captum.attr.InputXGradient(module).attribute(images, target=1)
    torch.testing.assert_close(given, images * by_hand(module, images, 1))


def test_captum_integrated_gradients_add_up(module, images):
    method = captum.attr.IntegratedGradients(module)
    given = method.attribute(images, target=1, n_steps=400, internal_batch_size=100)
    with torch.no_grad():
        expected = module(images)[:, 1] - module(torch.zeros_like(images))[:, 1]
    assert float(expected.abs().max()) > 0.05
    # The sum over the path has an error of the order of its step where a ReLU or a code switches.
    torch.testing.assert_close(given.sum((1, 2, 3)), expected, rtol=0, atol=0.01 * float(expected.abs().max()))


def test_captum_noise_tunnel(module, images):
    torch.manual_seed(0)
    method = captum.attr.NoiseTunnel(captum.attr.Saliency(module))
    given = method.attribute(images, target=1, nt_type="smoothgrad", nt_samples=4, stdevs=1e-9)
    # Noise of next to nothing leaves the gradient as it is.
    torch.testing.assert_close(given, by_hand(module, images, 1).abs(), rtol=1e-5, atol=1e-8)
    noisy = method.attribute(images, target=1, nt_type="smoothgrad", nt_samples=4, stdevs=0.5)
    assert not torch.allclose(noisy, given, rtol=1e-2)


def test_captum_layer_grad_cam(module, images):
    given = captum.attr.LayerGradCam(module, module.activations).attribute(images, target=1)
    assert given.shape == (2, 1, 4, 4)
    with torch.no_grad():
        maps = module.features(images)
    maps.requires_grad_()
    codes = bridges.as_torch(encode)(maps.mean((2, 3)), module.dictionary)[:, 1]
    (gradient,) = torch.autograd.grad(codes.sum(), maps)
    expected = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True)
    torch.testing.assert_close(given, expected.detach())


def test_captum_layer_grad_cam_inside_the_torch_network(module, images, split):
    inner = dict(module.features.named_modules())["body.3"]
    assert captum.attr.LayerGradCam(module, inner).attribute(images, target=1).shape == (2, 1, 4, 4)


def test_captum_occlusion(module, images):
    given = captum.attr.Occlusion(module).attribute(images, (3, 4, 4), strides=(3, 4, 4), target=1, baselines=0)
    hidden = images.clone()
    hidden[:, :, 4:, :4] = 0
    with torch.no_grad():
        expected = (module(images) - module(hidden))[:, 1]
    torch.testing.assert_close(given[:, 0, 4, 0].double(), expected, rtol=1e-6, atol=1e-9)
    assert float(expected.abs().max()) > 0


def quarters():
    numbers = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    numbers[..., 4:] += 1
    numbers[..., 4:, :] += 2
    return numbers


def test_captum_feature_ablation(module, images):
    given = captum.attr.FeatureAblation(module).attribute(images, target=1, feature_mask=quarters())
    hidden = images.clone()
    hidden[:, :, :4, 4:] = 0
    with torch.no_grad():
        expected = (module(images) - module(hidden))[:, 1]
    torch.testing.assert_close(given[:, 0, 0, 4].double(), expected, rtol=1e-6, atol=1e-9)


def test_captum_kernel_shap_adds_up(module, images):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  Captum draws from NumPy's global generator
    given = captum.attr.KernelShap(module).attribute(images[:1], target=1, feature_mask=quarters(), n_samples=200)
    with torch.no_grad():
        expected = float(module(images[:1])[0, 1] - module(torch.zeros_like(images[:1]))[0, 1])
    four = [float(given[0, 0, y, x]) for y in (0, 4) for x in (0, 4)]
    # The defining property of Shapley values; Captum's weighted regression meets it up to its ridge.
    assert sum(four) == pytest.approx(expected, rel=1e-3)
    assert max(four) - min(four) > 1e-3


def test_captum_lime(module, images):
    torch.manual_seed(0)
    method = captum.attr.Lime(module, interpretable_model=SkLearnLinearRegression())
    given = method.attribute(images[:1], target=1, feature_mask=quarters(), n_samples=200)
    four = [float(given[0, 0, y, x]) for y in (0, 4) for x in (0, 4)]
    ablation = captum.attr.FeatureAblation(module).attribute(images[:1], target=1, feature_mask=quarters())
    singles = [float(ablation[0, 0, y, x]) for y in (0, 4) for x in (0, 4)]
    # A pooled code is nearly a sum over the quarters, and then a linear fit finds what each is worth.
    assert np.corrcoef(four, singles)[0, 1] > 0.9


def test_float32_network_and_float64_dictionary(images):
    model = small.randomized(small.Plain(channels=CHANNELS), seed=3)
    split = bridges.split(model, "body", preprocess=Preprocess(size=8, resize=8))
    codes = bridges.ConceptModule(split, dictionary(), pooled=True)(images.float())
    assert codes.dtype == torch.float32


def test_averages_of_half_precision_are_not_rounded(images):
    model = small.randomized(small.Plain(channels=CHANNELS), seed=3).to(torch.bfloat16)
    split = bridges.split(model, "body", preprocess=Preprocess(size=8, resize=8))
    rows = jnp.mean(split.features(images.movedim(1, -1).numpy()), axis=(1, 2))
    codes = bridges.ConceptModule(split, dictionary(), pooled=True)(images)
    expected = encode(rows, dictionary().astype(jnp.float32))
    np.testing.assert_allclose(codes.numpy(force=True), expected, rtol=1e-4, atol=1e-6)


def test_images_of_another_precision_are_brought_to_the_networks(module, images):
    single = images.float().requires_grad_()
    codes = module(single)
    torch.testing.assert_close(codes, module(single.detach().double()))
    codes.sum().backward()
    assert single.grad.dtype == torch.float32


def test_can_be_saved_whole(module, images, tmp_path):
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    torch.testing.assert_close(loaded(images), module(images), rtol=0, atol=0)
    # What is trained or moved is what runs.
    assert loaded._maps_of.__self__.module is loaded.features


def test_training_mode_of_the_network_is_not_used(split, images):
    module = bridges.ConceptModule(split, dictionary(), pooled=True)
    expected = module.eval()(images)
    torch.testing.assert_close(module.train()(images), expected)
    module.eval()


def test_moves_with_the_dictionary_in_its_state(split):
    module = bridges.ConceptModule(split, dictionary())
    torch.testing.assert_close(module.state_dict()["dictionary"], torch.from_numpy(np.array(dictionary())))


def test_dictionary_of_another_layer_is_refused(split, images):
    with pytest.raises(ValueError, match="dictionary has 9 channels and the layer 6"):
        bridges.ConceptModule(split, dictionary(9))(images)
    with pytest.raises(ValueError, match=r"dictionary has shape \(3,\); give concept × channel"):
        bridges.ConceptModule(split, dictionary()[:, 0])
    with pytest.raises(ValueError, match="dictionary has 1 entries that are NaN or infinite; give finite concepts"):
        bridges.ConceptModule(split, dictionary().at[1, 2].set(jnp.nan))
    with pytest.raises(ValueError, match="dictionary='concepts' isn't an array of real numbers"):
        bridges.ConceptModule(split, "concepts")


def test_a_list_is_a_dictionary_too(split, module, images):
    listed = bridges.ConceptModule(split, dictionary().tolist(), pooled=True)
    torch.testing.assert_close(listed(images), module(images))


@pytest.mark.parametrize("shape", [(3, 8, 8), ()])
def test_images_of_other_axes_are_refused(module, shape):
    with pytest.raises(ValueError, match=r"images has shape \(.*\); give four axes: image colour y x"):
        module(torch.zeros(shape, dtype=torch.float64))


def test_other_features_than_torchs_are_refused(split):
    other = SplitModel(lambda x: x, split.head, "a", split.preprocess, split.classes, "b", "c")
    with pytest.raises(TypeError, match=r"split\.features is a function; give a model from face_jax\.bridges\.split"):
        bridges.ConceptModule(other, dictionary())
    with pytest.raises(TypeError, match=r"split is a Plain; give a model from face_jax\.bridges\.split"):
        features_of(small.Plain())
