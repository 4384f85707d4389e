"""`split`: a torch classifier cut in two at one layer, for JAX."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from face_jax.heads import binary
from face_jax.model import Preprocess, SplitModel
from face_jax.outputs import MultiLabelled
from face_jax.support.arguments import text, whole
from face_jax.support.classes import ClassNames

from ..arrays import Layout, Tokens
from ..preprocessing import as_preprocess
from ..torch_features import TorchFeatures, home_of
from ..torch_head import TorchHead
from ..wrappers import plain_name, unwrapped
from .affine_heads import affine_head
from .dominators import cut_at
from .endings import gives_probabilities, in_columns, names_for, sigmoid_note
from .finding import find
from .fingerprints import fingerprint
from .first_run import colours_of, depends_on, logits_of
from .listing import non_negative_near
from .surveying import Survey, example, survey
from .tracing import UntraceableModelError, evaluating


def split(
    model: nn.Module,
    layer: str,
    *,
    preprocess: Any = None,
    classes: ClassNames | None = None,
    name: str | None = None,
    example_inputs: Any = None,
    grid: Any = None,
    prefix: int = 0,
    seen: Survey | None = None,
    multi_label: MultiLabelled = None,
) -> SplitModel:
    """A torch classifier as two functions, images to activations and activations to logits.

    Use it to explain any torch classifier; `face_jax.bridges.layers` lists where it can be split. The halves share
    the model's parameters, work where those are (CPU or CUDA), and leave its training mode as it was. Before they are
    handed out, their logits are compared with the model's own on the example.

    **Arguments:**

    - `model`: a torch module of one input, images to logits. Of `DataParallel`, `torch.compile`'s module and other
        wrappers the module inside is taken.
    - `layer`: the name of a module or operation that all data flows through, such as `"layer4"` or `"features.18"`.
        A module that runs several times has a name for each run: `"relu"`, `"relu_1"`, … A wrapper's `module.` or
        `_orig_mod.` may stand before it.
    - `preprocess`: how photographs become its input. By default as for most of ImageNet's classifiers: the short side
        at 256 pixels, the centre 224 × 224, colours less ImageNet's mean and over its deviation. Nothing in a module
        says how it was trained: for one that takes other sizes or colours, the default gives other predictions
        without a warning. Torchvision's and timm's transforms of evaluation are taken as such where they do nothing
        else: `weights.transforms()`, `timm.data.create_transform(…)`, or a `Compose` of `Resize`, `CenterCrop`,
        `ToTensor` and `Normalize`. Any other function of a Pillow picture is taken as it is (`face_jax.Transform`).
    - `classes`: the classes' names, one a logit, in a list, or in a mapping from all numbers to names or from all names
        to numbers; numbered by default. Of a binary network with one logit (`image × 1`, or `image` alone) the name of
        what it says yes to, `["cat"]` for "not cat" and "cat", or both names, no first.
    - `name`: what reports call the model; its class' name by default.
    - `example_inputs`: a preprocessed batch to try it on: a JAX or NumPy array `image y x colour`, or a torch tensor
        `image colour y x`. By default two images of noise of `preprocess.size` pixels.
    - `grid`, `prefix`: height and width of the grid that a layer's tokens lie on, line by line, and how many other
        tokens (class token, registers) stand before them. They are found by following the picture through the network;
        where that fails, `split` asks for them. `(n, 1)` for `n` tokens that lie on no grid.
    - `seen`: what `survey` found of it before, which saves following its operations again, and says what
        `multi_label` would.
    - `multi_label`: True if each logit is a label by itself, predicted where it's above 0; `MultiLabel(threshold=…)`
        for other thresholds on its probability; False if each picture is of one class. By default it's told from the
        network: several outputs behind a sigmoid are labels, one logit z is binary (as the logits `[0, z]`), others are
        exclusive classes. A sigmoid at the end is taken off, unless several classes are exclusive.

    Of a transformer's layer the maps are its patch tokens on their grid. The others, which lie on no place of the
    picture, are kept as they are when maps are rebuilt: `SplitModel.with_tokens` gives them, and the head takes both.

    **Returns:** the split model. `features` is a `TorchFeatures`; `head` is a `face_jax.heads.Affine` where the logits
    are an affine map of the layer's averages, else a (slow) `TorchHead`; `notes` says if the model
    seems to give probabilities. Raises `UnknownLayerError`, `NotACutError` or `UntraceableModelError`, each a
    `ValueError`, and `ValueError` for networks that don't take what `preprocess` gives (so many channels, this size),
    unless `example_inputs` shows what they take.

    **Example:**

    >>> half = bridges.split(network, "relu", preprocess=fj.Preprocess(size=16, resize=16))
    >>> half.features(jnp.zeros((1, 16, 16, 3))).shape, half.head.affine
    ((1, 8, 8, 6), True)
    """
    preprocess = as_preprocess(preprocess)
    if name is not None:
        text("name", name, "what reports call the model")
    layer, model = plain_name(model, layer), unwrapped(model)
    images = example(model, example_inputs, preprocess.size, preprocess.shape[2])
    if example_inputs is None:
        _refuse_other_colours(model, images, preprocess)
    seen = survey(model, images, multi_label) if seen is None else seen
    node = find(seen, model, layer)
    names = names_for(classes, seen.logits.shape[1], binary=seen.binary)
    cut = cut_at(seen.traced, node)
    layout = _layout(seen.layouts[node], seen.shapes[node], layer, grid, prefix)
    shape = layout.map_shape(seen.shapes[node])
    _check_halves(model, cut.features, cut.head, images, layer, sigmoid=seen.sigmoid)
    behind = seen.head_at(node)
    head = affine_head(behind, layout, shape)
    if head is not None:
        head = binary(head) if seen.binary else head
    else:
        behind = in_columns(behind, binary=True) if seen.binary else behind
        head = TorchHead(behind, layout, grid=shape[:2], classes=len(names))
    features = TorchFeatures(cut.features, layout)
    return SplitModel(
        features=features,
        head=head,
        layer=layer,
        preprocess=preprocess,
        classes=names,
        name=name or type(model).__name__,
        fingerprint=fingerprint(model, seen.traced, layer),
        non_negative_layers=lambda: non_negative_near(seen, model, layer),
        lowest=seen.minimum[node],
        notes=_on_outputs(model, seen),
        outputs=seen.outputs,
        with_tokens=features.with_tokens if layout.prefix else None,
    )


def _layout(known: Layout, shape: tuple[int, ...], layer: str, grid: Any, prefix: Any) -> Layout:
    """The layer's layout, or that of a row of tokens whose grid was given."""
    prefix = whole("prefix", prefix, "tokens", least=0)
    if grid is None:
        if prefix:
            raise ValueError(f"prefix={prefix!r} is given without the grid of the other tokens; give grid=(y, x), too")
        if not known.told:
            raise ValueError(
                f"layer={layer!r} has a row of {shape[3 - known.channel]} tokens, and following the picture through "
                "the network doesn't tell where on it they lie; give their grid and how many other tokens stand before "
                "them, such as grid=(14, 14), prefix=1, or choose another layer"
            )
        return known
    if known.axes != 3:
        raise ValueError(f"grid={grid!r} is given, and layer={layer!r} has no row of tokens; leave it out")
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise ValueError(f"grid={grid!r} is no height and width; give two numbers, such as grid=(14, 14)")
    height, width = (whole(f"grid[{axis}]", grid[axis], "tokens", least=1) for axis in (0, 1))
    count = shape[3 - known.channel]
    if prefix + height * width != count:
        raise ValueError(
            f"grid={grid!r} and prefix={prefix} make {prefix + height * width} tokens, and layer={layer!r} has {count}"
        )
    places = tuple(range(prefix, count))
    return Layout(3, known.channel, Tokens((height, width), places, tuple(range(prefix)), (count,)))


def _on_outputs(model: nn.Module, seen: Survey) -> tuple[str, ...]:
    """What to say of a model that ends in a sigmoid, a softmax, or something else that gives probabilities."""
    if seen.told:
        return (sigmoid_note(model, seen.logits.shape[1]),)
    if found := _probabilities(model, seen.logits):
        return found
    if (seen.binary or not seen.outputs.exclusive) and gives_probabilities(seen.traced, seen.logits):
        return (
            f"{type(model).__name__} gives values between 0 and 1, as probabilities are, where logits are expected: "
            "everything above 0 is then predicted. Let it give what is before its last step, whose sigmoid is the "
            "probability.",
        )
    return ()


def _probabilities(model: nn.Module, given: torch.Tensor) -> tuple[str, ...]:
    """What to say of a model that ends in a softmax."""
    if given.shape[1] == 1:
        return ()
    sums = given.double().sum(1)
    if not bool((given >= 0).all() and ((sums - 1).abs() < 100 * torch.finfo(given.dtype).eps).all()):
        return ()
    return (
        f"{type(model).__name__} gives probabilities (above zero, with a sum of 1) where logits are expected: the "
        "class score is the class's probability here, and divergences are of a softmax of probabilities, which makes "
        "them nearly equal. Leave out the softmax at the model's end.",
    )


def _refuse_other_colours(model: nn.Module, images: torch.Tensor, preprocess: Preprocess) -> None:
    made = preprocess.shape[2]
    if images.shape[1] == made:
        return
    device, dtype = home_of(model)
    colours, first = colours_of(model, preprocess.size, device=device, dtype=dtype, likely=made)
    layer = f" (its layer {first!r})" if first else ""
    ready = f"{made} {'channel' if made == 1 else 'channels'}"
    raise ValueError(
        f"model={type(model).__name__} takes pictures of {colours} {'channel' if colours == 1 else 'channels'}{layer}, "
        f"and preprocess makes {ready} of photographs (its mean has {made}); give preprocess="
        f"face_jax.Preprocess(…, mean=…, std=…) with {colours} {'number' if colours == 1 else 'numbers'} each, and "
        + (
            "photographs in colours or in grey"
            if colours == 1
            else "photographs"
            if colours == 3
            else f"pictures of {colours} channels, such as arrays image y x {colours}"
        )
        + "; or put a module in front that makes them, such as one whose "
        + (
            "forward is return self.model(images.mean(1, keepdim=True))"
            if colours == 1
            else f"forward is return self.model(channels) with {colours} channels made of the images"
        )
    )


def _check_halves(
    model: nn.Module, features: nn.Module, head: nn.Module, images: torch.Tensor, layer: str, *, sigmoid: bool
) -> None:
    expected = logits_of(model, images)
    with torch.inference_mode(False), evaluating(features), evaluating(head):
        with torch.no_grad():
            maps = features(images.clone())
        with torch.enable_grad():
            # Cloned once more: a head that overwrites its input can't be given a leaf.
            leaf = maps.clone().requires_grad_()
            given = head(leaf.clone())
        if any(part._forward_pre_hooks for part in head.modules()):
            with torch.no_grad():
                head(maps.clone())  # so that weights which hooks compute can be copied
    if not depends_on(given, leaf):
        raise ValueError(
            f"model={type(model).__name__} gives logits behind layer={layer!r} that have no derivative, because it "
            "detaches them, or rounds or compares; take that out, or choose a layer behind it"
        )
    given = given.detach().reshape(expected.shape)
    given = given.sigmoid() if sigmoid else given
    if not bool(expected.isfinite().all()):
        broken = [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
        raise ValueError(
            f"model={type(model).__name__} gives logits that are not finite"
            + (
                f"; so are its weights {', '.join(broken[:3])}: load a sound training"
                if broken
                else " on the example; give example_inputs that it is made for"
            )
        )
    tolerance = max(1e-9, 100 * torch.finfo(expected.dtype).eps)
    scale = float(expected.abs().max())
    worst = float((given - expected).abs().max())
    if not worst <= tolerance * max(scale, 1e-30):
        raise UntraceableModelError(
            f"model={type(model).__name__} and its two halves differ by {worst:.3g} in logits up to {scale:.3g}; "
            "it may be random in evaluation mode, or do something that tracing doesn't see"
        )
