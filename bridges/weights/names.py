"""Names of weights: a file's are brought under a model's own, whatever stands before them."""

from __future__ import annotations

import collections
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .files import WeightsError

# Counters that libraries leave among the weights; they change nothing that is computed.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
# Parts of a checkpoint that are of training, and parts of a model that are no part of the classifier.
_TRAINING = re.compile(
    r"(^|\.)(\w*optimizers?\w*|optim|opt|\w*schedulers?\w*|\w*scaler|exp_avg\w*|momentum_buffer\w*|grads?)(\.|$)",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"loss|criterion|metric|acc(uracy)?$|auroc|^f1(_|$)", re.IGNORECASE)
# Averages of the weights over training, of which the weights themselves are the other reading.
_AVERAGED = re.compile(r"ema|swa|averag|teacher|target|momentum|encoder_k|shadow", re.IGNORECASE)
# What wrappers around parts of a model put into the middle of names; the last one may be a part's own name.
_WITHIN = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
# How names of weights end that hooks and parametrizations make others of.
_COMPUTED = re.compile(r"(weight|bias)_(g|v|u|orig|mask)$|\.parametrizations\.")


def fit(
    model: nn.Module, found: dict[str, torch.Tensor], name: str, source: str, classes: int | None
) -> tuple[str, ...]:
    """Load tensors into a model, whatever stands before their names, or say in one message all that doesn't fit.

    **Arguments:**

    - `model`: what they are loaded into.
    - `found`: from `tensors_in`.
    - `name`, `source`: what errors call the model and the file.
    - `classes`: how many logits the model gives, if that was asked for.

    **Returns:** what the user should know: which of several sets of weights was taken, and what was passed over.
    Raises `WeightsError`.
    """
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    votes = _prefixes(own, found)
    needed = sum(not key.endswith(_COUNTERS) for key in own)
    whole = [prefix for prefix, count in votes.items() if count == needed]
    fitting = [prefix for prefix in whole if not _other_shapes(own, found, prefix)]
    if not whole and (lacking := _lacking(own)):
        # The model's own names begin with something that the file's don't.
        bare = {key.removeprefix(lacking): value for key, value in own.items()}
        if needed in (votes_bare := _prefixes(bare, found)).values():
            prefix = next(prefix for prefix, count in votes_bare.items() if count == needed)
            found = {
                lacking + key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)
            }
            return fit(model, found, name, source, classes)
    if not whole and (renamed := _unwrapped(own, found)) is not None and needed in _prefixes(own, renamed).values():
        return fit(model, renamed, name, source, classes)
    prefix = min(fitting or whole, key=_rank) if whole else _nearest(votes, found, needed)
    state = {key: found[prefix + key] for key in own if prefix + key in found}
    inside = [key.removeprefix(prefix) for key in found if key.startswith(prefix)]
    others = {other + key for other in fitting for key in own}
    unexpected = [key for key in inside if key not in own and prefix + key not in others]
    unexpected = [key for key in unexpected if not key.endswith(_COUNTERS)]
    beside = [key for key in unexpected if any(kind.search(key.split(".")[0]) for kind in (_BESIDE, _TRAINING))]
    _refuse(own, state, [key for key in unexpected if key not in beside], name, source, classes, prefix)
    model.load_state_dict(state, strict=False)
    return tuple(_told(found, state, prefix, fitting, beside, pathlib.Path(source).name))


def behind_prefixes(found: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors of a file by shorter and shorter names: as they are, then without what may stand before them.

    **Arguments:**

    - `found`: from `tensors_in`.

    **Returns:** all that are behind a prefix, for each prefix that a good part of them has; weights before averages.
    """
    waiting, seen = [("", found)], []
    while waiting:
        prefix, inside = waiting.pop(0)
        seen.append((prefix, inside))
        groups: dict[str, dict[str, torch.Tensor]] = collections.defaultdict(dict)
        for key, value in inside.items():
            first, dot, rest = key.partition(".")
            if dot:
                groups[first][rest] = value
        waiting += [
            (f"{prefix}{first}.", group)
            for first, group in groups.items()
            if 4 * len(group) > len(found) and not _TRAINING.search(first) and prefix.count(".") < 4
        ]
    for _, inside in sorted(seen, key=lambda pair: _rank(pair[0])):
        yield inside


def _prefixes(own: dict[str, Any], found: dict[str, Any]) -> collections.Counter[str]:
    """How many of the model's names are found behind each prefix."""
    needed = {key for key in own if not key.endswith(_COUNTERS)}
    votes: collections.Counter[str] = collections.Counter()
    for key in found:
        starts = [0, *(place + 1 for place, letter in enumerate(key) if letter == ".")]
        votes.update(key[:start] for start in starts if key[start:] in needed and not _TRAINING.search(key[:start]))
    return votes


def _lacking(own: dict[str, Any]) -> str:
    """What all of the model's own names begin with, up to a dot."""
    parts = [key.split(".") for key in own]
    common = itertools.takewhile(lambda same: len(set(same)) == 1, zip(*(names[:-1] for names in parts), strict=False))
    return "".join(f"{same[0]}." for same in common)


def _unwrapped(own: dict[str, Any], found: dict[str, Any]) -> dict[str, Any] | None:
    """A file's tensors by the model's names where wrappers around parts of it stand in them; None if that's unclear."""
    names = {_bare(key): key for key in own}
    bare = {_bare(key): key for key in found}
    if len(names) < len(own) or len(bare) < len(found):
        return None
    renamed: dict[str, Any] = {}
    for short, key in bare.items():
        starts = [0, *(place + 1 for place, letter in enumerate(short) if letter == ".")]
        start = next((start for start in starts if short[start:] in names), None)
        renamed[key if start is None else short[:start] + names[short[start:]]] = found[key]
    return renamed


def _bare(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WITHIN)


def _rank(prefix: str) -> tuple[bool, int]:
    """Weights before averages of them, before what lies deeper."""
    return bool(_AVERAGED.search(prefix)), prefix.count(".")


def _nearest(votes: collections.Counter[str], found: dict[str, Any], needed: int) -> str:
    """The prefix under which most of the names are, else the dictionary that holds most tensors."""
    if votes and max(votes.values()) > needed / 2:
        return max(votes, key=votes.__getitem__)
    return next((part for part in ("state_dict.", "model_state_dict.", "model.") if all(map(_under(part), found))), "")


def _under(part: str) -> Any:
    return lambda key: key.startswith(part)


def _other_shapes(own: dict[str, Any], found: dict[str, Any], prefix: str) -> list[str]:
    return [key for key in own if prefix + key in found and own[key].shape != found[prefix + key].shape]


def _refuse(
    own: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    unexpected: list[str],
    name: str,
    source: str,
    classes: int | None,
    prefix: str,
) -> None:
    # Counters of training steps came late to torch and change nothing here.
    missing = [key for key in own if key not in state and not key.endswith(_COUNTERS)]
    shapes = _other_shapes(own, state, "")
    types = [f"{key} ({state[key].dtype})" for key in state if _other_type(own[key], state[key])]
    said = []
    if missing:
        said.append(f"missing {_some(missing)}")
    if unexpected:
        said.append(f"unexpected {_some(unexpected)}")
    if shapes:
        each = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in shapes]
        said.append(f"of another shape {_some(each)}")
    if types:
        said.append(f"no real numbers {_some(types)}")
    behind = f" (names read behind {prefix!r})" if prefix else ""
    remedy = f"give the file of a {name}, or the name of the model that this file is of"
    trained = {
        tuple(state[key].shape[:1]) for key in shapes if own[key].shape[:1] == (classes,) != state[key].shape[:1]
    }
    if any(map(_COMPUTED.search, unexpected)) and not any(map(_COMPUTED.search, own)):
        remedy = (
            "they are of a model whose weights are normalized, constrained or pruned: take that off before they are "
            "saved (torch.nn.utils.remove_weight_norm, remove_spectral_norm, parametrize.remove_parametrizations, "
            "prune.remove), or give the module with it to face_jax.bridges.load"
        )
    last = all(own[key].shape[:1] == (classes,) for key in shapes)
    if not (missing or unexpected or types) and last and len(trained) == 1 and () not in trained:
        (count,) = trained.pop()
        remedy = (
            f"they were trained for {count} classes, not {classes}: give classes= with {count} names (--class-names "
            "FILE in the command)"
        )
    if said:
        raise WeightsError(f"weights={source!r} don't fit {name}{behind}: {'; '.join(said)}; {remedy}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(f"weights={source!r} hold NaN or infinity in {_some(broken)}; load a sound training")


def _other_type(own: torch.Tensor, given: torch.Tensor) -> bool:
    return own.is_floating_point() and not given.is_floating_point()


def _told(
    found: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    prefix: str,
    fitting: Sequence[str],
    beside: Sequence[str],
    file: str,
) -> Iterator[str]:
    others = [
        other
        for other in fitting
        if other != prefix and any(not torch.equal(found[other + key], value) for key, value in state.items())
    ]
    if others:
        yield (
            f"{file} holds several sets of weights that fit: those under {_shown(prefix)} were taken, and not those "
            f"under {', '.join(map(_shown, others))}, which differ; to use these, save them alone in a file."
        )
    used = {other + key for other in (prefix, *fitting) for key in state}
    outside = [key for key in found if key not in used and not key.startswith(prefix) and not _TRAINING.search(key)]
    passed = [key for key in (*outside, *(prefix + key for key in beside)) if not key.endswith(_COUNTERS)]
    if passed:
        yield f"{file} holds more tensors than the model has, which were passed over: {_some(passed)}."


def _shown(prefix: str) -> str:
    return repr(prefix.rstrip(".")) if prefix else "no prefix"


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"
