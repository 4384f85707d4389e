"""Some of scikit-learn's own tests, as a process of its own; the whole run is in docs/howto/scikit-learn-tests.md."""

import pathlib
import subprocess
import sys

import pytest
from compiling import compiled_as_here

pytest.importorskip("sklearn", reason="scikit-learn is optional")
# What `test_sklearn.py` tries with `NMF` as well, names of features and more components than those, is left out.
SOME = (
    "test_parameter_checking", "(test_n_components_greater_n_features and MiniBatchNMF)",
    "test_nmf_custom_init_dtype_error", "test_nmf_n_components_auto", "test_nmf_w_h_not_used_warning",
    "test_nmf_custom_init_shape_error", "test_non_negative_factorization_checking",
)  # fmt: skip


def test_some_of_scikit_learns_own_tests_pass():
    script = pathlib.Path(__file__).with_name("sklearn_parity.py")
    command = [sys.executable, str(script), " or ".join(SOME)]
    done = subprocess.run(command, capture_output=True, text=True, env=compiled_as_here())
    assert done.returncode == 0, done.stdout[-3000:]
    assert " pass (100.0%)" in done.stdout
