"""A head trained for labels of one's own, on the averaged activations of a network that stays as it is."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from networks import Network

import face_jax as fj
from face_jax.heads import Affine
from face_jax.pictures.photographs import network_input
from face_jax.support.cache import ArrayCache
from face_jax.support.contents import contents_digest

from .photographs import Labelled

_TOGETHER = 64
_EPOCHS, _AT_ONCE, _RATE, _DECAY = 400, 50, 1e-2, 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedHead:
    """A network with a head for other labels.

    **Arguments:**

    - `network`: with the new head.
    - `accuracy`: on photographs that the head wasn't trained on, of each label and of all.
    - `others`: the photographs that the head wasn't trained on.
    """

    network: Network
    accuracy: dict[str, float]
    others: Labelled


def averaged(network: Network, photographs: list[Any], cache: ArrayCache) -> np.ndarray:
    """Averaged activations of whole photographs, kept some at a time, so that a run that was stopped goes on."""
    model, found = network.model, []
    for first in range(0, len(photographs), _TOGETHER):
        some = fj.photographs(photographs[first : first + _TOGETHER])

        def compute(some: Any = some) -> dict[str, np.ndarray]:
            pixels = [network_input(one.pixels(model.preprocess.reads), model.preprocess) for one in some]
            filled = np.stack(pixels + pixels[-1:] * (_TOGETHER - len(pixels)))
            # Not compiled: the features may be torch's.
            return {"rows": np.asarray(model.features(jnp.asarray(filled)))[: len(pixels)].mean(axis=(1, 2))}

        depends = ["averaged activations", model.fingerprint, repr(model.preprocess), *(one.digest() for one in some)]
        found.append(cache(depends, compute)["rows"])
    return np.concatenate(found)


def train(
    network: Network,
    labelled: Labelled,
    folder: pathlib.Path,
    *,
    seed: int = 0,
    share: float = 0.5,
    epochs: int = _EPOCHS,
) -> TrainedHead:
    """Trains on a share of the photographs, and measures on the others.

    Logistic regression by Adam: softmax for exclusive labels, a sigmoid a label where each is told by itself. Where it
    had got to is kept every 50 epochs, and taken up again; a file that was cut off counts as none, as of all such
    caches.
    """
    if not network.model.head.affine:
        raise SystemExit(
            f"the head of {network.name} at {network.model.layer} doesn't average first; take another layer"
        )
    multi_label = labelled.multi_label
    rows = averaged(network, list(labelled.files), ArrayCache(folder / "activations"))
    targets = labelled.has.astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(rows))
    learned, judged = np.split(order, [round(share * len(rows))])
    middle, width = rows[learned].mean(axis=0), rows[learned].std(axis=0) + 1e-6
    weights = {"kernel": jnp.zeros((rows.shape[1], targets.shape[1])), "bias": jnp.zeros(targets.shape[1])}
    weights = jax.tree.map(lambda each: each.astype(rows.dtype), weights)
    inputs, answers = jnp.asarray((rows[learned] - middle) / width), jnp.asarray(targets[learned])
    kept = ArrayCache(folder / "heads")
    of = [network.model.fingerprint, labelled.labels, seed, share, multi_label, rows, targets, _steps]
    depends = ["head", contents_digest(of, "training")]
    leaves, structure = jax.tree.flatten((weights, optax.adam(_RATE).init(weights)))
    for done in range(0, epochs, _AT_ONCE):
        steps = min(_AT_ONCE, epochs - done)

        def compute(leaves: Any = leaves, steps: int = steps) -> dict[str, np.ndarray]:
            begun = jax.tree.unflatten(structure, [jnp.asarray(each) for each in leaves])
            found = jax.tree.leaves(_steps(*begun, inputs, answers, steps, multi_label))
            return {f"leaf {number}": np.asarray(each) for number, each in enumerate(found)}

        found = kept([*depends, f"after {done + steps} epochs"], compute)
        leaves = [found[f"leaf {number}"] for number in range(len(leaves))]
    now = jax.tree.unflatten(structure, leaves)[0]
    kernel = np.asarray(now["kernel"]) / width[:, None]
    bias = np.asarray(now["bias"]) - middle @ kernel
    outputs = fj.MultiLabel() if multi_label else fj.MultiClass()
    model = dataclasses.replace(
        network.model,
        head=Affine(jnp.asarray(kernel, rows.dtype), jnp.asarray(bias, rows.dtype)),
        classes=labelled.labels,
        outputs=outputs,
        name=f"{network.name}, head trained on {labelled.setting}",
        fingerprint=hashlib.sha256(network.model.fingerprint.encode() + kernel.tobytes() + bias.tobytes()).hexdigest(),
    )
    right = outputs.predicted(rows[judged] @ kernel + bias) == labelled.has[judged]
    accuracy = {"of all": float(right.mean() if multi_label else right.all(axis=1).mean())}
    for number, label in enumerate(labelled.labels):
        shown = labelled.has[judged][:, number]
        accuracy[label] = float(right[:, number].mean() if multi_label else right.all(axis=1)[shown].mean())
    others = dataclasses.replace(
        labelled, files=[labelled.files[number] for number in judged], has=labelled.has[judged]
    )
    return TrainedHead(dataclasses.replace(network, model=model), accuracy, others)


def _steps(now: Any, state: Any, inputs: Any, answers: Any, steps: int, multi_label: bool) -> tuple[Any, Any]:
    optimizer = optax.adam(_RATE)

    def loss(weights: Any) -> Any:
        logits = inputs @ weights["kernel"] + weights["bias"][None]
        each = optax.sigmoid_binary_cross_entropy if multi_label else optax.softmax_cross_entropy
        return jnp.mean(each(logits, answers)) + _DECAY * jnp.sum(weights["kernel"] ** 2)

    @jax.jit
    def advance(now: Any, state: Any) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, state = optimizer.update(jax.grad(loss)(now), state, now)
            return optax.apply_updates(now, updates), state

    for _ in range(steps):
        now, state = advance(now, state)
    return now, state
