"""The docs: blocks of Python run, commands can be parsed, public names are in the reference, pages are linked."""

import ast
import builtins
import dataclasses
import inspect
import pathlib
import re
import shlex
import tomllib

import jax
import numpy as np
import pytest
from PIL import Image
from toy_model import pictures

import face_jax as fj

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = [
    (page, " ".join(line.split()))
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    for block in re.findall(r"^```bash\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"(\S*/)?face-jax ", line)
]


def network():
    """A torch classifier of colours, red, green and blue, in which they are the first three channels."""
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    from torch import nn

    conv, last = nn.Conv2d(3, 12, 4, stride=4), nn.Linear(12, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        conv.weight.copy_(0.15 * torch.randn(conv.weight.shape, generator=generator))
        last.weight.copy_(0.05 * torch.randn(last.weight.shape, generator=generator))
        conv.bias.zero_()
        last.bias.zero_()
        conv.weight[:3] = torch.eye(3)[:, :, None, None] / 16
        last.weight[:, :3] = 8 * torch.eye(3)
    named = {"conv": conv, "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": last}
    found = nn.Sequential()
    for name, module in named.items():
        found.add_module(name, module)
    return found.eval()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_of_python_runs(page, tmp_path, monkeypatch):
    """In the order of the page; `network`, a folder `photos`, `labels.csv` and, where it's read, `clip` are there."""
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(np.concatenate([pictures(8, colour) for colour in (0, 1)])):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    lines = ["file,label,group"] + [f"{number}.png,{'red' if number < 8 else 'green'},all" for number in range(16)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    if 'load_text_image("clip")' in page.read_text():
        pytest.importorskip("transformers", reason="transformers isn't installed")
        from small_clip import write_clip

        write_clip(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    names = {"network": network(), "__name__": "docs"}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        tree = ast.parse(block[1])
        ast.increment_lineno(tree, line)
        exec(compile(tree, str(page), "exec"), names)


def test_no_code_stands_outside_of_the_blocks_that_are_tried():
    """Indented lines are code blocks, too, which nothing runs; formulas may stand in these."""
    for page in (ROOT / "README.md", *DOCS.rglob("*.md")):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert not re.findall(r"^    .*(?:\bfj\.|face-jax|pip install|import ).*$", prose, re.MULTILINE), page


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page.name}: {line}" for page, line in COMMANDS])
def test_every_command_is_one_of_the_command_line(page, line):
    """Its parser takes the options as they are written; nothing is run."""
    typer = pytest.importorskip("typer", reason="the command isn't installed")
    from face_jax.cli.app import app

    _, name, *words = shlex.split(line, comments=True)
    typer.main.get_command(app).commands[name].make_context(name, words)


def test_many_commands_are_tried_and_a_wrong_one_is_refused():
    assert len(COMMANDS) >= 17
    with pytest.raises(Exception, match="No such option: --photographs"):
        test_every_command_is_one_of_the_command_line(None, "face-jax explain --photographs photos/")


class Resolved(ast.NodeVisitor):
    """Whether names, attributes and arguments in a program are there, as far as that is known without running it."""

    def __init__(self, names, classes):
        self.names, self.classes = dict(names), classes
        self.defined = {*dir(builtins), *names, *classes}
        self.tried = []

    def visit_Import(self, node):
        self._imported(node)

    def visit_ImportFrom(self, node):
        self._imported(node)

    def _imported(self, node):
        exec(compile(ast.Module([node], []), "README.md", "exec"), self.names)
        self.defined |= set(self.names)

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        self.defined.add(node.name)

    def visit_FunctionDef(self, node):
        self.defined |= {argument.arg for argument in node.args.args}
        self.generic_visit(node)

    def visit_Assign(self, node):
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Store):
            self.defined.add(node.id)
        assert node.id in self.defined, f"line {node.lineno}: nothing is called {node.id}"

    def visit_Attribute(self, node):
        self.generic_visit(node)
        self.thing(node)

    def visit_Call(self, node):
        self.generic_visit(node)
        function = self.thing(node.func)
        if callable(function) and not any(word.arg is None for word in node.keywords):
            try:
                signature = inspect.signature(function)
            except ValueError:  # written in C++
                return
            signature.bind(*node.args, **{word.arg: word.value for word in node.keywords if word.arg})
            self.tried.append(ast.unparse(node.func))

    def thing(self, node):
        """What a name or an attribute is; None if only a run would tell."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and node.value.id in self.classes:
            kind = self.classes[node.value.id]
            fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
            assert hasattr(kind, node.attr) or node.attr in fields, (
                f"line {node.lineno}: no {kind.__name__}.{node.attr}"  # pyright: ignore[reportAttributeAccessIssue]
            )
            method = getattr(kind, node.attr, None)
            # Of an instance, which stands in the first argument's place.
            return method.__get__(object()) if inspect.isfunction(method) else None
        inside = self.thing(node.value)
        return None if inside is None else getattr(inside, node.attr)


def readme_resolved(program):
    bridges = pytest.importorskip("face_jax.bridges")
    pytest.importorskip("torch", reason="torch isn't installed")
    classes = {
        "explanation": fj.Explanation, "solution": fj.Solution, "model": fj.SplitModel, "loaded": bridges.LoadedModel,
        "found": inspect.get_annotations(fj.compare_methods, eval_str=True)["return"],
    }  # fmt: skip
    names = dict.fromkeys(("activations", "more_activations")) | {"jax": jax, "np": np, "dataclasses": dataclasses}
    seen = Resolved(names, classes)
    seen.visit(ast.parse(program))
    return seen.tried


def test_the_readmes_python_names_what_is_there():
    """It isn't run, as it takes weights and photographs that are downloaded."""
    tried = readme_resolved("".join(BLOCK.findall((ROOT / "README.md").read_text())))
    assert {"bridges.load", "loaded.split", "fj.explain", "explanation.maps", "fj.compare_methods"} <= set(tried)


@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        ("import face_jax as fj\nfj.explains()", AttributeError, "explains"),
        ("import face_jax as fj\nfj.explain(model, 'a', target='b', ranks=3)", TypeError, "ranks"),
        ("explanation.masks('a')", AssertionError, "no Explanation.masks"),
        ("fj.explain(photos)", AssertionError, "nothing is called fj"),
    ],
)
def test_what_the_readme_must_not_say_is_found(program, error, said):
    with pytest.raises(error, match=said):
        readme_resolved(program)


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


def test_every_picture_of_the_gallery_is_shown():
    listed = set(re.findall(r"\]\((gallery/\S+)\)", (DOCS / "gallery.md").read_text()))
    assert listed == {f"gallery/{file.name}" for file in (DOCS / "gallery").iterdir()}


def test_links_between_files_of_the_repository_lead_somewhere():
    files = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    links = [
        (file.name, link)
        for file in files
        for link in re.findall(r"\]\((?![a-z]+:|#)([^()#\s]+)", file.read_text(encoding="utf-8"))
    ]
    assert ("papers.md", "papers-rank.png") in links
    assert [
        each for each in links if not (ROOT / each[1]).exists() and not (ROOT / "benchmarks" / each[1]).exists()
    ] == []


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert version == project["version"]
