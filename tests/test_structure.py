"""The project's structure: data flows one way, packages are declared, names hide nothing, heavy imports stay out."""

import ast
import pathlib
import subprocess
import sys
import tomllib

from tested_by import TESTED_BY

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Floors, from the ground up: a module imports from its own floor and from those before it, inside functions too.
FLOORS = (
    "support", "linalg", "blocks",
    "nmf.shapes", "nmf.steps", "nmf.checkpoint", "nmf.results", "nmf.divergence", "nmf.objective",
    "nmf.beta_divergence", "nmf.misfit_steps", "nmf.solution", "nmf.history", "nmf.validate", "nmf.observed",
    "nmf.memory_needs",
    "nmf.matching", "nmf.nnls", "nmf.divergence_codes", "nmf.magnitude", "nmf.derivative", "nmf.terms", "nmf.solvers",
    "nmf.options", "nmf.settings", "nmf.vector_products", "nmf.code_stores", "nmf.encode_in_blocks", "nmf.out_of_core",
    "nmf.sparse_starts", "nmf.stored_derivative", "nmf.sparse", "nmf.stored_entries", "nmf.stored_steps",
    "nmf.stored_codes", "nmf.stored_misfit", "nmf.encoding",
    "nmf.factorization", "nmf.stacked_problems", "nmf.many", "nmf.kept_parts",
    "nmf.rank_choice_in_blocks", "nmf.rank_choice", "nmf",
    "layer", "sklearn",
    "pictures", "outputs", "heads", "model", "signs", "activation_checks", "activations",
    "importance", "attribution", "metrics", "faithfulness", "methods",
    "explanation", "pipeline", "evaluation", "recursion", "sanity", "action", "report", "study",
    "bridges", "cli", "__main__",
)  # fmt: skip
HEAVY = ("torch", "torchvision", "matplotlib", "sklearn", "PIL", "jinja2", "typer", "tensorflow", "captum")


def _modules(folders: dict[str, pathlib.Path]) -> dict[str, pathlib.Path]:
    """The file of every module and package below these folders, by its name below `face_jax`."""
    found = {}
    for below, folder in folders.items():
        for file in sorted(folder.rglob("*.py")):
            parts = [part for part in (below, *file.relative_to(folder).with_suffix("").parts) if part]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = _modules({"": ROOT / "face_jax", "bridges": ROOT / "bridges"})


def _imports(name: str, modules: dict[str, pathlib.Path]) -> set[str]:
    """The modules of face_jax that a module imports, wherever in it: inside functions and for type checks too."""
    file = modules[name]
    package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["face_jax", *package[: len(package) + 1 - node.level]] if node.level else []
            names = [".".join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names]
        else:
            continue
        for imported in names:
            if imported.split(".")[0] == "face_jax":
                below = imported.removeprefix("face_jax").lstrip(".")
                # What isn't a module is a name out of one.
                found.add(below if below in modules else below.rpartition(".")[0])
    return found


def _floor(name: str) -> int:
    """A module's floor: the longest name in `FLOORS` that it begins with."""
    fitting = [floor for floor in FLOORS if name == floor or name.startswith(f"{floor}.")]
    assert fitting, f"put {name} on its floor in FLOORS"
    return FLOORS.index(max(fitting, key=len))


def _upstream(modules: dict[str, pathlib.Path]) -> list[str]:
    """Imports of what comes later, each as a sentence."""
    wrong = []
    for name in filter(None, modules):
        for imported in sorted(_imports(name, modules)):
            later = not imported or _floor(imported) > _floor(name)
            if later and not (modules[name].stem == "__init__" and imported.startswith(f"{name}.")):
                wrong.append(f"{name} imports {imported or 'face_jax'}")
    return wrong


def _circles(modules: dict[str, pathlib.Path]) -> list[list[str]]:
    """Modules that import each other, directly or by way of others."""
    open_, done, found = [], set(), []

    def follow(name: str) -> None:
        if name in open_:
            found.append([*open_[open_.index(name) :], name])
        elif name not in done:
            open_.append(name)
            for imported in sorted(_imports(name, modules)):
                follow(imported)
            done.add(open_.pop())

    for name in modules:
        follow(name)
    return found


def _hidden(modules: dict[str, pathlib.Path]) -> list[str]:
    """Modules that can't be reached by their name, because their package exports something else under it."""
    found = []
    for name, file in modules.items():
        if file.stem != "__init__":
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [alias.asname or alias.name for alias in node.names]
                found += [below for one in names if (below := f"{name}.{one}".lstrip(".")) in modules]
    return found


def test_imports_flow_one_way():
    assert not _upstream(MODULES)


def test_no_modules_import_each_other():
    assert not _circles(MODULES)


def test_no_module_is_hidden_behind_a_name_that_its_package_exports():
    assert not _hidden(MODULES)


def test_these_tests_can_fail(tmp_path):
    (tmp_path / "nmf").mkdir()
    for name, text in {
        "__init__": "from .model import sklearn\n",
        "nmf/__init__": "",
        "nmf/objective": "def late():\n    from ..report import page\n\nfrom . import results",
        "nmf/results": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .objective import Objective\n",
        "report": "",
        "model": "",
        "sklearn": "import numpy\nfrom face_jax import explain\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    modules = _modules({"": tmp_path})
    assert _upstream(modules) == [
        "nmf.objective imports report",
        "nmf.results imports nmf.objective",
        "sklearn imports face_jax",
    ]
    assert ["nmf.objective", "nmf.results", "nmf.objective"] in _circles(modules)
    assert _hidden(modules) == ["sklearn"]


def _tested_by(name: str) -> str | None:
    """The test file of a module: its own, or that of the longest name in `TESTED_BY` that it begins with."""
    *package, module = name.split(".")
    own = "/".join([*package, f"test_{module}.py"])
    if (ROOT / "tests" / own).exists():
        return own
    fitting = [key for key in TESTED_BY if name == key or (key.endswith(".") and name.startswith(key))]
    return TESTED_BY[max(fitting, key=len)] if fitting else None


def test_every_module_has_its_tests():
    modules = [name for name, file in MODULES.items() if not file.stem.startswith("__")]
    tested = {name: _tested_by(name) for name in modules}
    assert [name for name, by in tested.items() if by is None] == []
    assert [by for by in TESTED_BY.values() if not (ROOT / "tests" / by).exists()] == []
    # No entry is left of a module that has gone, or that has a file of its own by now.
    unused = [
        key
        for key in TESTED_BY
        if not any(name == key or (key.endswith(".") and name.startswith(key)) for name in modules)
        or (ROOT / "tests" / "/".join([*key.split(".")[:-1], f"test_{key.split('.')[-1]}.py"])).exists()
    ]
    assert unused == []


def test_every_package_is_declared():
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {f"face_jax.{name}".rstrip(".") for name, file in MODULES.items() if file.stem == "__init__"}
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
