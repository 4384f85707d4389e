"""transformers' image processors: followed exactly, or refused."""

import numpy as np
import pytest
import transformers
from face_jax.bridges.models.image_processors import preprocess_of
from PIL import Image

from face_jax.pictures.photographs import network_input

# The processors' own defaults, smaller.
SQUARE, SHORT = {"height": 40, "width": 40}, {"shortest_edge": 40}
CROP = {"height": 32, "width": 32}
PROCESSORS = {
    "ViT": {"size": SQUARE},
    "DeiT": {"size": SQUARE, "crop_size": CROP},
    "Beit": {"size": SQUARE, "crop_size": CROP, "do_center_crop": True},
    "ConvNext": {"size": SHORT, "crop_pct": 0.8},
    "Bit": {"size": SHORT, "crop_size": CROP},
    "CLIP": {"size": SHORT, "crop_size": CROP, "resample": 1},
    "Siglip": {"size": SQUARE},
    "EfficientNet": {"size": SQUARE, "resample": 0},
    "MobileNetV1": {"size": SHORT, "crop_size": CROP},
    "MobileNetV2": {"size": SHORT, "crop_size": CROP},
    "Levit": {"size": {"shortest_edge": 32}, "crop_size": CROP},
    "PoolFormer": {"size": {"shortest_edge": 32}, "crop_size": CROP, "crop_pct": 0.8},
    "Pvt": {"size": SQUARE, "do_normalize": False},
    "Segformer": {"size": SQUARE, "rescale_factor": 1 / 127.5},
}


def processor_of(kind, options):
    return getattr(transformers, f"{kind}ImageProcessorPil")(**options)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_photographs_are_prepared_as_by_the_processor(kind):
    processor = processor_of(kind, PROCESSORS[kind])
    preprocess = preprocess_of(processor, "model")
    # Twice as long, and of even sides then: all agree which pixels are the centre.
    for shape in ((60, 120), (96, 48)):
        pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
        expected = np.asarray(processor(images=Image.fromarray(pixels), return_tensors="np")["pixel_values"][0])
        given = network_input(pixels, preprocess)
        np.testing.assert_allclose(given, np.moveaxis(expected, 0, -1), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("MobileViT", {"size": SHORT, "crop_size": CROP}, "does something to photographs"),  # turns colours around
        ("ViT", {"size": {"height": 40, "width": 32}}, r"makes arrays of \[\(40, 32, 3\)\]"),
        ("ViT", {"do_resize": False}, "makes arrays of"),
        ("Bit", {"size": SHORT, "do_center_crop": False}, "makes arrays of"),
        ("Perceiver", {"size": SQUARE, "crop_size": {"height": 50, "width": 50}}, "does something to photographs"),
    ],
)
def test_what_preprocess_cant_do_is_refused(kind, options, said):
    with pytest.raises(ValueError, match=rf"name='model': its {kind}ImageProcessor\w* {said}.*give preprocess="):
        preprocess_of(processor_of(kind, options), "model")
