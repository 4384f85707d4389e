"""What a compiled program sends between devices, read off its text."""

import math
import re
from typing import NamedTuple

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


class Operation(NamedTuple):
    """An operation of a compiled program: what it's called, what it needs, which computations it runs."""

    name: str
    kind: str
    needs: list[str]
    runs: list[str]


_RUNS = re.compile(r"(?:body|condition|true_computation|false_computation|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_BESIDE = ("while", "conditional", "call")


def computations(text: str) -> dict[str, list[Operation]]:
    """The operations of each of a compiled program's computations, in the order in which they are begun."""
    found: dict[str, list[Operation]] = {}
    now: list[Operation] = []
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            now = found.setdefault(head[1], [])
        elif operation := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            kind = re.search(r"(?:^|\s)([a-z][\w\-]*)\(", operation[2])
            given, _, rest = operation[2][kind.end() :].partition("), ")
            runs = _RUNS.findall(rest) + [
                x for names in _BRANCHES.findall(rest) for x in re.findall(r"[\w.\-]+", names)
            ]
            now.append(Operation(operation[1], kind[1], re.findall(r"%([\w.\-]+)", given), runs))
    return found


def beside(text: str) -> list[tuple[str, str]]:
    """Loops and branches that send something, each with what else is sent later but doesn't need their result."""
    parts = computations(text)

    def sends(operation: Operation) -> bool:
        kind = operation.kind.removesuffix("-start")
        nested = (x for name in operation.runs for x in parts.get(name, []))
        return bool(_LINE.search(f"= x {kind}(")) or (kind in _BESIDE and any(map(sends, nested)))

    found = []
    for operations in parts.values():
        known: dict[str, set[str]] = {}
        earlier: list[Operation] = []
        for operation in operations:
            known[operation.name] = set(operation.needs).union(*(known.get(name, ()) for name in operation.needs))
            if not sends(operation):
                continue
            found += [(x.name, operation.name) for x in earlier if x.name not in known[operation.name]]
            if operation.kind in _BESIDE:
                earlier.append(operation)
    return found
