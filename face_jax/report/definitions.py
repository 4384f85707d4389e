"""What each number means, in words: one place for all pages."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Definition:
    """One kind of number: its name, what it says, and what would be suspicious, if anything."""

    name: str
    meaning: str
    suspicious: str


# Long because it's a table: one entry for each number that a page shows.
def definitions(*, exclusive: bool) -> dict[str, Definition]:
    """Every number that tables show, by its name in `BankScore.table()` or `Comparison.table()`.

    **Arguments:**

    - `exclusive`: whether each picture is of one class; else of several labels.
    """
    noun = "class" if exclusive else "label"
    return {
        "relative_error": Definition(
            "Relative squared error",
            "How much of the activations (their sum of squares) the concepts leave out, on held-out pictures.",
            "Near 1: the concepts describe hardly anything.",
        ),
        "kl": Definition(
            "KL divergence",
            "How far the predictions move when activations are rebuilt from concepts"
            f"{'' if exclusive else ', summed over the labels'}.",
            "A control in the table that comes as near: concepts that mean nothing are enough for it.",
        ),
        "l1": Definition(
            "L1 distance",
            "The same as a distance between probabilities: twice the most by which the probability of any "
            f"{'set of classes' if exclusive else 'one of the labels'} changes, on average.",
            "Close to 2: the rebuilt predictions have nothing in common with the original ones.",
        ),
        "accuracy": Definition(
            "Accuracy",
            f"Held-out pictures for which this {noun} is predicted from activations rebuilt from concepts.",
            "A control in the table with the same share: concepts that mean nothing are enough for it.",
        ),
        "agreement": Definition(
            "Agreement",
            "Held-out pictures whose predicted class survives the rebuilding."
            if exclusive
            else "Share of the labels that stay predicted, or not, in held-out pictures.",
            "Below 90 %: on the rest, the explanation is of a different classifier.",
        ),
        "c_insertion": Definition(
            "C-Ins (insertion)",
            "Area under the insertion curve: concepts are put in one by one, the most important first.",
            "A control in the table with the same score: the curve doesn't show that anything was learned.",
        ),
        "c_deletion": Definition(
            "C-Del (deletion)",
            "Mean loss of accuracy while concepts are taken out one by one, the most important first.",
            "A control with the same score, or a class that is predicted from no activations at all.",
        ),
        "c_gini": Definition(
            "C-Gini (sparsity)",
            "How unequally importance is shared; high means that few concepts decide. That indices are squares "
            "makes it high by itself.",
            "A value at its ceiling: one concept stands for the whole class, the others for nothing.",
        ),
        "stability_over_folds": Definition(
            "Stability over folds",
            "How alike the concepts of fits without each of the folds are: mean cosine, matched one to one. The floor, "
            "in brackets, is the same of pictures drawn at random as concepts.",
            "Near the floor: other pictures give other concepts.",
        ),
        "stability_over_starts": Definition(
            "Stability over starts",
            "The same of fits of the same pictures from other starts (with other keys).",
            "Near the floor: what is found depends on the draw.",
        ),
        "accuracy_of_nothing": Definition(
            "Accuracy at U = 0",
            f"Held-out pictures for which this {noun} is predicted when all codes are zero: where insertion begins and "
            "deletion ends. A method with an offset, such as PCA's mean, has the offset there.",
            "Above 0: insertion is high, and deletion low, whatever the concepts are.",
        ),
        "surrogate_from_offset_mae": Definition(
            "SURF",
            "How far the logits are from what the concepts' presence, weighed and added up, makes of them (mean "
            "absolute error); in brackets the same with random concepts.",
            "As high as with random concepts: what is added up isn't what the classifier does.",
        ),
        "non_zero_codes": Definition(
            "Codes not 0",
            "The share of all codes that aren't zero: how many concepts describe a picture, of all.",
            "100 %: no picture is described by few concepts.",
        ),
        "seconds": Definition(
            "Seconds",
            "How long a fit took on the machine where it ran, with compiling where something was compiled.",
            "",
        ),
    }
