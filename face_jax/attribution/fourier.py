"""Pictures by their Fourier coefficients, in colours that photographs don't correlate (Olah et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..model import Preprocess, Transform
from ..pictures.crop_and_resize import pair_of, visible
from ..pictures.photographs import photographs as read

# A square root of the correlation of red, green and blue in photographs (ImageNet), scaled to a largest column of 1:
# what the parameters call the first colour is lightness, the others are what's left. From Lucid, Olah et al. 2017.
_ROOT = np.asarray([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLOURS = _ROOT / np.linalg.norm(_ROOT, axis=0).max()
# Lucid's: with it, Adam's usual step sizes suit.
_AMPLITUDE = 0.25
# Photographs' blacks and whites would be infinite in the parameters.
_DARKEST = 0.02


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Pictures by Fourier coefficients, the higher frequencies damped.

    **Arguments:**

    - `size`: height and width in pixels, or both in one number.
    - `decay`: coefficients are multiplied by `1 / frequency^decay`.
    - `channels`: 3 for red, green and blue, which photographs correlate; others are apart from each other.
    """

    size: int | tuple[int, int]
    decay: float
    channels: int = 3

    @property
    def height(self) -> int:
        """In pixels."""
        return pair_of(self.size)[0]

    @property
    def width(self) -> int:
        """In pixels."""
        return pair_of(self.size)[1]

    def colours(self) -> Float[np.ndarray, "channel colour"]:
        """What the parameters' colours are in the picture's channels."""
        return _COLOURS if self.channels == 3 else np.eye(self.channels) / np.sqrt(3)

    def damping(self) -> Float[np.ndarray, "y half"]:
        """What coefficients are multiplied by; the constant counts as the lowest frequency."""
        frequency = np.hypot(np.fft.fftfreq(self.height)[:, None], np.fft.rfftfreq(self.width)[None, :])
        return _AMPLITUDE / np.maximum(frequency, 1 / max(self.height, self.width)) ** self.decay


def to_picture(
    spectrum: Spectrum, parameters: Float[Array, "image 2 y half colour"]
) -> Float[Array, "image {spectrum.height} {spectrum.width} {spectrum.channels}"]:
    """Pictures with values in 0…1, from the real and imaginary parts of their coefficients."""
    damping = jnp.asarray(spectrum.damping(), parameters.dtype)[None, :, :, None]
    coefficients = jax.lax.complex(parameters[:, 0] * damping, parameters[:, 1] * damping)
    values = jnp.fft.irfft2(coefficients, s=(spectrum.height, spectrum.width), axes=(1, 2), norm="ortho")
    return jax.nn.sigmoid(values @ jnp.asarray(spectrum.colours().T, parameters.dtype))


def weak_noise(
    spectrum: Spectrum, dtype: np.dtype, *, keys: Key[Array, " image"]
) -> Float[Array, "image 2 y half colour"]:
    """Parameters of almost grey pictures, one a key."""
    shape = (2, spectrum.height, spectrum.width // 2 + 1, spectrum.channels)
    return jnp.asarray(0.01, dtype) * _normal(keys, shape, dtype)


def mean_spectrum(
    spectrum: Spectrum, images: Any, preprocess: Preprocess, dtype: np.dtype, *, keys: Key[Array, " image"]
) -> Float[Array, "image 2 y half colour"]:
    """Parameters of clouds in photographs' colours, one a key: their mean amplitudes and random phases."""
    pixels = [photograph.pixels(preprocess.reads) for photograph in read(images, channels=preprocess.reads)]
    if isinstance(preprocess, Transform):
        inputs = np.stack([preprocess.prepared(each) for each in pixels])
        pictures = inputs * np.asarray(preprocess.std) + np.asarray(preprocess.mean)
    else:
        pictures = np.stack([visible(each, preprocess) for each in pixels]) / 255
    bounded = np.clip(pictures, _DARKEST, 1 - _DARKEST)
    values = np.log(bounded / (1 - bounded)) @ np.linalg.inv(spectrum.colours()).T
    coefficients = np.fft.rfft2(values, axes=(1, 2), norm="ortho")
    amplitude = np.abs(coefficients).mean(0) / spectrum.damping()[..., None]
    # The constant is the mean colour, which has a sign and no phase.
    constant = coefficients[:, 0, 0].real.mean(0) / spectrum.damping()[0, 0]
    # Phases of noise in the pixels: an uneven picture's coefficients are then those of a real one, every pair of them.
    noise = _normal(keys, (spectrum.height, spectrum.width, spectrum.channels), dtype)
    turned = jnp.fft.rfft2(noise, axes=(1, 2), norm="ortho")
    length = jnp.maximum(jnp.abs(turned), jnp.finfo(dtype).tiny)
    parts = jnp.stack([turned.real / length, turned.imag / length], axis=1) * jnp.asarray(amplitude, dtype)[None, None]
    start = jnp.stack([jnp.asarray(constant, dtype), jnp.zeros(spectrum.channels, dtype)])
    return parts.at[:, :, 0, 0, :].set(start[None])


def _normal(keys: Key[Array, " image"], shape: tuple[int, ...], dtype: np.dtype) -> Float[Array, "image ..."]:
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
