"""``dnreid doctor``: a report that names what is missing, and says why pip check complains."""

from __future__ import annotations

import importlib.metadata
import runpy
import sys
from pathlib import Path

import pytest

from dnreid_plugins.engine import doctor

VERSION, REQUIRES = importlib.metadata.version, importlib.metadata.requires


def test_the_command_reports(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["dnreid_plugins", "doctor"])
    runpy.run_module(
        "dnreid_plugins", run_name="__main__", alter_sys=False
    )  # would exit where it is not well
    text = capsys.readouterr().out
    assert "0 not met" in text and "Everything that a run needs is installed." in text and "!!" not in text
    assert f"fast-reid {VERSION('fastreid')}, installed with --no-deps; pip check complains" in text
    assert "torch ==1.13.1 is required" in text and "faiss" in text and "CPU:" in text


@pytest.mark.parametrize(
    ("name", "found", "line"),
    [
        ("fastreid", None, "!! fast-reid is not installed; run: pip install --no-deps fastreid==1.4.0"),
        ("fastreid", "1.3.0", "!! fast-reid is 1.3.0, the plug-ins are for 1.4.0"),
        ("numba", None, "!! numba >=0.61 is required and not installed; run: pip install --upgrade numba"),
        ("scipy", "1.2", "!! scipy >=1.13.1 is required, 1.2 is installed"),
        ("dnreid_plugins", None, "!! dnreid_plugins is not installed, only on the path"),
    ],
)
def test_what_is_missing_is_named(
    name: str, found: str | None, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(asked: str) -> str:
        if asked == name and found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found if asked == name and found is not None else VERSION(asked)

    def requires(asked: str) -> list[str] | None:
        version(asked)
        return REQUIRES(asked)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", requires)
    text, well = doctor.examine()
    assert line in text and not well and "Something is missing" in text


def test_a_library_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    text, well = doctor.examine()
    assert "!! faiss cannot be imported: ModuleNotFoundError" in text and not well


def test_the_data_root_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dn348").mkdir()
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    assert f"FASTREID_DATASETS is {tmp_path} (dn348)" in doctor.examine()[0]
