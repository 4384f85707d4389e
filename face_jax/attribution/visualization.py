"""Feature visualization: the picture in which a network finds most of a concept."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, UInt8

from ..model import Preprocess, SplitModel, Transform, check_model
from ..pictures.showing import in_colours
from ..support.arguments import Concepts, Real, Seed, Whole, check_count, instance, key_of, path_of, real
from ..support.concepts import concepts_of
from ..support.extras import installing
from ..support.freed_memory import freed_memory_kept
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress import Progress
from ..support.progress_line import Watched, progress_of
from ..support.reprs import short_repr
from .fourier import Spectrum, mean_spectrum, to_picture, weak_noise
from .method import checked_bank
from .views import Views

# Below this cosine the objective counts it as this much, so that a first picture with next to none of the concept
# still has a slope (Olah et al.).
_LEAST_COSINE = 0.1


@dataclasses.dataclass(frozen=True)
class Visualization:
    """Pictures made for concepts.

    **Arguments:**

    - `pictures`: values 0…1.
    - `history`: the objective at each step, each on a view of its own: it climbs unevenly.
    - `concepts`: which concepts these are, counted from 0.
    """

    pictures: Float[np.ndarray, "concept y x colour"]
    history: Float[np.ndarray, "concept step"]
    concepts: tuple[int, ...]

    __repr__ = short_repr

    @property
    def pixels(self) -> UInt8[np.ndarray, "concept y x colour"]:
        """The pictures in 0…255."""
        return np.round(255 * self.pictures).astype(np.uint8)

    def save(self, folder: str | pathlib.Path) -> tuple[pathlib.Path, ...]:
        """Writes `concept-1.png` and so on, by the concepts' numbers from 1, into a folder, which is made if need be.

        **Returns:** the files.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportError(f"saving pictures needs Pillow; {installing('report')}") from error
        folder = path_of("folder", folder, "a folder")
        folder.mkdir(parents=True, exist_ok=True)
        files = tuple(folder / f"concept-{concept + 1}.png" for concept in self.concepts)
        for file, pixels in zip(files, self.pixels, strict=True):
            Image.fromarray(in_colours(pixels)).save(file)
        return files


@interruptible()
@full_precision
def visualize(
    model: SplitModel,
    dictionary: Any,
    *,
    concepts: Concepts = None,
    photographs: Any = None,
    steps: Whole = 128,
    rate: Real | None = None,
    power: Real = 2.0,
    decay: Real = 0.8,
    views: Views | None = None,
    progress: Watched = None,
    key: Seed = None,
) -> Visualization:
    """Pictures that maximize concepts: what the network looks for, whatever photographs happen to show.

    The objective is `⟨a, w⟩ · cos(a, w)^power` (CRAFT, appendix B.3, after Olah et al. 2017), with `a` the average
    activations of a random view of the picture and `w` the concept. The picture's parameters are Fourier coefficients
    of decorrelated colours, the higher frequencies damped by `1 / frequency^decay`, and Adam climbs. A step is one
    compiled program if the model's features are a JAX function (`bridges.to_flax` makes one of a torch network);
    features with a method `vjp` of their own are called from outside.

    **Arguments:**

    - `model`: the split classifier.
    - `dictionary`: the concepts, `concept channel`, JAX or NumPy.
    - `concepts`: which concepts, counted from 0; all by default.
    - `photographs`: anything that `face_jax.photographs` takes. The picture starts with their mean spectrum and random
        phases, or with weak noise if None.
    - `steps`: of Adam; each is one forward and backward pass of the network for each concept (EfficientNet-Lite0 at
        224 × 224 pixels: about 45 ms on two processor cores).
    - `rate`: Adam's step size; by default the paper's 0.1 from weak noise, and half of it from photographs' spectrum:
        such a picture has its contrast from the start, and most of it ends as black or white at 0.1.
    - `power`: how much the direction counts against the strength; the paper's is 2.
    - `decay`: the paper's is 0.8.
    - `views`: how far a view is moved, turned and scaled.
    - `progress`: told how far it is.
    - `key`: for the start and the views; a concept's are the same whichever others are asked for.

    **Returns:** the pictures and the objective's history. Raises `ValueError` for options out of range.

    **Example:**

    >>> found = fj.visualize(model, explanation.dictionary, concepts=[0], steps=2)
    >>> found.pixels.shape
    (1, 16, 16, 3)
    """
    key, progress = key_of(key), progress_of(progress)
    check_model(model)
    wanted, directions = _directions(dictionary, concepts)
    if rate is None:
        rate = 0.1 if photographs is None else 0.05
    steps, rate = check_count("steps", steps, "steps"), real("rate", rate, "step size", above=0)
    power, decay = real("power", power, "power", least=0), real("decay", decay, "power", least=0, most=10)
    if views is not None:
        instance("views", views, Views, "Views(flip=True)")
    start_key, step_key = jax.random.split(key)
    if isinstance(model.preprocess, Transform) and not model.preprocess.normalized:
        raise ValueError(
            f"model.preprocess={model.preprocess.name} doesn't subtract a mean and divide by a deviation, as far as it "
            "can be tried, so that nothing says how a picture becomes the network's input; give a face_jax.Preprocess"
        )
    spectrum = Spectrum(model.preprocess.size, decay, model.preprocess.shape[2])
    own = _keys_of_concepts(start_key, wanted)
    start = (
        weak_noise(spectrum, directions.dtype, keys=own)
        if photographs is None
        else mean_spectrum(spectrum, photographs, model.preprocess, directions.dtype, keys=own)
    )
    run = _Run(spectrum, views or Views(), model.preprocess, rate, power)
    keys = jax.vmap(lambda step: _keys_of_concepts(step, wanted))(jax.random.split(step_key, steps))
    parameters, history = _climb(run, _findable(model.features), directions, start, keys, progress)
    return Visualization(np.asarray(to_picture(spectrum, parameters)), history.T, wanted)


def _keys_of_concepts(key: Key[Array, ""], concepts: tuple[int, ...]) -> Key[Array, " concept"]:
    return jax.vmap(lambda concept: jax.random.fold_in(key, concept))(jnp.asarray(concepts))


def _findable(features: Any) -> Any:
    """Features that compiled steps can be looked up by: themselves, or else a name that lives as long as this call."""
    try:
        hash(features)
    except TypeError:
        return functools.partial(features)
    return features


def _directions(dictionary: Any, concepts: Concepts) -> tuple[tuple[int, ...], Float[Array, "concept channel"]]:
    bank = jnp.asarray(checked_bank(dictionary))
    wanted = concepts_of(concepts, len(bank))
    return wanted, bank[np.asarray(wanted)]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What stays the same from step to step."""

    spectrum: Spectrum
    views: Views
    preprocess: Preprocess
    rate: float
    power: float

    def begin(self, parameters: Array) -> Any:
        """Adam's state before the first step."""
        return optax.adam(self.rate).init(parameters)

    def step(self, parameters: Array, state: Any, gradient: Array) -> tuple[Array, Any]:
        """One step of Adam, whose count of steps optax mixes with real numbers."""
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optax.adam(self.rate).update(gradient, state)
        return parameters + jnp.asarray(updates), state

    def network_input(self, parameters: Array, keys: Key[Array, " concept"]) -> Float[Array, "concept y x colour"]:
        """A random view of each picture, as the network takes it."""
        pictures = to_picture(self.spectrum, parameters)
        seen = jax.vmap(lambda picture, key: self.views(picture, key=key))(pictures, keys)
        mean, std = (
            jnp.asarray(value, seen.dtype)[None, None, None] for value in (self.preprocess.mean, self.preprocess.std)
        )
        return (seen - mean) / std

    def objective(
        self, maps: Float[Array, "concept y x layer_channel"], directions: Float[Array, "concept channel"]
    ) -> Float[Array, " concept"]:
        if maps.shape[-1] != directions.shape[1]:
            raise ValueError(
                f"dictionary has {directions.shape[1]} channels, and the model's layer {maps.shape[-1]}; give concepts "
                "that were found at this layer"
            )
        activations = jnp.mean(maps.astype(directions.dtype), axis=(1, 2))
        dot = jnp.sum(activations * directions, axis=1)
        lengths = jnp.sum(directions**2, axis=1) * jnp.sum(activations**2, axis=1)
        # A picture that the layer doesn't answer at all has no direction, and no slope through it.
        cosine = dot / jnp.sqrt(jnp.where(lengths > 0, lengths, 1))
        return dot * jnp.maximum(cosine, _LEAST_COSINE) ** self.power


def _climb(
    run: _Run,
    features: Any,
    directions: Float[Array, "concept channel"],
    start: Array,
    keys: Key[Array, "step concept"],
    progress: Progress,
) -> tuple[Array, Float[np.ndarray, "step concept"]]:
    step = _step_in_jax if getattr(features, "vjp", None) is None else _step_outside
    parameters, state, history = start, run.begin(start), []
    with progress("Feature visualization", len(keys)) as advance, freed_memory_kept():
        for views in keys:
            parameters, state, values = step(run, features, directions, parameters, state, views)
            # Waits for the step, so that nobody is told of what isn't done.
            history.append(np.asarray(values))
            advance(1)
    return parameters, np.stack(history)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step_in_jax(
    run: _Run,
    features: Callable[..., Array],
    directions: Array,
    parameters: Array,
    state: Any,
    keys: Key[Array, " concept"],
) -> tuple[Array, Any, Float[Array, " concept"]]:
    def loss(parameters: Array) -> tuple[Array, Array]:
        values = run.objective(features(run.network_input(parameters, keys)), directions)
        return -jnp.sum(values), values

    gradient, values = jax.grad(loss, has_aux=True)(parameters)
    return *run.step(parameters, state, gradient), values


def _step_outside(
    run: _Run, features: Any, directions: Array, parameters: Array, state: Any, keys: Key[Array, " concept"]
) -> tuple[Array, Any, Float[Array, " concept"]]:
    """The same step around features that JAX can't compile."""
    maps, pullback = features.vjp(_input(run, parameters, keys))
    values, cotangent = _value_and_cotangent(run, maps, directions)
    return *_update(run, parameters, state, keys, jnp.asarray(pullback(cotangent))), values


@functools.partial(jax.jit, static_argnums=0)
def _input(run: _Run, parameters: Array, keys: Key[Array, " concept"]) -> Array:
    return run.network_input(parameters, keys)


@functools.partial(jax.jit, static_argnums=0)
def _value_and_cotangent(run: _Run, maps: Array, directions: Array) -> tuple[Array, Array]:
    values, pull = jax.vjp(lambda maps: run.objective(maps, directions), maps)
    return values, pull(-jnp.ones_like(values))[0]


@functools.partial(jax.jit, static_argnums=0)
def _update(
    run: _Run, parameters: Array, state: Any, keys: Key[Array, " concept"], cotangent: Array
) -> tuple[Array, Any]:
    seen, pull = jax.vjp(lambda parameters: run.network_input(parameters, keys), parameters)
    return run.step(parameters, state, pull(cotangent.astype(seen.dtype))[0])
