"""Explanations of several classes of one model together."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..model import SplitModel
from ..support.arguments import Seed, Whole, enough, function, key_of, shown
from ..support.classes import Target as Class
from ..support.classes import UnknownClassError, class_index
from .class_usage import Usage, places_of, usage_of
from .record import Explanation
from .telling_apart import Apart, told_apart


@dataclasses.dataclass(frozen=True)
class ClassExplanations:
    """Explanations of several classes of one model, with one bank of concepts for all, or one bank each.

    `face_jax.explain_classes` makes it; `face_jax.write_classes` writes its pages.

    **Arguments:**

    - `model`: the split classifier.
    - `explanations`: one for each class, by its name.
    - `failed`: classes that couldn't be explained, and why.
    - `bank`: the concepts that all classes share, in the order of their mean importance; None with one bank each.
    - `notes`: what a reader should know before believing it.
    """

    model: SplitModel
    explanations: dict[str, Explanation]
    failed: dict[str, str]
    bank: Float[np.ndarray, "concept channel"] | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """What it is of, without its arrays."""
        shared = "one bank each" if self.bank is None else f"{len(self.bank)} concepts shared"
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"<Explanations of {len(self.explanations)} classes by {self.model.name}: {shared}{failed}>"

    def __getitem__(self, target: Class) -> Explanation:
        """A class's explanation, by the class's name or number; raises `UnknownClassError`."""
        return self.explanations[self._name(target, "target")]

    def map(self, change: Any) -> ClassExplanations:
        """The same with something added to each explanation, such as `found.map(lambda one: fj.recurse(one, earlier))`.

        **Arguments:**

        - `change`: a function from an explanation to an explanation, by which class and concepts stay.

        **Returns:** the explanations. Raises `ValueError` for others' classes or concepts.
        """
        function("change", change, "a function from an explanation to an explanation")
        changed = {name: change(one) for name, one in self.explanations.items()}
        for name, one in changed.items():
            own = self.explanations[name]
            if not isinstance(one, Explanation):
                raise ValueError(f"change gave {shown(one)} for {name}; give a function that gives an explanation")
            if one.target != own.target or not np.array_equal(one.dictionary, own.dictionary):
                raise ValueError(
                    f"change gave an explanation of {one.target_name} by other concepts for {name}; give a function "
                    "that leaves class and concepts as they are"
                )
        return dataclasses.replace(self, explanations=changed)

    @property
    def shared(self) -> bool:
        """Whether all classes have the same concepts."""
        return self.bank is not None

    def numbers(self, target: Class) -> Int[np.ndarray, " concept"]:
        """With a shared bank, the number in it (from 1) of each of a class's concepts, which are in its own order."""
        explanation, bank = self[target], self.bank
        if bank is None:
            raise ValueError("numbers are of a shared bank, and each class has its own here; ask usage")
        return places_of(explanation.dictionary, bank) + 1

    @property
    def usage(self) -> Usage:
        """Which class uses which concept."""
        return usage_of(self.explanations, self.bank)

    @property
    def confusable(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes, those first whose logits are nearest to each other in the photographs of both."""
        logits = {name: each.pictures.collected.logits for name, each in self.explanations.items()}
        middle = {name: each.astype(np.float64).mean(0) for name, each in logits.items()}

        def distance(pair: tuple[str, str]) -> float:
            one, other = (self.explanations[name].target.index for name in pair)
            first, second = (middle[name] for name in pair)
            return float(first[one] - first[other] + second[other] - second[one])

        return tuple(sorted(itertools.combinations(self.explanations, 2), key=distance))

    def tell_apart(
        self, first: Class, second: Class, *, shuffles: Whole = 200, permutations: Whole = 64, key: Seed = None
    ) -> Apart:
        """Which concepts tell two classes apart, on the difference of their logits.

        `logit[first] − logit[second]` is divided in each photograph of both classes, as `Explanation.why` does: exactly
        behind an affine head, else by Shapley values, in 12 photographs of each class. With one bank each, photographs
        are encoded with the concepts of both classes together.

        **Arguments:**

        - `first`, `second`: the classes, by name or number.
        - `shuffles`: of the photographs' classes, which say what is chance.
        - `permutations`: orders that are drawn for sampled values.
        - `key`: for both, or a seed.

        **Returns:** the concepts' parts in both. Raises `UnknownClassError` for classes that aren't explained here, and
        `ValueError` for the same one twice.
        """
        names = self._name(first, "first"), self._name(second, "second")
        if names[0] == names[1]:
            raise ValueError(f"second={names[1]!r} is the first class, too; give another one")
        shuffles, permutations = enough("shuffles", shuffles, 20), enough("permutations", permutations, 4)
        pair = self.explanations[names[0]], self.explanations[names[1]]
        options: Any = {"shuffles": shuffles, "permutations": permutations, "key": key_of(key)}
        return told_apart(names, pair, shared=self.shared, **options)

    def _name(self, given: Class, argument: str) -> str:
        try:
            number = class_index(self.model.classes, given)
        except UnknownClassError as error:
            raise UnknownClassError(str(error).replace("target=", f"{argument}=", 1)) from error
        for name, each in self.explanations.items():
            if each.target.index == number:
                return name
        raise UnknownClassError(
            f"{argument}={self.model.classes[number]!r} isn't among the classes that are explained here: "
            f"{', '.join(self.explanations)}"
        )
