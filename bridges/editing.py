"""An edited classifier as a torch module: its architecture with other weights, or its halves around the edit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from face_jax.action.edits import Edit, EditedFeatures
from face_jax.heads import Affine
from face_jax.heads.one_logit import OneLogit
from face_jax.model import SplitModel, check_model
from face_jax.outputs import Binary, MultiClass, MultiLabel
from face_jax.signs import Difference, Parts

from .arrays import Layout, to_torch
from .functions import as_torch
from .splitting.finding import find
from .splitting.fingerprints import fingerprint
from .splitting.surveying import Survey, example, survey
from .splitting.tracing import evaluating
from .torch_features import TorchFeatures, home_of, result_of
from .torch_head import TorchHead
from .wrappers import plain_name, unwrapped

# Logits of the folded network may differ from those of the edited halves by so much of their size.
_SAME = 1e-5


class EditedNetwork(nn.Module):
    """Both halves of a torch classifier with edits between them: `image colour y x` to logits.

    Linear edits are matrices, which no JAX is needed for; exact ones go through JAX's non-negative least squares, with
    its derivative. It shares the classifier's parameters, and is in evaluation mode while it runs. A binary classifier
    gives two logits, `[0, z]`.

    **Arguments:**

    - `features`: the part before the edits; with its signs put apart in JAX, torch does that.
    - `edits`: the first one first.
    - `head`: the part behind them, of the split model.
    """

    def __init__(self, features: TorchFeatures | Parts, edits: list[Edit], head: Any) -> None:
        super().__init__()
        self._parts = isinstance(features, Parts)
        inside = _torch_features(features)
        self.before, self._features, self._apart, self._binary = inside.module, inside, False, False
        device, dtype = inside.device, inside.dtype
        self._edits: list[Any] = []
        for number, each in enumerate(edits):
            if each.linear:
                matrix = torch.from_numpy(each.projection).to(device=device, dtype=dtype)
                self.register_buffer(f"projection_{number}", matrix)
                self._edits.append(f"projection_{number}")
            else:
                self._edits.append(_Exact(each))
        if isinstance(head, Difference):
            self._apart, head = True, head.head
        if isinstance(head, OneLogit):
            self._binary, head = True, head.head
        self._layout: Layout | None = None
        if isinstance(head, TorchHead):
            self.behind, self._layout = head.module, head.layout
        elif isinstance(head, Affine):
            for name, value in (("kernel", head.kernel), ("bias", head.bias)):
                self.register_buffer(name, to_torch(np.asarray(value), device=device, dtype=dtype).clone())
        else:
            self._other = as_torch(lambda maps, *tokens: head(maps, *tokens))

    def forward(self, images: torch.Tensor) -> Float[torch.Tensor, "image class"]:
        """Logits of preprocessed images `image colour y x`."""
        tensor = self._features.tensor_of(images)
        maps = self._features.layout.to_maps(tensor)
        tokens = self._features.layout.to_prefix(tensor) if self._features.layout.prefix else None
        if self._parts:
            maps = torch.cat([maps.relu(), (-maps).relu()], dim=-1)
        for each in self._edits:
            maps = maps @ getattr(self, each) if isinstance(each, str) else each(maps)
        if hasattr(self, "kernel"):
            return torch.addmm(self.get_buffer("bias"), maps.mean(dim=(1, 2)), self.get_buffer("kernel"))
        if self._apart:
            positive, negative = maps.chunk(2, dim=-1)
            maps = positive - negative
        if self._layout is None:
            return self._other(maps) if tokens is None else self._other(maps, tokens)
        with evaluating(self.behind):
            logits = result_of(self.behind, self._layout.from_maps(maps, tokens), axes=2).reshape(len(maps), -1)
        return torch.cat([torch.zeros_like(logits), logits], dim=1) if self._binary else logits


def _torch_features(features: TorchFeatures | Parts) -> Any:
    """Features as torch has them, without what puts their signs apart in JAX."""
    return features.features if isinstance(features, Parts) else features


class _Exact:
    """An edit with exact codes, in torch."""

    def __init__(self, change: Edit) -> None:
        self.change = change
        self._apply = as_torch(lambda rows: change(rows))

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        rows = maps.reshape(-1, maps.shape[-1])
        half = rows.dtype in (torch.float16, torch.bfloat16)
        found = self._apply(rows.float() if half else rows.contiguous())
        return found.to(maps.dtype).reshape(maps.shape)

    def __deepcopy__(self, memo: Any) -> _Exact:
        return _Exact(self.change)

    def __reduce__(self) -> Any:
        return _Exact, (self.change,)


def edited_module(model: SplitModel, network: nn.Module | None = None) -> nn.Module:
    """An edited classifier as a torch module, for use without this package, or inside torch's autograd.

    **Arguments:**

    - `model`: from `face_jax.edit` of a model that was cut by `face_jax.bridges.split`.
    - `network`: the torch classifier that was cut, with the weights that it had then.

    **Returns:** where the edit is linear (`codes="linear"`), its head affine and `network` given, a copy of the
    network: the same architecture, in which only the weights of the last linear layer are others, so that its
    `state_dict()` is loaded into any other copy. Else a module of the two halves with the edit between them, which runs
    without JAX where the edit is linear. Raises `ValueError` for a model that isn't edited, and for a network that
    isn't the one that was cut.

    **Example:**

    >>> half = bridges.split(network, "relu", preprocess=fj.Preprocess(size=16, resize=16))
    >>> found = fj.explain(half, images, rank=2, batch=8, key=0)
    >>> edited = bridges.edited_module(fj.edit(half, found, remove=[0], codes="linear"), network)
    >>> type(edited) is type(network), list(edited.state_dict()) == list(network.state_dict())
    (True, True)
    """
    check_model(model)
    edits: list[Edit] = []
    features: Any = model.features
    while isinstance(features, EditedFeatures):
        edits.insert(0, features.change)
        features = features.features
    if not edits:
        raise ValueError(f"model={model.name} isn't edited; give the result of face_jax.edit")
    inside = _torch_features(features)
    if not isinstance(inside, TorchFeatures):
        raise ValueError(
            f"model={model.name} has features that are a {type(inside).__name__}, and no torch module can be made of "
            "it; give an edit of a model from face_jax.bridges.split"
        )
    halves = EditedNetwork(features, edits, model.head)
    halves.train(inside.module.training)
    if network is None:
        return halves
    layer, inner = plain_name(network, model.layer), unwrapped(network, "network")
    images = example(inner, None, model.preprocess.size, model.preprocess.shape[2])
    told = model.outputs
    seen = survey(inner, images, told if isinstance(told, MultiLabel) else None if isinstance(told, Binary) else False)
    given = fingerprint(inner, seen.traced, layer)
    if not model.fingerprint.startswith(given):
        raise ValueError(
            f"network={type(network).__name__} isn't the one that was cut at layer={model.layer!r}, or its weights "
            "have changed since (the fingerprints differ); give that one, or leave network out"
        )
    if not all(each.linear for each in edits) or not isinstance(model.head, Affine):
        return halves
    folded = _folded(inner, seen, layer, edits, inside.layout, images)
    return folded if folded is not None and _alike(folded, halves, seen, images, told) else halves


def _folded(
    network: nn.Module, seen: Survey, layer: str, edits: list[Edit], layout: Layout, images: torch.Tensor
) -> nn.Module | None:
    """The network with the edits in the weights of its last linear layer; None where they can't be put there."""
    node = find(seen, network, layer)
    behind = seen.head_at(node)
    layers = [name for name, part in behind.named_modules() if type(part) is nn.Linear]
    if not layers:
        return None
    last = behind.get_submodule(layers[-1])
    assert isinstance(last, nn.Linear)
    name = next((name for name, each in network.named_modules() if each is last), None)
    shape = layout.map_shape(seen.shapes[node])
    # Of signs apart the edit isn't linear in the layer's own channels.
    if name is None or last._forward_pre_hooks or edits[0].dictionary.shape[1] != shape[-1]:
        return None
    projection = np.linalg.multi_dot([np.eye(shape[-1]), *(each.projection for each in edits)])
    # What the layer is given of each channel, and of none.
    exact = copy.deepcopy(behind).double().eval()
    caught: list[torch.Tensor] = []
    exact.get_submodule(layers[-1]).register_forward_pre_hook(lambda _, given: caught.append(given[0].detach()))
    unit = torch.cat([torch.zeros(1, shape[-1]), torch.eye(shape[-1])]).double().to(images.device)
    with torch.no_grad():
        for rows in unit.split(64):
            exact(layout.from_maps(rows[:, None, None, :].expand(-1, *shape[:2], -1)))
    inputs = torch.cat(caught).cpu().numpy()
    if inputs.ndim != 2 or len(inputs) != len(unit):
        return None
    constant, mixing = inputs[0], inputs[1:] - inputs[:1]
    weight = last.weight.detach().cpu().double().numpy().T
    changed = np.linalg.lstsq(mixing, projection @ mixing @ weight, rcond=None)[0]
    folded = copy.deepcopy(network)
    target = folded.get_submodule(name)
    assert isinstance(target, nn.Linear)
    with torch.no_grad():
        target.weight.copy_(torch.from_numpy(changed.T))
        if target.bias is not None:
            bias = target.bias.detach().cpu().double().numpy() + constant @ (weight - changed)
            target.bias.copy_(torch.from_numpy(bias))
        elif np.abs(constant @ (weight - changed)).max() > 0:
            return None
    return folded


def _alike(
    folded: nn.Module, halves: EditedNetwork, seen: Survey, images: torch.Tensor, outputs: MultiClass | MultiLabel | Any
) -> bool:
    """Whether the folded network gives the logits of the halves with the edit between them."""
    with torch.no_grad(), evaluating(folded), evaluating(halves):
        given, expected = folded(images), halves(images)
    expected = expected[:, 1:] if isinstance(outputs, Binary) else expected
    expected = expected.sigmoid() if seen.sigmoid else expected
    if not isinstance(given, torch.Tensor):
        given = next((each for each in _tensors(given) if each.numel() == expected.numel()), None)
    if given is None:
        return False
    scale = max(1.0, float(expected.abs().max()))
    loose = 100 * torch.finfo(home_of(folded)[1]).eps
    return bool((given.reshape(expected.shape) - expected).abs().max() <= max(_SAME, loose) * scale)


def _tensors(given: Any) -> list[torch.Tensor]:
    """The tensors in what a model of a library returns."""
    inside = given.values() if hasattr(given, "values") else given if isinstance(given, list | tuple) else ()
    return [each for each in inside if isinstance(each, torch.Tensor)]
