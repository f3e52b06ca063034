"""The command line of the table tool: what it asks for, where it writes, and how it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ablation
import pytest

from dnreid_plugins.report import runs
from dnreid_plugins.report import store as stored

TABLES = """
t:
  title: "A table"
  rows:
    - {name: One, config: one.yml}
    - {name: Two, config: two.yml}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose runs finish at once; Rank-1 is their data seed, mAP the number of their words."""
    folder = tmp_path / "projects" / "P"
    folder.mkdir(parents=True)
    (folder / "tables.yml").write_text(TABLES)
    (folder / "one.yml").write_text("DATASETS: {TESTS: [DNMini]}\nCLUSTER: {K1: 12}\n")
    (folder / "two.yml").write_text("_BASE_: one.yml\nCLUSTER: {EPS: 0.3}\n")
    (folder / "protocol.yml").write_text("_BASE_: one.yml\nCLUSTER: {K1: 15}\n")

    def run(command: list[str], **_: Any) -> Any:
        words = dict(zip(command[7::2], command[8::2], strict=True))
        figures = {"Rank-1": float(words["DATASETS.DNMINI_SEED"]), "mAP": float(len(words))}
        blocks = {"DNMini": dict.fromkeys(("D2N", "N2D"), figures)}
        content = {
            **blocks,
            "start": blocks,
            "finished": True,
            "code_version": stored.code_version(),
            "data": {},
        }
        (Path(words["OUTPUT_DIR"]) / "results.json").write_text(json.dumps(content))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(runs.subprocess, "run", run)
    monkeypatch.setattr(stored, "code_version", lambda: "first code")
    monkeypatch.setattr(ablation, "ROOT", tmp_path)
    return tmp_path


def call(root: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    start = ["ablation.py", "--project", "P", "--table", "t", "--logs", str(root / "logs"), "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", [*start, *words])
    ablation.main()


def test_renderings_protocol_and_difference_reach_the_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = str(root / "projects" / "P" / "protocol.yml")
    asked = ["--data-seeds", "4", "6", "--seeds", "0", "1", "--protocol", protocol, "--difference-to", "One"]
    call(root, monkeypatch, *asked, "--power")
    store = json.loads((root / "projects" / "P" / "results.json").read_text())
    assert len(store) == 8 and all("CLUSTER.K1" in one["opts"] for one in store.values())
    readme = (root / "projects" / "P" / "README.md").read_text()
    assert "table t protocol begin" in readme and "5.0 ± 1.0" in readme and "D2N mAP − One" in readme
    assert f", measured by {protocol}\n" in readme


def test_with_overrides_only_the_logs_keep_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(root, monkeypatch, "--seeds", "0", "--", "CLUSTER.K1", "9")
    assert "| One" in capsys.readouterr().out
    assert sorted(path.name for path in (root / "projects" / "P").iterdir() if path.suffix != ".yml") == []
    assert len(json.loads((root / "logs" / "P" / "results.json").read_text())) == 2


def test_another_difference_is_printed_only(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = root / "projects" / "P" / "tables.yml"
    tables.write_text(TABLES.replace("  rows:", "  difference_to: One\n  rows:"))
    call(root, monkeypatch, "--seeds", "0", "--difference-to", "One")
    readme = (root / "projects" / "P" / "README.md").read_text()
    assert "D2N mAP − One" in readme
    call(root, monkeypatch, "--seeds", "0", "--difference-to", "Two")
    assert "D2N mAP − Two" in capsys.readouterr().out
    assert (root / "projects" / "P" / "README.md").read_text() == readme


def test_what_cannot_be_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(root, monkeypatch, "--seeds", "0")
    monkeypatch.setattr(stored, "code_version", lambda: "second code")
    call(root, monkeypatch, "--seeds", "0", "1")
    store = root / "projects" / "P" / "results.json"
    kept = json.loads(store.read_text())
    kept[next(iter(kept))]["code"] = "first code"
    store.write_text(json.dumps(kept))
    for words, message in (
        (["--report-only", "--seeds", "0", "1"], "are of different code"),
        (["--seeds", "0", "--difference-to", "Three"], "no row"),
        (["--seeds", "0", "--", "SEED", "3"], "SEED is set for each run by the table"),
    ):
        if "--report-only" in words:
            (root / "logs").rename(root / "away")
        with pytest.raises(SystemExit, match=message):
            call(root, monkeypatch, *words)
