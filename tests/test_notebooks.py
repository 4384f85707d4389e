"""Notebooks are committed without output, and run from the first cell to the last."""

import os
import pathlib
from typing import Any

import jax
import nbformat
import pytest
from compiling import QUICKLY
from nbclient import NotebookClient

NOTEBOOKS = sorted((pathlib.Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_output(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One process for all of them: imports, and what the embedded network compiles to, are the same."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded classifier isn't installed")
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("kernel"))}}
    # Seconds, for a machine that has much else to do.
    patience: dict[str, Any] = {"timeout": 3600, "startup_timeout": 600}
    client = NotebookClient(nbformat.v4.new_notebook(), **patience, kernel_name="python3", resources=resources)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.values["jax_compilation_cache_dir"])
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("XLA_FLAGS", f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}")
        with client.setup_kernel():
            yield client


# The kernel's sockets are closed by the garbage collector, after the test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, kernel):
    notebook = nbformat.read(path, as_version=4)
    # No name and no file of the notebook before is there.
    anew = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {tmp_path}")
    kernel.nb = notebook
    notebook.cells = [anew, *notebook.cells]
    for number, cell in enumerate(notebook.cells):
        kernel.execute_cell(cell, number)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
