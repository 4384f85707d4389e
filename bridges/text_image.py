"""Text–image models of transformers (CLIP, SigLIP and others with `get_text_features`), which name concepts."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from face_jax.support.arguments import path_of
from face_jax.support.sentences import first_line

from .models.folders import repository
from .models.loaded import UnknownModelError, optional
from .weights.files import WeightsError

# What a tokenizer reads.
_TEXTS = ("tokenizer*.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model")


class TextImageModel:
    """A text–image model: where pictures and texts lie in one space. `load_text_image` makes it."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self._model, self._processor = model, processor
        self.name = name

    def __repr__(self) -> str:
        return f"TextImageModel({self.name!r})"

    def pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Where pictures lie.

        **Arguments:**

        - `pictures`: red, green and blue of any sizes, 0 to 255.

        **Returns:** `picture feature`.
        """
        from PIL import Image

        given = self._processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        with torch.inference_mode():
            return _features(self._model.get_image_features(pixel_values=given["pixel_values"]))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Where texts lie.

        **Arguments:**

        - `texts`: in words; what is longer than the model reads is cut there.

        **Returns:** `text feature`.
        """
        # SigLIP was trained on texts filled up to the most that it reads, and has no mask of what is filled.
        longest = self._model.config.text_config.max_position_embeddings
        filled = "max_length" if self._model.config.model_type.startswith("siglip") else True
        given = self._processor(
            text=list(texts), return_tensors="pt", padding=filled, truncation=True, max_length=longest
        )
        known = {name: given[name] for name in ("input_ids", "attention_mask") if name in given}
        with torch.inference_mode():
            return _features(self._model.get_text_features(**known))


def load_text_image(name: Any) -> TextImageModel:
    """A text–image model by its name, for `face_jax.name_concepts`.

    **Arguments:**

    - `name`: `hf/OWNER/NAME` of the Hugging Face hub, such as `hf/openai/clip-vit-base-patch32`, downloaded once; or a
        folder that `save_pretrained` of such a model and its processor wrote.

    **Returns:** the model on the CPU, in evaluation mode. Raises `UnknownModelError` for what is no text–image model,
    `WeightsError` for weights that can't be read, and `ImportError` without transformers.

    **Example:**

    >>> bridges.load_text_image(clip).texts(["a photo of red", "blue"]).shape  # in a folder
    (2, 8)
    """
    name = str(path_of("name", name, "a text–image model's folder"))
    transformers = optional("transformers", name)
    folder = pathlib.Path(name).expanduser()
    if name.startswith("hf/"):
        folder = repository(name.removeprefix("hf/"), name, weights=True, more=_TEXTS)
    elif not folder.is_dir():
        raise UnknownModelError(f"name={name!r} is neither a folder nor hf/OWNER/NAME; give one of these")
    shown = name if name.startswith("hf/") else folder.resolve().name  # reports tell no paths
    options: Any = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, weights_only=True, **options)
    # A damaged file has safetensors, torch and transformers raise nearly anything.
    except Exception as error:
        raise WeightsError(
            f"name={name!r}: the model can't be read ({first_line(error)}); give a folder with config.json and a whole "
            "model.safetensors"
        ) from error
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        raise UnknownModelError(
            f"name={name!r} is a {type(model).__name__}, which doesn't put texts and pictures into one space; give "
            "such a model, for example hf/openai/clip-vit-base-patch32"
        )
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **options)
    except Exception as error:
        raise UnknownModelError(
            f"name={name!r}: its processor can't be read ({first_line(error)}); give the folder with what prepares "
            "its pictures (preprocessor_config.json) and texts (tokenizer.json)"
        ) from error
    return TextImageModel(model.eval(), processor, shown)


def _features(found: Any) -> np.ndarray:
    """Of versions that give the features, and of those that give them beside others."""
    return (found if isinstance(found, torch.Tensor) else found.pooler_output).numpy()
