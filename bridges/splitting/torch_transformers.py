"""Torch's own transformer as the operations that it is made of, for following them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def without_fast_attention() -> Iterator[None]:
    """Have torch's transformers run in single operations: the fast way is one for a whole layer."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _encoder(encoder: nn.TransformerEncoder, src: Any, mask: Any = None, *rest: Any, **options: Any) -> Any:
    """What `nn.TransformerEncoder` computes, without its choice of a faster way, which symbols can't follow."""
    for layer in encoder.layers:
        src = layer(src, mask, *rest, **options)
    return src if encoder.norm is None else encoder.norm(src)


def _encoder_layer(
    layer: nn.TransformerEncoderLayer,
    src: Any,
    src_mask: Any = None,
    src_key_padding_mask: Any = None,
    is_causal: bool | None = False,
) -> Any:
    """As `_encoder`, of `nn.TransformerEncoderLayer`."""

    def attended(x: Any) -> Any:
        return layer._sa_block(x, src_mask, src_key_padding_mask, is_causal=bool(is_causal))

    if layer.norm_first:
        src = src + attended(layer.norm1(src))
        return src + layer._ff_block(layer.norm2(src))
    src = layer.norm1(src + attended(src))
    return layer.norm2(src + layer._ff_block(src))


# Modules of torch's that are more than one operation, and what to follow in place of their own code.
UNFOLDED: dict[type, Callable[..., Any]] = {
    nn.TransformerEncoder: _encoder,
    nn.TransformerEncoderLayer: _encoder_layer,
}
