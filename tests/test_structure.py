"""What holds the project together: imports flow one way, packages are declared, heavy imports stay out."""

import ast
import pathlib
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Downstream of each module is everything later in the list: a module imports earlier ones only.
STREAM = (
    "reprs", "sentences", "choices", "scaling", "memory", "classes", "interrupts", "progress", "progress_line",
    "placing", "randomness", "cache", "compilations", "freed_memory", "decoding", "image_arrays", "items", "resizing",
    "photographs", "preprocess", "crops", "reading", "model", "activations",
    "factorize", "layer", "heads", "concepts", "importance", "attribution", "metrics", "faithfulness", "selection",
    "fitting", "ranking", "controls", "account", "sub_concepts", "explanation", "sanity", "earlier",
    "recursion", "saving", "saved_checks", "saved_arrays", "saved_files", "loading", "report", "study", "explain",
    "embedded", "sklearn", "bridges", "words", "terminal", "cli",
)  # fmt: skip
HEAVY = ("torch", "torchvision", "matplotlib", "sklearn", "PIL", "jinja2", "typer", "tensorflow", "captum")


def _imports(file: pathlib.Path, package: tuple[str, ...], top_level_only: bool) -> set[str]:
    """The parts of face_jax that a file imports, by their name in the stream."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("face_jax", *package)[: len(package) + 2 - node.level]
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("face_jax.")}
    return found


def _modules() -> list[tuple[str, tuple[str, ...], pathlib.Path]]:
    """(place in the stream, package below face_jax, file) of every module."""
    found = []
    for root, below in ((ROOT / "face_jax", ()), (ROOT / "bridges", ("bridges",))):
        for file in sorted(root.rglob("*.py")):
            package = (*below, *file.relative_to(root).parts[:-1])
            found.append(((*package, file.stem)[0], package, file))
    return found


@pytest.mark.parametrize(
    ("place", "package", "file"), _modules(), ids=lambda value: value.name if isinstance(value, pathlib.Path) else ""
)
def test_imports_flow_one_way(place, package, file):
    if place == "__init__":
        return
    assert place in STREAM, f"{file.name}: put {place!r} in its place in the stream"
    # What a module imports inside a function is its user's choice at run time; saving and drawing are such.
    imported = _imports(file, package, top_level_only=True) & set(STREAM)
    later = {name for name in imported if STREAM.index(name) > STREAM.index(place)}
    assert not later, f"{file.name} imports downstream: {later}"


def test_the_one_way_test_can_fail(tmp_path):
    file = tmp_path / "model.py"
    file.write_text("from .explain import explain\nfrom face_jax import report\n")
    assert _imports(file, (), top_level_only=True) == {"explain", "report"}


def test_every_package_is_declared():
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {".".join(["face_jax", *package]) for _, package, _ in _modules()}
    assert declared == present


def _loaded(statement: str, folder: pathlib.Path) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    return set(done.stdout.split())


def test_importing_the_library_imports_nothing_heavy(tmp_path):
    assert not _loaded("import face_jax, face_jax.bridges", tmp_path) & set(HEAVY)


def test_the_heavy_import_test_can_fail(tmp_path):
    assert "PIL" in _loaded("import face_jax, PIL.Image", tmp_path)


def test_the_bridges_have_one_name_only(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import bridges"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "No module named 'bridges'" in done.stderr
