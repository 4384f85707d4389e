"""Names for concepts: words of a vocabulary that a text–image model finds nearest to a concept's strongest crops."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from ..explanation.concepts import NameGuess
from ..explanation.record import Explanation
from ..metrics import unit_length
from ..pictures.showing import in_colours
from ..support.arguments import Seed, Whole, check_count, instance, key_of, real_array, shown, text
from ..support.interrupts import interruptible
from ..support.progress_line import Watched, progress_of

# So many crops say what is usual in these photographs, and so many random sets of them what a word reaches by chance.
_USUAL, _SETS = 96, 200
# Pictures, or words, that go through the text–image model together.
_BATCH = 32


@runtime_checkable
class TextImage(Protocol):
    """A model that puts pictures and texts into one space, such as CLIP.

    `bridges.load_text_image` makes one; anything with these two methods does.
    """

    def pictures(self, pictures: Sequence[UInt8[np.ndarray, "y x 3"]]) -> Any:
        """Where pictures of any sizes lie: `picture feature`."""
        ...

    def texts(self, texts: Sequence[str]) -> Any:
        """Where texts lie: `text feature`."""
        ...


@interruptible()
def name_concepts(
    explanation: Explanation,
    model: Any,
    words: Any = None,
    *,
    template: str = "a photo of {}",
    most: Whole = 3,
    key: Seed = None,
    progress: Watched = None,
) -> Explanation:
    """The explanation with a guess at each concept's name: reports show it, marked as one.

    A word's score is the mean cosine of a concept's strongest crops to the word, less that of crops from all over the
    photographs: what all of them show, the class itself first, names no concept. How much a guess says is told by its
    margin over the next word, and by how often random sets of as many crops find a word that fits them as well.

    **Arguments:**

    - `explanation`: whose concepts get names.
    - `model`: a `TextImage`, such as `bridges.load_text_image("hf/openai/clip-vit-base-patch32")`.
    - `words`: the vocabulary; the classifier's own classes by default.
    - `template`: what the model is asked, with `{}` for the word.
    - `most`: so many words are kept for each concept.
    - `key`: for the crops that are compared with; of the explanation's own key by default.
    - `progress`: whom to tell how far it is.

    **Returns:** the explanation with `names` in its concepts. Raises `ValueError` for an empty vocabulary, one with a
    word twice, and for a model whose pictures and texts don't lie in one space.

    **Example:**

    >>> class Colours:
    ...     def pictures(self, pictures):
    ...         return [picture.mean((0, 1)) for picture in pictures]
    ...     def texts(self, texts):
    ...         return [[255.0 * (colour in text) for colour in ("red", "green", "blue")] for text in texts]
    >>> named = fj.name_concepts(explanation, Colours(), ["red", "green", "blue"])
    >>> len(named.concepts[0].names)
    3
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    # A class has the same methods as its objects.
    kinds = () if isinstance(model, type) else TextImage
    instance("model", model, kinds, "face_jax.bridges.load_text_image('hf/openai/clip-vit-base-patch32')")
    words, most = _vocabulary(words, explanation), check_count("most", most, "words")
    if text("template", template, "what is asked of the model").count("{}") != 1:
        raise ValueError(f"template={template!r} has to have {{}} once, where the word goes")
    own = jax.random.wrap_key_data(jnp.asarray(explanation.provenance.settings.key, jnp.uint32))
    seed = int(jax.random.randint(own if key is None else key_of(key), (), 0, 2**31 - 1))
    generator = np.random.default_rng(seed)
    strongest = sorted({crop for concept in explanation.concepts for crop in concept.strongest})
    count = len(explanation.crops)
    usual = np.sort(generator.permutation(count)[: min(_USUAL, count)])
    asked = sorted({*strongest, *usual.tolist()}, key=lambda crop: (explanation.crops.image[crop], crop))
    told = progress_of(progress)
    pictures = _placed("pictures", model.pictures, _shown(explanation, asked), told)
    texts = _placed("texts", model.texts, [template.replace("{}", word) for word in words], told)
    if pictures.shape[1] != texts.shape[1]:
        raise ValueError(
            f"model puts pictures into {pictures.shape[1]} dimensions and texts into {texts.shape[1]}; give a model "
            "that has one space for both, such as face_jax.bridges.load_text_image('hf/openai/clip-vit-base-patch32')"
        )
    cosines = dict(zip(asked, unit_length(pictures) @ unit_length(texts).T, strict=True))
    sample = np.stack([cosines[crop] for crop in usual])
    concepts = []
    for concept in explanation.concepts:
        guesses: tuple[NameGuess, ...] = ()
        if concept.strongest:
            scores = np.mean([cosines[crop] for crop in concept.strongest], axis=0) - sample.mean(axis=0)
            chance = _chance(sample, len(concept.strongest), scores.max(), generator)
            guesses = _guesses(scores, words, most, chance)
        concepts.append(dataclasses.replace(concept, names=guesses))
    bank = dataclasses.replace(explanation.bank, concepts=tuple(concepts))
    return dataclasses.replace(explanation, bank=bank)


def _vocabulary(words: Any, explanation: Explanation) -> tuple[str, ...]:
    if words is None:
        return tuple(dict.fromkeys(explanation.model.classes))
    if isinstance(words, str | bytes) or not isinstance(words, Iterable):
        raise TypeError(f"words={shown(words)} isn't a vocabulary; give a list of words")
    given = list(words)
    for word in given:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"words has {shown(word)} among them; give words that aren't empty")
    found = tuple(word.strip() for word in given)
    if not found:
        raise ValueError("words has 0 words; give those that concepts may be called")
    twice = [word for word, times in zip(*np.unique(found, return_counts=True), strict=True) if times > 1]
    if twice:
        raise ValueError(f"words has {str(twice[0])!r} twice, which leaves no margin between them; give it once")
    return found


def _shown(explanation: Explanation, asked: list[int]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Crops as people see them; neighbours of one photograph are cut from it together."""
    preprocess, crops = explanation.model.preprocess, explanation.crops

    @functools.lru_cache(maxsize=1)
    def whole(image: int) -> UInt8[np.ndarray, "y x 3"]:
        return in_colours(explanation.photographs[image].pixels(preprocess.reads), preprocess.shown)

    found = []
    for crop in asked:
        top, left, bottom, right = crops.box[crop]
        # A view would keep the whole photograph in memory.
        found.append(whole(int(crops.image[crop]))[top:bottom, left:right].copy())
    return found


def _placed(what: str, place: Any, given: list[Any], told: Any) -> Float[np.ndarray, "one feature"]:
    """Where the model puts pictures or texts, a batch at a time."""
    found = []
    with told(f"Naming: {what}", len(given)) as advance:
        for start in range(0, len(given), _BATCH):
            batch = given[start : start + _BATCH]
            placed = real_array(f"model.{what}(…)", place(batch), f"{what[:-1]} × feature")
            if len(placed) != len(batch):
                raise ValueError(f"model.{what}(…) gave {len(placed)} rows for {len(batch)} {what}; give one for each")
            found.append(placed.astype(np.float64))
            advance(len(batch))
    rows = np.concatenate(found)
    if not np.any(rows, axis=1).all():
        raise ValueError(f"model.{what}(…) has rows of zeros, which have no direction; give a model that tells them")
    return rows


def _chance(sample: Float[np.ndarray, "crop word"], size: int, score: float, generator: np.random.Generator) -> float:
    """The share of random sets of crops in which the best word's score is as high."""
    usual = sample.mean(axis=0)
    size = min(size, len(sample))
    best = [
        (sample[generator.choice(len(sample), size, replace=False)].mean(axis=0) - usual).max() for _ in range(_SETS)
    ]
    return float(np.mean(np.asarray(best) >= score))


def _guesses(
    scores: Float[np.ndarray, " word"], words: tuple[str, ...], most: int, chance: float
) -> tuple[NameGuess, ...]:
    order = np.argsort(-scores, kind="stable")
    margin = float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else 0.0
    return tuple(
        NameGuess(words[at], float(scores[at]), margin if at == order[0] else 0.0, chance) for at in order[:most]
    )
