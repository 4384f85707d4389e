"""Photographs, crops and concept maps as pictures inside a page."""

from __future__ import annotations

import base64
import colorsys
import io

import numpy as np
from jaxtyping import Float, UInt8

from ..model import Preprocess
from ..pictures.photographs import resized, within

# Told apart by people with any kind of colour vision, on light and on dark pages (after Okabe and Ito).
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#3d7dca", "#b8a90a", "#8f6fd1")


def concept_colour(number: int) -> str:
    """A concept's colour, by its number from 1."""
    if number <= len(PALETTE):
        return PALETTE[number - 1]
    # Hues a golden angle apart: however many there are, neighbours in number differ.
    red, green, blue = colorsys.hsv_to_rgb((0.618034 * number) % 1, 0.45, 0.78)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def data_uri(pixels: UInt8[np.ndarray, "y x 3"], quality: int = 82) -> str:
    """A picture as a JPEG in an address of its own."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(pixels: UInt8[np.ndarray, "y x 3"], box: tuple[int, int, int, int], size: int = 120) -> str:
    """One box of a photograph, small: its longer side is of `size` pixels."""
    return data_uri(resized(pixels, box, within(box, size), Preprocess(interpolation="bicubic")), quality=78)


def spotlight(
    pixels: UInt8[np.ndarray, "y x 3"], strength: Float[np.ndarray, "y x"], colour: str
) -> UInt8[np.ndarray, "y x 3"]:
    """A photograph lit where a concept is, dim elsewhere, with an outline at half the concept's strength."""
    light = np.clip(strength, 0, 1)[..., None]
    grey = pixels.mean(axis=-1, keepdims=True)
    dim = 0.32 * grey + 0.10 * 255
    picture = dim * (1 - light) + pixels * light
    picture[_outline(strength >= 0.5)] = _rgb(colour)
    return picture.astype(np.uint8)


def glow(
    pixels: UInt8[np.ndarray, "y x 3"], strength: Float[np.ndarray, "y x"], colour: str
) -> UInt8[np.ndarray, "y x 3"]:
    """A dark grey photograph on which single pixels shine."""
    grey = np.repeat(pixels.mean(axis=-1, keepdims=True), 3, axis=-1) * 0.38
    light = np.clip(strength, 0, 1)[..., None]
    return np.clip(grey * (1 - light) + _rgb(colour) * light, 0, 255).astype(np.uint8)


def _rgb(colour: str) -> Float[np.ndarray, " 3"]:
    return np.asarray([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float64)


def _outline(inside: np.ndarray) -> np.ndarray:
    """Two pixels wide, just inside the border of a region; the picture's own edge is no border."""
    core = inside
    for _ in range(2):
        padded = np.pad(core, 1, mode="edge")
        core = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core
