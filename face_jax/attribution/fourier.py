"""Pictures by their Fourier coefficients, in colours that photographs don't correlate (Olah et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..model import Preprocess
from ..pictures.photographs import photographs as read
from ..pictures.photographs import visible

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
    """Square pictures by Fourier coefficients, the higher frequencies damped.

    **Arguments:**

    - `size`: height and width in pixels.
    - `decay`: coefficients are multiplied by `1 / frequency^decay`.
    """

    size: int
    decay: float

    def damping(self) -> Float[np.ndarray, "y half"]:
        """What coefficients are multiplied by; the constant counts as the lowest frequency."""
        frequency = np.hypot(np.fft.fftfreq(self.size)[:, None], np.fft.rfftfreq(self.size)[None, :])
        return _AMPLITUDE / np.maximum(frequency, 1 / self.size) ** self.decay


def to_picture(
    spectrum: Spectrum, parameters: Float[Array, "image 2 y half 3"]
) -> Float[Array, "image {spectrum.size} {spectrum.size} 3"]:
    """Pictures with values in 0…1, from the real and imaginary parts of their coefficients."""
    damping = jnp.asarray(spectrum.damping(), parameters.dtype)[None, :, :, None]
    coefficients = jax.lax.complex(parameters[:, 0] * damping, parameters[:, 1] * damping)
    values = jnp.fft.irfft2(coefficients, s=(spectrum.size, spectrum.size), axes=(1, 2), norm="ortho")
    return jax.nn.sigmoid(values @ jnp.asarray(_COLOURS.T, parameters.dtype))


def weak_noise(spectrum: Spectrum, dtype: np.dtype, *, keys: Key[Array, " image"]) -> Float[Array, "image 2 y half 3"]:
    """Parameters of almost grey pictures, one a key."""
    return jnp.asarray(0.01, dtype) * _normal(keys, (2, spectrum.size, spectrum.size // 2 + 1, 3), dtype)


def mean_spectrum(
    spectrum: Spectrum, images: Any, preprocess: Preprocess, dtype: np.dtype, *, keys: Key[Array, " image"]
) -> Float[Array, "image 2 y half 3"]:
    """Parameters of clouds in photographs' colours, one a key: their mean amplitudes and random phases."""
    pictures = np.stack([visible(photograph.pixels(), preprocess) for photograph in read(images)]) / 255
    bounded = np.clip(pictures, _DARKEST, 1 - _DARKEST)
    values = np.log(bounded / (1 - bounded)) @ np.linalg.inv(_COLOURS).T
    coefficients = np.fft.rfft2(values, axes=(1, 2), norm="ortho")
    amplitude = np.abs(coefficients).mean(0) / spectrum.damping()[..., None]
    # The constant is the mean colour, which has a sign and no phase.
    constant = coefficients[:, 0, 0].real.mean(0) / spectrum.damping()[0, 0]
    # Phases of noise in the pixels: an uneven picture's coefficients are then those of a real one, every pair of them.
    noise = _normal(keys, (spectrum.size, spectrum.size, 3), dtype)
    turned = jnp.fft.rfft2(noise, axes=(1, 2), norm="ortho")
    length = jnp.maximum(jnp.abs(turned), jnp.finfo(dtype).tiny)
    parts = jnp.stack([turned.real / length, turned.imag / length], axis=1) * jnp.asarray(amplitude, dtype)[None, None]
    start = jnp.stack([jnp.asarray(constant, dtype), jnp.zeros(3, dtype)])
    return parts.at[:, :, 0, 0, :].set(start[None])


def _normal(keys: Key[Array, " image"], shape: tuple[int, ...], dtype: np.dtype) -> Float[Array, "image ..."]:
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)
