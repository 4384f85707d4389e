"""Shapes of the arrays that everything here is about; `CodesT`, concepts first, is what solvers work on."""

from jaxtyping import Array, Bool, Float

Activations = Float[Array, "row channel"]
Codes = Float[Array, "row concept"]
CodesT = Float[Array, "concept row"]
Dictionary = Float[Array, "concept channel"]
Factors = tuple[Codes, Dictionary]
FactorsT = tuple[CodesT, Dictionary]
Masks = tuple[Bool[Array, "row concept"], Bool[Array, "concept channel"]]
Gram = Float[Array, "concept concept"]
# One matrix for all columns, or one for each (with weighted entries), the columns last.
Columns = Float[Array, "concept item"]
Grams = Gram | Float[Array, "concept concept item"]
Number = Float[Array, ""]
Scalar = float | Number
