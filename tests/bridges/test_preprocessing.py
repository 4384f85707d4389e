"""Torchvision's transforms as `Preprocess`: the same pixels, or refused by name."""

import numpy as np
import pytest
import torch
import torchvision
from face_jax.bridges.preprocessing import as_preprocess
from PIL import Image
from timm.data.transforms_factory import create_transform
from torchvision import transforms as first
from torchvision.transforms import v2 as second

from face_jax import bridges
from face_jax.model import Preprocess, Transform
from face_jax.pictures.photographs import network_input, photographs


def timm_transform(input_size, **settings):
    return create_transform(input_size, **settings)


def _failing(image):
    raise RuntimeError("no such thing")


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
BICUBIC, NEAREST, LANCZOS = (getattr(first.InterpolationMode, name) for name in ("BICUBIC", "NEAREST", "LANCZOS"))
SCALED = second.ToDtype(torch.float32, scale=True)
EXACT = {
    "first": first.Compose([first.Resize(40), first.CenterCrop(32), first.ToTensor(), first.Normalize(MEAN, STD)]),
    "bicubic": first.Compose(
        [first.Resize([40], BICUBIC), first.CenterCrop((32, 32)), first.ToTensor(), first.Normalize(MEAN, STD)]
    ),
    "nearest": first.Compose([first.Resize(40, NEAREST), first.CenterCrop(32), first.ToTensor()]),
    "lanczos": first.Compose([first.Resize(40, LANCZOS), first.CenterCrop(32), first.ToTensor()]),
    "squashed": first.Compose([first.Resize((40, 40)), first.CenterCrop(32), first.ToTensor()]),
    "squashed and whole": first.Compose([first.Resize((32, 32), BICUBIC), first.ToTensor()]),
    "not normalized": first.Compose([first.Resize(32), first.CenterCrop(32), first.ToTensor()]),
    "second": second.Compose(
        [second.RGB(), second.Resize(40), second.CenterCrop(32), second.ToImage(), SCALED, second.Normalize(MEAN, STD)]
    ),
    "nested": first.Compose(
        [
            first.Compose([first.Resize(40), first.CenterCrop(32)]),
            first.PILToTensor(),
            first.ConvertImageDtype(torch.float32),
            first.Normalize(MEAN, STD),
        ]
    ),
    "preset": torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1.transforms(),
    "pair": first.Compose([first.Resize((24, 40)), first.ToTensor(), first.Normalize(MEAN, STD)]),
    "pair, cut": first.Compose([first.Resize((30, 30)), first.CenterCrop((24, 17)), first.ToTensor()]),
    "not square": first.Compose([first.Resize(40), first.CenterCrop((24, 33)), first.ToTensor()]),
    "black border": first.Compose([first.Resize(29), first.CenterCrop((32, 40)), first.ToTensor()]),
    "grey": first.Compose(
        [first.Grayscale(), first.Resize(40), first.CenterCrop(28), first.ToTensor(), first.Normalize(0.13, 0.31)]
    ),
    "one mean": first.Compose([first.Resize(40), first.CenterCrop(28), first.ToTensor(), first.Normalize(0.5, 0.5)]),
    "timm's center": timm_transform((3, 32, 32), interpolation="bicubic", crop_pct=0.9),
    "timm's center, not square": timm_transform((3, 24, 40), crop_pct=0.9),
    "timm's squash": timm_transform((3, 24, 40), crop_mode="squash", crop_pct=0.9),
    "timm's border": timm_transform((3, 24, 40), crop_mode="border", crop_pct=0.9, mean=MEAN, std=STD),
    "timm's whole border": timm_transform((3, 33, 33), crop_mode="border", crop_pct=1.0, interpolation="lanczos"),
} | {
    mode.value: first.Compose([first.Resize(40, mode), first.CenterCrop(32), first.ToTensor()])
    for mode in first.InterpolationMode
}


@pytest.mark.parametrize("shape", [(50, 70), (71, 44), (20, 20), (9, 61)])
@pytest.mark.parametrize("name", EXACT)
def test_photographs_are_prepared_as_by_the_transforms(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = EXACT[name](Image.fromarray(pixels)).movedim(0, -1).numpy()
    preprocess = as_preprocess(EXACT[name])
    assert type(preprocess) is Preprocess
    assert preprocess.shape == expected.shape
    given = network_input(photographs([pixels])[0].pixels(preprocess.reads), preprocess)
    np.testing.assert_allclose(given, expected, rtol=0, atol=2e-6)


def test_an_entry_of_torchvisions_weights_is_its_preset():
    entry = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    assert as_preprocess(entry) == as_preprocess(entry.transforms()) == Preprocess(size=224, resize=232)
    assert as_preprocess(None) == Preprocess()


TO_TENSOR = [first.ToTensor(), first.Normalize(MEAN, STD)]
OTHERS = {
    "own function": [first.Resize(40), first.CenterCrop(32), first.Lambda(lambda image: image.rotate(90)), *TO_TENSOR],
    "three grey channels": [first.Grayscale(3), first.Resize(40), first.CenterCrop(32), *TO_TENSOR],
    "grey afterwards": [first.Resize(40), first.CenterCrop(32), first.Grayscale(), first.ToTensor()],
    "no Resize": [first.CenterCrop(32), *TO_TENSOR],
    "max_size": [first.Resize(40, max_size=60), first.CenterCrop(32), *TO_TENSOR],
    "another order": [first.CenterCrop(32), first.Resize(40), *TO_TENSOR],
    "a tensor's resizing": [second.ToImage(), second.Resize(40), second.CenterCrop(32), SCALED],
    "a tensor's resizing without antialias": [second.ToImage(), second.Resize((9, 7), antialias=False), SCALED],
    "another range": [first.Resize((9, 7)), first.ToTensor(), first.Lambda(lambda image: 2 * image - 1)],
    "not scaled": [first.Resize((9, 7)), second.ToImage(), second.ToDtype(torch.float32)],
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_preprocess_cant_do_exactly_is_done_as_it_is(name):
    transforms = first.Compose(OTHERS[name])
    preprocess = as_preprocess(transforms)
    assert type(preprocess) is Transform
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    expected = np.moveaxis(np.asarray(transforms(Image.fromarray(pixels))), 0, -1)
    np.testing.assert_array_equal(network_input(pixels, preprocess), expected)
    assert preprocess.shape == expected.shape
    # A crop is cut out first.
    crop = np.moveaxis(np.asarray(transforms(Image.fromarray(pixels[5:41, 12:60]))), 0, -1)
    np.testing.assert_array_equal(network_input(pixels, preprocess, (5, 12, 41, 60)), crop)


REFUSED = {
    "draws at random": [first.Resize(40), first.RandomCrop(32), *TO_TENSOR],
    "so that one picture": [first.Resize(40), first.CenterCrop(32), first.RandomHorizontalFlip(0.01), *TO_TENSOR],
    r"131 × 97 pixels of 3 channels for a picture of 131 × 97": [*TO_TENSOR],
    "let it give the same height and width": [first.Resize(32), *TO_TENSOR],
    r"gives shape \(3, 32, 32\) of uint8": [first.Resize((32, 32)), first.PILToTensor()],
    "NaN or infinity": [first.Resize((9, 9)), first.ToTensor(), first.Lambda(lambda image: image / image.min() / 0)],
    r"of object; let it give|fails \(": [first.Resize((9, 9))] * 2 + [first.Lambda(lambda image: None)],
    r"RuntimeError: no such": [first.Resize((9, 9)), first.Lambda(_failing)],
}


@pytest.mark.parametrize("said", REFUSED)
def test_functions_that_are_no_preprocessing_are_refused(said):
    with pytest.raises(ValueError, match=rf"preprocess is a Compose; give face_jax\.Preprocess.*{said}"):
        as_preprocess(first.Compose(REFUSED[said]))


def test_refusing_leaves_nobodys_random_numbers_changed():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first_numbers = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    with pytest.raises(ValueError, match="draws at random"):
        as_preprocess(first.Compose([first.Resize((40, 40)), first.RandomCrop(32), *TO_TENSOR]))
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], first_numbers)  # noqa: NPY002
    assert torch.rand(3).shape == expected.shape


@pytest.mark.parametrize("given", ["imagenet", 224, len, {"size": 224}, torch.nn.ReLU()])
def test_what_is_no_preprocessing_is_refused(given):
    with pytest.raises(ValueError, match=r"preprocess is a \w+; give face_jax\.Preprocess"):
        as_preprocess(given)


def test_split_and_load_take_transforms():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    expected = as_preprocess(EXACT["first"])
    assert bridges.split(model, "1", preprocess=EXACT["first"]).preprocess == expected
    assert bridges.load(model, preprocess=EXACT["first"]).preprocess == expected
    assert bridges.load("squeezenet1_1", weights=None, preprocess=EXACT["first"]).preprocess == expected
