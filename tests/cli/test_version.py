"""The command says its version, under both of its names."""

import importlib.metadata
import runpy
import sys

import pytest

pytest.importorskip("typer", reason="the command isn't installed")


def test_the_version_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["face-jax", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("face_jax", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"face-jax {importlib.metadata.version('face-jax')}\n"
