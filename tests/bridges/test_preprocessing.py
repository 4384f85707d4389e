"""Torchvision's transforms as `Preprocess`: the same pixels, or refused by name."""

import numpy as np
import pytest
import torch
import torchvision
from face_jax.bridges.preprocessing import as_preprocess
from PIL import Image
from torchvision import transforms as first
from torchvision.transforms import v2 as second

from face_jax import bridges
from face_jax.model import Preprocess
from face_jax.pictures.photographs import network_input

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
}


@pytest.mark.parametrize("shape", [(50, 70), (71, 44)])
@pytest.mark.parametrize("name", EXACT)
def test_photographs_are_prepared_as_by_the_transforms(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = EXACT[name](Image.fromarray(pixels)).movedim(0, -1).numpy()
    given = network_input(pixels, as_preprocess(EXACT[name]))
    np.testing.assert_allclose(given, expected, rtol=0, atol=2e-6)


def test_an_entry_of_torchvisions_weights_is_its_preset():
    entry = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    assert as_preprocess(entry) == as_preprocess(entry.transforms()) == Preprocess(size=224, resize=232)
    assert as_preprocess(None) == Preprocess()


TO_TENSOR = [first.ToTensor(), first.Normalize(MEAN, STD)]
OTHERS = {
    "Resize to": [first.Resize((32, 40)), first.CenterCrop(32), *TO_TENSOR],
    "RandomResizedCrop": [first.RandomResizedCrop(32), *TO_TENSOR],
    "Lambda": [first.Resize(40), first.CenterCrop(32), first.Lambda(lambda image: image), *TO_TENSOR],
    "Grayscale": [first.Grayscale(3), first.Resize(40), first.CenterCrop(32), *TO_TENSOR],
    "no CenterCrop": [first.Resize(32), *TO_TENSOR],
    "no Resize": [first.CenterCrop(32), *TO_TENSOR],
    "no ToTensor": [second.Resize(40), second.CenterCrop(32), second.ToImage()],
    "black border": [first.Resize(30), first.CenterCrop(32), *TO_TENSOR],
    "hamming": [first.Resize(40, first.InterpolationMode.HAMMING), first.CenterCrop(32), *TO_TENSOR],
    "max_size": [first.Resize(40, max_size=60), first.CenterCrop(32), *TO_TENSOR],
    "Resize in another place": [first.CenterCrop(32), first.Resize(40), *TO_TENSOR],
    "behind the change to a tensor": [second.ToImage(), second.Resize(40), second.CenterCrop(32), SCALED],
    "CenterCrop to": [first.Resize(40), first.CenterCrop((32, 24)), *TO_TENSOR],
}


@pytest.mark.parametrize("said", OTHERS)
def test_what_preprocess_cant_do_exactly_is_refused_by_name(said):
    with pytest.raises(ValueError, match=rf"preprocess .*{said}.*face_jax\.Preprocess\(size=…"):
        as_preprocess(first.Compose(OTHERS[said]))


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
