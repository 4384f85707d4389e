"""What a compiled program sends between devices, read off its text."""

import math
import re

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_LINE = re.compile(
    r"= (?P<shapes>[^=]*?) (?P<kind>all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    r"|collective-broadcast|ragged-all-to-all)(-start)?\("
)
_SHAPE = re.compile(r"(?P<dtype>[a-z]+[0-9]*)\[(?P<sizes>[0-9,]*)\]")


def collectives(text: str) -> list[tuple[str, int]]:
    """Kind and bytes of each operation between devices, as often as it stands in a compiled program's text."""
    found = []
    # Comments count long tuples' parts.
    for line in _LINE.finditer(re.sub(r"/\*.*?\*/", "", text)):
        shapes = _SHAPE.finditer(line["shapes"])
        sizes = [_BYTES[shape["dtype"]] * math.prod(int(n) for n in shape["sizes"].split(",") if n) for shape in shapes]
        found.append((line["kind"], sum(sizes)))
    return sorted(found)
