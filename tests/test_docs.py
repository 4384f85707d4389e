"""The docs: every block of Python runs, every public name is in the reference, every page is in the navigation."""

import ast
import inspect
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from toy_model import pictures

import face_jax as fj

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def network():
    """A torch classifier of colours, red, green and blue, in which they are the first three channels."""
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    from torch import nn

    conv, last = nn.Conv2d(3, 12, 4, stride=4), nn.Linear(12, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        conv.weight.copy_(0.15 * torch.randn(conv.weight.shape, generator=generator))
        last.weight.copy_(0.05 * torch.randn(last.weight.shape, generator=generator))
        conv.bias.zero_(), last.bias.zero_()
        conv.weight[:3] = torch.eye(3)[:, :, None, None] / 16
        last.weight[:, :3] = 8 * torch.eye(3)
    named = {"conv": conv, "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": last}
    found = nn.Sequential()
    for name, module in named.items():
        found.add_module(name, module)
    return found.eval()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_of_python_runs(page, tmp_path, monkeypatch):
    """In the order of the page; `network`, a folder `photos` and `labels.csv` are there."""
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(np.concatenate([pictures(8, colour) for colour in (0, 1)])):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    lines = ["file,label,group"] + [f"{number}.png,{'red' if number < 8 else 'green'},all" for number in range(16)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    names = {"network": network(), "__name__": "docs"}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        tree = ast.parse(block[1])
        ast.increment_lineno(tree, line)
        exec(compile(tree, str(page), "exec"), names)


def test_every_public_name_is_in_the_reference():
    packages = [fj, fj.attribution, fj.evaluation, fj.heads, fj.importance, fj.methods, fj.metrics, fj.study]
    try:
        from face_jax import bridges

        packages.append(bridges)
    except ImportError:
        pass
    shown = set(re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in DOCS.rglob("*.md")), re.MULTILINE))
    wanted = {
        f"{package.__name__}.{name}": thing
        for package in packages
        for name, thing in ((name, getattr(package, name)) for name in dir(package))
        if name[0] != "_" and not inspect.ismodule(thing)
    }
    # Under `face_jax` itself, or in the package that it is of.
    elsewhere = {id(thing) for name, thing in wanted.items() if name in shown}
    missing = [
        name
        for name, thing in wanted.items()
        if name not in shown
        and id(thing) not in elsewhere
        and getattr(thing, "__module__", "face_jax").startswith("face_jax")
    ]
    assert not missing
    elsewhere = {
        "face_jax.layer": ("Encode", "Factorize"),
        "face_jax.sklearn": ("NMF", "MiniBatchNMF", "non_negative_factorization"),
    }
    known = set(wanted) | {f"{module}.{name}" for module, names in elsewhere.items() for name in names}
    assert not shown - known


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
