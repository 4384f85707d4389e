"""A small CLIP of random weights, made from a configuration: nothing is downloaded."""

import pathlib
from typing import Any

import torch
import transformers

LAYERS: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ("a", "photo", "of", "red", "green", "blue")


def tokenizer():
    """CLIP's own, of letters and the few words above."""
    letters = sorted(set("".join(WORDS)))
    merges, tokens = [], [*letters, *(letter + "</w>" for letter in letters)]
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
                tokens.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    numbers = {token: number for number, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(numbers, merges), len(tokens)


def write_clip(path: pathlib.Path) -> pathlib.Path:
    """Writes the model and its processor into a folder, which is given back."""
    words, count = tokenizer()
    ends = {"bos_token_id": count - 2, "eos_token_id": count - 1, "pad_token_id": count - 1}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**LAYERS, **ends, "vocab_size": count, "max_position_embeddings": 12},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    transformers.CLIPModel(config).eval().save_pretrained(path)
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.CLIPProcessor(image_processor=pictures, tokenizer=words).save_pretrained(path)
    return path
