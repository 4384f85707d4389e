"""Explanations of networks of one, four and five channels, of inputs that aren't square, and of own preprocessing."""

import base64
import dataclasses
import io
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import face_jax as fj
from face_jax.activations import collect_crops, whole_maps
from face_jax.explanation.loading import WrongModelError
from face_jax.heads import Affine
from face_jax.pictures.photographs import network_input

HEIGHT, WIDTH, LAYER = 24, 40, 12
SETTINGS = {"rank": 2, "crops": fj.RandomCrops(per_image=6), "faithfulness": None, "key": 0}


def model_of(channels: int, preprocess=None, **changes) -> fj.SplitModel:
    """Patches of 4 × 4 pixels times fixed directions, of which the first two find a bright and a dark first channel."""
    weights = 0.1 * np.random.Generator(np.random.PCG64(7)).normal(size=(16 * channels, LAYER)).astype(np.float32)
    weights[:, :2] = 0
    weights[:16, 0] = 1 / 16

    def features(images):
        count, height, width, there = images.shape
        patches = images.reshape(count, height // 4, 4, width // 4, 4, there).transpose(0, 1, 3, 5, 2, 4)
        patches = patches.reshape(count, height // 4, width // 4, 16 * there)
        return jax.nn.relu(patches @ jnp.asarray(weights, images.dtype))

    kernel = np.zeros((LAYER, 2), np.float32)
    kernel[0, 0] = 4
    plain = fj.Preprocess(size=(HEIGHT, WIDTH), resize=30, mean=(0.0,) * channels, std=(1.0,) * channels)
    settings = {
        "features": features,
        "head": Affine(jnp.asarray(kernel), jnp.asarray([0.0, 0.2], jnp.float32)),
        "layer": "patches",
        "preprocess": plain if preprocess is None else preprocess,
        "classes": ("bright", "dark"),
        "name": f"of {channels}",
        "fingerprint": f"of {channels}",
    }
    return fj.SplitModel(**(settings | changes))


def pictures(channels: int, count: int = 8) -> np.ndarray:
    generator = np.random.default_rng(channels)
    found = generator.integers(0, 70, (count, 36, 60, channels), dtype=np.uint8)
    for number, (top, left) in enumerate(generator.integers(2, 14, (count, 2))):
        found[number, top : top + 20, left : left + 30, 0] = 240
    return found[..., 0] if channels == 1 else found


@pytest.fixture(scope="module", params=[1, 4, 5])
def explained(request):
    channels = request.param
    return channels, fj.explain(model_of(channels), pictures(channels), "bright", **SETTINGS)


def test_crops_have_the_inputs_proportions(explained):
    channels, explanation = explained
    sides = explanation.crops.box[:, 2:] - explanation.crops.box[:, :2]
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], WIDTH / HEIGHT, rtol=0.15)
    # The largest crop of a photograph of 36 × 60 pixels is all of it.
    assert sides[:, 1].max() <= round(0.6 * 60)
    model, first = explanation.model, explanation.photographs[explanation.crops.image[0]]
    top, left, bottom, right = explanation.crops.box[0]
    crop = first.pixels(channels)[top:bottom, left:right]
    small = [
        np.asarray(Image.fromarray(np.ascontiguousarray(one)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
        for one in np.moveaxis(crop, -1, 0)
    ]
    maps = np.asarray(model.features(jnp.asarray(np.stack(small, -1)[None] / np.float32(255))))
    np.testing.assert_allclose(explanation.pictures.crop_activations[0], maps.mean((1, 2))[0], rtol=1e-4)


def test_maps_are_of_the_inputs_size_by_every_method(explained):
    channels, explanation = explained
    images = pictures(channels, 2)
    for method in (fj.attribution.Occlusion(patch=8, stride=8), "saliency", "codes", "grad-cam"):
        maps = explanation.maps(images, method=method)
        assert maps.shape == (2, 2, HEIGHT, WIDTH)
    assert explanation.maps_of(0).shape == (2, HEIGHT, WIDTH)
    inputs = explanation.model.preprocess(images)
    assert inputs.shape == (2, HEIGHT, WIDTH, channels)
    assert explanation.encode(images).shape == (2, HEIGHT // 4, WIDTH // 4, 2)


def test_it_comes_back_from_files_and_is_refused_with_other_preprocessing(explained, tmp_path):
    channels, explanation = explained
    fj.save(explanation, tmp_path)
    model = model_of(channels)
    loaded = fj.load(tmp_path, model, images=pictures(channels))
    np.testing.assert_array_equal(loaded.dictionary, explanation.dictionary)
    assert loaded.photographs[0].pixels(channels).shape == (36, 60, channels)
    # What pictures show is nothing to the network.
    shown = dataclasses.replace(model, preprocess=dataclasses.replace(model.preprocess, shown=(0,)))
    assert fj.load(tmp_path, shown).target_name == "bright"
    for name, value in {
        "size": (24, 44),
        "resize": (30, 50),
        "interpolation": "lanczos",
        "fill": (9,) * channels,
    }.items():
        other = dataclasses.replace(model, preprocess=dataclasses.replace(model.preprocess, **{name: value}))
        with pytest.raises(WrongModelError, match=rf"with {name}=.* model\.preprocess has {name}="):
            fj.load(tmp_path, other)


def test_files_from_before_these_settings_load(explained):
    from face_jax.explanation.loading import _check_model

    _, explanation = explained
    settings = explanation.provenance.settings
    earlier = {name: settings.preprocess[name] for name in ("size", "resize", "interpolation", "mean", "std")}
    _check_model(pathlib.Path("folder"), dataclasses.replace(settings, preprocess=earlier), explanation.model)
    changed = dataclasses.replace(explanation.model.preprocess, resize=(30, 50), fit="cover")
    with pytest.raises(WrongModelError, match="fit=squash"):
        _check_model(
            pathlib.Path("folder"),
            dataclasses.replace(settings, preprocess=earlier),
            dataclasses.replace(explanation.model, preprocess=changed),
        )


def drawn(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_reports_have_pictures_of_the_inputs_proportions_in_colours_that_people_see(explained, tmp_path):
    channels, explanation = explained
    page = fj.write_report(explanation, tmp_path).read_text()
    found = drawn(page)
    assert {one.shape[2] for one in found} == {3}
    large = [one for one in found if one.shape[:2] == (11 * HEIGHT, 11 * WIDTH)]
    assert f'viewBox="0 0 {11 * WIDTH} {11 * HEIGHT}"' in page
    # Whole pictures have the proportions of the input; crops are drawn 120 pixels wide.
    crops = [one for one in found if one.shape[0] * WIDTH != one.shape[1] * HEIGHT]
    assert {one.shape[:2] for one in crops if max(one.shape) > 40} <= {
        (round(120 * one.shape[0] / max(one.shape)), 120) for one in found
    }
    # As the classifier sees it: grey has no colour in it, and many channels are said to be more than are shown.
    coloured = np.ptp(large[0].astype(int), axis=-1).mean()
    assert (coloured < 3) == (channels == 1)
    assert ("of which pictures show channels 1, 2, 3" in page) == (channels > 3)
    fj.picture(explanation, explanation.photographs[0], tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def test_what_else_is_made_of_explanations_takes_them(explained, tmp_path):
    channels, explanation = explained
    model = explanation.model
    seen = fj.visualize(model, explanation.dictionary, concepts=[0], steps=1, photographs=pictures(channels, 2))
    assert seen.pixels.shape == (1, HEIGHT, WIDTH, channels)
    (file,) = seen.save(tmp_path)
    with Image.open(file) as opened:
        assert opened.size == (WIDTH, HEIGHT)
    check = fj.sanity_check(explanation, [("same", model)])
    assert check.photograph.shape == (HEIGHT, WIDTH, 3)
    assert check.stages[0].logit_agreement == 1
    fj.write_report(explanation, tmp_path, visualization=seen, sanity=check)
    recursion = fj.recurse(explanation, dataclasses.replace(model, layer="again"), concepts=[0], rank=2, fewest=4)
    parts = fj.study.parts_of(recursion, recursion.recursion.divisions[0])
    picture = fj.study.crop_pools.crop_picture(parts, 0).pixels
    assert picture.shape[2] == 3
    assert max(picture.shape[:2]) == 200
    native = fj.explain(
        model, pictures(channels), "bright", rank=2, crops=fj.NativeCrops(model.preprocess, size=16, overlap=0.5), key=0
    )
    assert (native.crops.window[:, 2:] - native.crops.window[:, :2] == 16).all()
    assert native.crops.window[:, 3].max() == WIDTH


def test_a_model_of_other_channels_than_the_photographs_is_refused_with_all_three():
    with pytest.raises(
        ValueError, match=r"shape \(8, 36, 60, 5\), and preprocess .* of 4 .*of 4 takes 40 × 24 pixels of 4"
    ):
        fj.explain(model_of(4), pictures(5), **SETTINGS)
    with pytest.raises(ValueError, match=r"shape \(8, 36, 60\); give images .*Preprocess one number"):
        fj.explain(model_of(3), pictures(1), **SETTINGS)


def function(picture):
    """Into the middle of it, between -1 and 1."""
    width, height = picture.size
    scale = 30 / min(width, height)
    picture = picture.resize((round(scale * width), round(scale * height)), Image.Resampling.BICUBIC)
    left, top = ((length - kept) // 2 for length, kept in zip(picture.size, (WIDTH, HEIGHT), strict=True))
    picture = picture.crop((left, top, left + WIDTH, top + HEIGHT))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def other(picture):
    return function(picture)[:, ::-1]


def test_own_preprocessing_goes_all_the_way(tmp_path):
    images = pictures(3)
    model = model_of(3, function)
    cache = fj.ArrayCache(tmp_path / "cache")
    explanation = fj.explain(model, images, "bright", cache=cache, **SETTINGS)
    # Whole photographs, and crops that were cut out before, went through the function.
    inputs = np.stack([function(Image.fromarray(one)).transpose(1, 2, 0) for one in images])
    expected = np.asarray(model.features(jnp.asarray(inputs)))
    np.testing.assert_allclose(explanation.pictures.collected.maps, expected, rtol=1e-5, atol=1e-6)
    box = explanation.crops.box[0]
    crop = images[explanation.crops.image[0]][box[0] : box[2], box[1] : box[3]]
    maps = np.asarray(model.features(jnp.asarray(function(Image.fromarray(crop)).transpose(1, 2, 0)[None])))
    np.testing.assert_allclose(explanation.pictures.crop_activations[0], maps.mean((1, 2))[0], rtol=1e-4)
    # Activations are kept by what the function does.
    kept = len(list((tmp_path / "cache").iterdir()))
    fj.explain(model_of(3, function), images, "bright", cache=cache, **SETTINGS)
    assert len(list((tmp_path / "cache").iterdir())) == kept
    fj.explain(model_of(3, other), images, "bright", cache=cache, **SETTINGS)
    assert len(list((tmp_path / "cache").iterdir())) > kept
    fj.save(explanation, tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "explanation.json").read_text())["settings"]["preprocess"]["digest"]
    assert fj.load(tmp_path / "kept", model_of(3, function)).target_name == "bright"
    with pytest.raises(WrongModelError, match=r"with transform=.*function, digest=.* has transform=.*other, digest="):
        fj.load(tmp_path / "kept", model_of(3, other))
    with pytest.raises(WrongModelError, match=r"with resize=.*transform=.*has resize=.*transform=nothing"):
        fj.load(tmp_path / "kept", model_of(3))
    found = drawn(fj.write_report(explanation, tmp_path / "report").read_text())
    assert (11 * HEIGHT, 11 * WIDTH, 3) in {one.shape for one in found}
    seen = fj.visualize(model, explanation.dictionary, concepts=[0], steps=1, photographs=images[:2])
    assert seen.pixels.shape == (1, HEIGHT, WIDTH, 3)


def test_window_crops_are_cut_out_of_what_the_function_gives():
    images, model = pictures(3), model_of(3, function)
    crops = fj.NativeCrops(model.preprocess, size=8, overlap=0)([(36, 60)], key=jax.random.key(0))
    photographs = fj.photographs(images[:1])
    found = collect_crops(model, photographs, crops, keep=whole_maps)
    whole = network_input(images[0], model.preprocess)
    top, left, bottom, right = crops.window[7]
    expected = np.asarray(model.features(jnp.asarray(whole[None, top:bottom, left:right])))
    np.testing.assert_allclose(found.maps[7], expected[0], rtol=1e-5)


def test_visualization_of_unknown_normalization_is_refused():
    model = model_of(3, lambda picture: function(picture) ** 2)
    with pytest.raises(ValueError, match="doesn't subtract a mean and divide by a deviation"):
        fj.visualize(model, np.ones((1, LAYER)), steps=1)
