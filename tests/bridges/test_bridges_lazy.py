"""torch stays optional: importing the bridges imports no framework, and without torch the error says what to do."""

import subprocess
import sys
import textwrap

import pytest

HEAVY = ("torch", "torchvision", "captum", "tensorflow", "matplotlib", "sklearn", "scipy.stats")

REPORT = """
import sys
print(*[name for name in {heavy!r} if name in sys.modules])
"""

HIDE_TORCH = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

sys.meta_path.insert(0, Hidden())
"""


def run(program, cwd):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What is loaded of the heavy ones after each of these statements, one after another in one process."""
    statements = ("import face_jax", "import face_jax.bridges as bridges", "dir(bridges)", "bridges.split")
    report = REPORT.format(heavy=HEAVY)
    program = "import warnings; warnings.simplefilter('ignore')" + "".join(f"\n{one}{report}" for one in statements)
    done = run(program, tmp_path_factory.mktemp("lazy"))
    assert done.returncode == 0, done.stderr
    return dict(zip(statements, (line.split() for line in done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("statement", ["import face_jax", "import face_jax.bridges as bridges", "dir(bridges)"])
def test_import_brings_no_framework(imported, statement):
    assert imported[statement] == []


def test_this_test_can_fail(imported):
    assert "torch" in imported["bridges.split"]


def test_without_torch_the_package_still_imports_and_the_error_says_what_to_install(tmp_path):
    program = HIDE_TORCH + "import warnings; warnings.simplefilter('ignore')\nimport face_jax\n"
    done = run(program + "from face_jax import bridges\nprint('imported')\nbridges.split", tmp_path)
    assert done.stdout.split() == ["imported"]
    assert done.returncode != 0
    assert "face_jax.bridges.split needs torch, which is not installed; in the folder of" in done.stderr
    assert "repository: pip install '.[torch]'" in done.stderr


def test_every_public_name_is_there():
    from face_jax import bridges

    for name in dir(bridges):
        if name != "to_flax":  # has tests of its own
            assert callable(getattr(bridges, name)), name


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    import pathlib

    from face_jax import bridges

    modules = {path.stem for path in pathlib.Path(bridges.__file__).parent.iterdir()}
    assert not modules & set(dir(bridges))


def test_unknown_name_is_an_attribute_error():
    from face_jax import bridges

    with pytest.raises(AttributeError, match="no attribute 'splt'"):
        _ = bridges.splt
