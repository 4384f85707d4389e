"""Without the packages of the extras: the core works, and whatever needs one says how that is installed."""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from compiling import compiled_as_here

from face_jax.support.extras import installing

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# What a package is imported as, where that isn't its name.
IMPORTED = {"pillow": "PIL", "scikit-learn": "sklearn", "scikit-image": "skimage", "orbax-checkpoint": "orbax"}
# Flax, which the core needs, can't do without the first; extras name the second with another extra.
ALWAYS_THERE = {"rich", "face_jax"}

HIDE = """
import json, pathlib, sys, warnings
warnings.simplefilter("ignore")

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

sys.meta_path.insert(0, Hidden())
sys.path.insert(0, TESTS)

def message(extra, call):
    try:
        call()
    except (ImportError, SystemExit) as error:
        said[extra] = str(error)

said = {}
"""

CORE = """
import numpy as np
import face_jax as fj
from face_jax import bridges
from toy_model import colour_model, pictures

model = colour_model()
images = np.concatenate([pictures(6, colour)[:, 8:24, 8:24] for colour in (0, 1)])
crops = fj.NativeCrops(model.preprocess, size=8)
explain = lambda **more: fj.explain(model, images, target="reddish", rank=3, faithfulness=None, **more)
explanation = explain(crops=crops)
fj.save(explanation, "saved")
loaded = fj.load("saved", model)
encoded = [np.asarray(each.encode(images[:2])) for each in (explanation, loaded)]
assert np.array_equal(*encoded) and encoded[0].max() > 0

def command():
    import face_jax.cli.app

def estimator():
    import face_jax.sklearn

def photograph():
    from face_jax.cli.demo_photograph import embedded_photograph
    embedded_photograph("coffee")

message("torch", lambda: bridges.split)
pathlib.Path("rows.zarr").mkdir()
message("zarr", lambda: fj.factorize("rows.zarr", 2))
message("checkpoint", lambda: fj.factorize(images[0, :, :, 0] / 255, 2, checkpoint="kept"))
message("report", lambda: fj.write_report(explanation, "report"))
message("pillow", explain)
message("sklearn", estimator)
message("methods", lambda: fj.methods.PCA().fit(images / 255, 2, 0))
message("cli", command)
message("demo", photograph)
print(json.dumps(said))
"""

LIBRARIES = """
from face_jax import bridges
message("timm", lambda: bridges.load("timm/resnet18"))
message("transformers", lambda: bridges.load("hf/google/vit-base-patch16-224"))
print(json.dumps(said))
"""


def _said(tmp_path, program, extras):
    """What the program's last line says where the packages of these extras can't be imported."""
    names = {re.match(r"[\w-]+", requirement)[0] for extra in extras for requirement in EXTRAS[extra]}
    hidden = {IMPORTED.get(name, name.replace("-", "_")) for name in names} - ALWAYS_THERE
    settings = f"HIDDEN, TESTS = {hidden!r}, {str(ROOT / 'tests')!r}"
    done = subprocess.run(
        [sys.executable, "-c", settings + HIDE + program], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=compiled_as_here(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_core_needs_no_extra_and_what_does_says_which(tmp_path):
    said = _said(tmp_path, CORE, EXTRAS)
    assert said.pop("zarr").endswith("pip install zarr")
    assert said.pop("pillow").endswith(f"resizing pictures needs Pillow; {installing('report')}")
    assert set(said) == set(EXTRAS) - {"zarr", "timm", "transformers"}
    for extra, message in said.items():
        assert re.search(r"need(s|) \w", message), message
        assert message.endswith(installing(extra)), message


def test_models_of_other_libraries_say_which_extra_they_need(tmp_path):
    pytest.importorskip("torch", reason="torch isn't installed")
    for extra, message in _said(tmp_path, LIBRARIES, ["timm", "transformers"]).items():
        assert message.endswith(installing(extra)), message


def test_no_page_or_message_installs_the_name_from_an_index():
    """Nothing is published under it: somebody else's package could be."""
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    for folder in ("face_jax", "bridges", "docs", "examples", "notebooks", "benchmarks", "tests"):
        pages += [
            page for page in (ROOT / folder).rglob("*") if page.suffix in (".py", ".md", ".html", ".sh", ".ipynb")
        ]
    index = re.compile(r"pip install [\\'\"]*face.jax")
    assert index.search("pip install " + "'face-jax[torch]'")
    assert [str(page) for page in pages if index.search(page.read_text(encoding="utf-8"))] == []
