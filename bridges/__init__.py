"""torch and JAX, side by side: any torch classifier in, concept gradients out.

Nothing here imports torch until one of the names is used, so that `import face_jax.bridges` works without it.

| name | what it does |
|---|---|
| `split` | a torch classifier and a layer's name to a `face_jax.model.SplitModel` |
| `layers` | where a classifier can be split, with shapes and signs |
| `imagenette` | the photographs of FACE's ten classes, through torchvision's loader |
| `load` | a classifier by its name (torchvision's, timm's, of the Hugging Face hub), from a folder, or your own |
| `load_text_image` | a model of texts and pictures, such as CLIP, which names concepts |
| `pull` | activations of many pictures, in memory or in a store on disk |
| `as_torch` | a JAX function inside torch's autograd |
| `ConceptModule` | a `torch.nn.Module` from images to concept codes, for autograd and Captum |
| `edited_module` | a classifier without some of its concepts as a torch module |
| `concept_gradients` | where each concept is in an image, for all concepts at once |
| `randomized` | a classifier that forgets its weights from the top, for the sanity check |
| `to_flax` | a torch module as a Flax module |
| `share_processor`, `share_accelerator`, `keep_freed_memory` | how torch and JAX divide one machine between them |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from face_jax.support.extras import installing

if TYPE_CHECKING:
    from face_jax.attribution import concept_gradients as concept_gradients
    from face_jax.support.freed_memory import keep_freed_memory as keep_freed_memory

    from .concept_module import ConceptModule as ConceptModule
    from .editing import EditedNetwork as EditedNetwork
    from .editing import edited_module as edited_module
    from .flax_import import to_flax as to_flax
    from .flax_import.errors import ExportError as ExportError
    from .flax_import.errors import ImportMismatchError as ImportMismatchError
    from .flax_import.errors import UnsupportedOperatorError as UnsupportedOperatorError
    from .functions import as_torch as as_torch
    from .imagenette_photographs import ImagenetteError as ImagenetteError
    from .imagenette_photographs import imagenette as imagenette
    from .machine import share_accelerator as share_accelerator
    from .machine import share_processor as share_processor
    from .models import LoadedModel as LoadedModel
    from .models import UnknownModelError as UnknownModelError
    from .models import known_models as known_models
    from .models import load as load
    from .pulling import Pulled as Pulled
    from .pulling import pull as pull
    from .splitting.cutting import split as split
    from .splitting.dominators import NotACutError as NotACutError
    from .splitting.finding import UnknownLayerError as UnknownLayerError
    from .splitting.listing import Layer as Layer
    from .splitting.listing import layers as layers
    from .splitting.listing import non_negative_layers as non_negative_layers
    from .splitting.listing import suggest_layer as suggest_layer
    from .splitting.tracing import UnsuitableModelError as UnsuitableModelError
    from .splitting.tracing import UntraceableModelError as UntraceableModelError
    from .text_image import TextImageModel as TextImageModel
    from .text_image import load_text_image as load_text_image
    from .torch_features import TorchFeatures as TorchFeatures
    from .torch_head import TorchHead as TorchHead
    from .weights.files import WeightsError as WeightsError
    from .weights.randomizing import randomized as randomized

# Each public name's home. No home is called like a name, because importing it would put the module in the name's place.
_HOMES = {
    "NotACutError": "splitting.dominators",
    "UnknownLayerError": "splitting.finding",
    "UntraceableModelError": "splitting.tracing",
    "UnsuitableModelError": "splitting.tracing",
    "UnknownModelError": "models",
    "WeightsError": "weights.files",
    "ExportError": "flax_import.errors",
    "UnsupportedOperatorError": "flax_import.errors",
    "ImportMismatchError": "flax_import.errors",
    "ImagenetteError": "imagenette_photographs",
    "ConceptModule": "concept_module",
    "EditedNetwork": "editing",
    "Layer": "splitting.listing",
    "LoadedModel": "models",
    "Pulled": "pulling",
    "TextImageModel": "text_image",
    "load_text_image": "text_image",
    "TorchFeatures": "torch_features",
    "TorchHead": "torch_head",
    "as_torch": "functions",
    "edited_module": "editing",
    "concept_gradients": "face_jax.attribution",
    "keep_freed_memory": "face_jax.support.freed_memory",
    "known_models": "models",
    "imagenette": "imagenette_photographs",
    "layers": "splitting.listing",
    "load": "models",
    "non_negative_layers": "splitting.listing",
    "pull": "pulling",
    "randomized": "weights.randomizing",
    "share_accelerator": "machine",
    "share_processor": "machine",
    "split": "splitting.cutting",
    "suggest_layer": "splitting.listing",
    "to_flax": "flax_import",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = _HOMES[name]
        home = importlib.import_module(home if home.startswith("face_jax") else f".{home}", __name__)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision"):
            raise
        raise ImportError(
            f"face_jax.bridges.{name} needs {error.name}, which is not installed; {installing('torch')}"
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
