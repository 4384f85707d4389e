"""Images to concept codes as one torch module, for torch's autograd and for Captum."""

from __future__ import annotations

from typing import Any

import jax
import torch
from jaxtyping import Float
from torch import nn

from face_jax.model import SplitModel
from face_jax.nmf import encode
from face_jax.support.arguments import real_array

from .arrays import to_torch
from .functions import as_torch
from .torch_features import features_of

# Here and not in each module, so that a module can be pickled.
_encode = as_torch(encode)


class ConceptModule(nn.Module):
    """A torch module from images to concept codes: a classifier whose classes are the concepts.

    The network up to the layer is torch's; the codes are JAX's non-negative least squares with its exact derivative.
    So `codes[:, k].sum().backward()` leaves `∂U_k/∂X` in the images' `.grad` (CRAFT's backpropagation in two
    stages), and every method that explains a torch classifier's output explains a concept: Captum's `target` is the
    concept's number, or `(y, x, concept)` on the grid.

    `activations` is a module of its own that the layer's activations pass through, `image channel y x`; give it to
    methods that want a layer, such as Captum's `LayerGradCam`.

    **Arguments:**

    - `split`: from `face_jax.bridges.split`.
    - `dictionary`: the concepts, `concept channel`, JAX or NumPy, all finite.
    - `pooled`: encode each image's average activations, which gives codes `image concept`; else each place, which
        gives codes `image y x concept`.
    """

    dictionary: torch.Tensor

    def __init__(self, split: SplitModel, dictionary: Any, *, pooled: bool = False) -> None:
        super().__init__()
        features = features_of(split)
        if not isinstance(dictionary, torch.Tensor | jax.Array):
            dictionary = real_array("dictionary", dictionary, finite=False)
        values = to_torch(dictionary, device=features.device)
        if values.ndim != 2:
            raise ValueError(f"dictionary has shape {tuple(values.shape)}; give concept × channel")
        bad = int((~values.isfinite()).sum())
        if bad:
            raise ValueError(f"dictionary has {bad} entries that are NaN or infinite; give finite concepts")
        self.features = features.module
        self.activations = nn.Identity()
        # Cloned: a buffer may be written to (by load_state_dict), a JAX array may not.
        self.register_buffer("dictionary", values.clone())
        self.pooled = pooled
        self._maps_of = features.maps_of

    def forward(
        self, images: torch.Tensor
    ) -> Float[torch.Tensor, "image concept"] | Float[torch.Tensor, "image h w concept"]:
        """Codes of preprocessed images `image colour y x`, which are brought to the network's device and precision."""
        maps = self.activations(self._maps_of(images).movedim(-1, 1)).movedim(1, -1)
        concepts, channels = self.dictionary.shape
        if maps.shape[-1] != channels:
            raise ValueError(
                f"dictionary has {channels} channels and the layer {maps.shape[-1]}; "
                "give concepts that were found at this layer"
            )
        if maps.dtype in (torch.float16, torch.bfloat16):
            # Before averages are taken, which need the digits.
            maps = maps.float()
        rows = maps.mean(dim=(1, 2)) if self.pooled else maps.reshape(-1, channels)
        codes = _encode(rows, self.dictionary.to(rows.dtype))
        return codes if self.pooled else codes.reshape(*maps.shape[:3], concepts)
