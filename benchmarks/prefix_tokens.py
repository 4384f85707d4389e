"""What becomes of a transformer's class token when its patch tokens are rebuilt from concepts?

    python benchmarks/prefix_tokens.py --data FOLDER

A DeiT-tiny cut behind some of its blocks. Concepts are found by semi-NMF in the patch tokens of photographs that the
network puts in the class (the class token's rows added where it is encoded as well), and held-out photographs are
rebuilt in three ways:

- kept: every photograph has its own class token, as it was;
- encoded: the class token is rebuilt from its own codes, as a further place;
- mean: every photograph has the class token that photographs fitted have on average.

Agreement, divergence and error are those of held-out photographs. *All codes zero* is the floor: patch tokens of zeros.
*Mean patches* has every patch token at its average over photographs fitted. Controls are rebuilt alike, from concepts
that learned nothing. FOLDER has `weights/deit_tiny_patch16_224_imagenet.pth` and `images/imagenet/CLASS/`.
"""

from __future__ import annotations

import argparse
import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import torch
import torchvision
from torch import nn

import face_jax as fj
from face_jax import bridges, metrics
from face_jax.nmf.encoding import encode_maps
from face_jax.pictures.photographs import network_input

CLASSES = {"French_horn": 566, "church": 497}
BLOCKS = (5, 9, 10)
RANKS = (10, 25)


def network(weights: pathlib.Path) -> nn.Module:
    """DeiT-tiny."""
    model = torchvision.models.VisionTransformer(
        image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    state = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


@torch.inference_mode()
def tokens_of(model: nn.Module, pictures: np.ndarray) -> dict[int, np.ndarray]:
    """All tokens (`picture token channel`) behind each block that is looked at."""
    found: dict[int, list[np.ndarray]] = {block: [] for block in BLOCKS}
    hooks = [
        model.encoder.layers[block].register_forward_hook(
            lambda module, given, result, block=block: found[block].append(result.numpy())
        )
        for block in BLOCKS
    ]
    for batch in torch.from_numpy(pictures).movedim(-1, 1).split(16):
        model(batch)
    for hook in hooks:
        hook.remove()
    return {block: np.concatenate(parts) for block, parts in found.items()}


@torch.inference_mode()
def logits_of(model: nn.Module, block: int, tokens: np.ndarray) -> np.ndarray:
    """What the network behind a block makes of its tokens."""
    x = torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.float32))
    for layer in list(model.encoder.layers)[block + 1 :]:
        x = layer(x)
    return model.heads(model.encoder.ln(x)[:, 0]).numpy()


def rebuilt(tokens: np.ndarray, dictionary: np.ndarray) -> np.ndarray:
    """Tokens from their codes by non-negative least squares."""
    return encode_maps(tokens[:, :, None], dictionary)[:, :, 0] @ dictionary


def measure(model: nn.Module, name: str, block: int, tokens: np.ndarray, fitted: int) -> None:
    """The table's rows of one class and block; the first `fitted` photographs are fitted."""
    held = tokens[fitted:]
    prefix, patches = held[:, :1], held[:, 1:]
    mean_prefix = np.broadcast_to(tokens[:fitted, :1].mean(0), prefix.shape)
    mean_patches = np.broadcast_to(tokens[:fitted, 1:].mean((0, 1)), patches.shape)
    original = logits_of(model, block, held)

    def row(what: str, way: str, prefix: np.ndarray, patches: np.ndarray) -> None:
        given = np.concatenate([prefix, patches], axis=1)
        found = metrics.certificates(original, logits_of(model, block, given))
        error = metrics.relative_squared_error(held[:, 1:, None], given[:, 1:, None])
        numbers = f"{found.agreement.mean():.2f} | {found.kl.mean():.3f} | {error:.3f}"
        print(f"| {name} | {block} | {what} | {way} | {numbers} |", flush=True)

    nothing = np.zeros_like(patches)
    row("all codes zero", "kept", prefix, nothing)
    row("all codes zero", "encoded", np.zeros_like(prefix), nothing)
    row("all codes zero", "mean", mean_prefix, nothing)
    row("mean patches", "kept", prefix, mean_patches)
    row("mean patches", "mean", mean_prefix, mean_patches)
    row("patches as they are", "mean", mean_prefix, patches)
    rows = tokens[:fitted, 1:].reshape(-1, tokens.shape[-1])
    every = tokens[:fitted].reshape(-1, tokens.shape[-1])
    for rank in RANKS:
        for what, find in (("concepts", concepts), ("control: mean and noise", mean_and_noise)):
            bank = find(rows, rank)
            again = rebuilt(patches, bank)
            row(f"{rank} {what}", "kept", prefix, again)
            row(f"{rank} {what}", "mean", mean_prefix, again)
            row(f"{rank} {what}", "encoded", *np.split(rebuilt(held, find(every, rank)), [1], axis=1))


def concepts(rows: np.ndarray, rank: int) -> np.ndarray:
    """By semi-NMF."""
    return np.asarray(fj.factorize(jnp.asarray(rows), rank, solver=fj.SemiNMF()).dictionary)


def mean_and_noise(rows: np.ndarray, rank: int) -> np.ndarray:
    """As `metrics.mean_direction`, for rows of either sign."""
    mean = rows.mean(0)
    noise = np.random.default_rng(0).normal(size=(rank, len(mean))) * 0.1 * np.abs(mean).mean()
    return (mean + noise).astype(rows.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--photographs", type=int, default=45)
    arguments = parser.parse_args()
    bridges.share_processor()
    model = network(arguments.data / "weights" / "deit_tiny_patch16_224_imagenet.pth")
    preprocess = fj.Preprocess(size=224, resize=256, interpolation="bicubic")
    print("| class | block | patch tokens | class token | agreement | KL | error |\n|---|---|---|---|---|---|---|")
    for name, index in CLASSES.items():
        found = fj.photographs(arguments.data / "images" / "imagenet" / name)[: 4 * arguments.photographs]
        pictures = np.stack([network_input(photograph.pixels(), preprocess) for photograph in found])
        tokens = tokens_of(model, pictures)
        right = logits_of(model, BLOCKS[-1], tokens[BLOCKS[-1]]).argmax(1) == index
        right &= np.cumsum(right) <= arguments.photographs
        for block in BLOCKS:
            measure(model, name, block, tokens[block][right], fitted=2 * arguments.photographs // 3)


if __name__ == "__main__":
    main()
