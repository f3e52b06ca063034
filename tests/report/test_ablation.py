"""The ablation tables: rows, what is run, what is kept and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dnreid_plugins.report import ablation
from dnreid_plugins.report.ablation import Row, load_table, markdown, mean_and_spread, run_table, write_table

ROOT = Path(__file__).resolve().parents[2]
TABLES = """
t:
  title: "A table"
  start: True
  figures: ["true/day/ARI"]
  rows:
    - {name: One, config: one.yml, paper: "1/2"}
    - {name: Two, config: two.yml, overrides: [MODEL.X, 3], reuse: one.yml}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "projects" / "P"
    folder.mkdir(parents=True)
    (folder / "tables.yml").write_text(TABLES)
    return tmp_path


def finish(folder: Path, value: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    block = {d: {"Rank-1": value, "mAP": value / 2} for d in ("D2N", "N2D")}
    content = {"DNMini": block, "start": {"DNMini": block}, "finished": True}
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "health.jsonl").write_text(
        '{"true/day/ARI": 0.15}\n{"true/day/ARI": 0.25}\n{"true/day/ARI": null}\n'
    )


def test_only_unfinished_runs_are_run_and_stage_1_is_reused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, logs, commands = load_table(root, "P", "t"), root / "logs", []

    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        finish(Path(command[command.index("OUTPUT_DIR") + 1]), 10.0)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(ablation.subprocess, "run", run)
    finish(logs / "one" / "seed0", 50.0)
    (logs / "one" / "seed0" / "stage1.pth").touch()
    run_table(root, table, logs, seeds=[0, 1], jobs=1)
    assert [c[c.index("SEED") + 1] for c in commands] == ["0", "1", "1"]
    assert commands[0][-4:] == [
        "MODEL.X",
        "3",
        "PROMPT_STAGE.WEIGHTS",
        str(logs / "one" / "seed0" / "stage1.pth"),
    ]
    # seed 1 of the first row has left no stage 1, so the second row learns its own
    assert "PROMPT_STAGE.WEIGHTS" not in commands[2]
    commands.clear()
    run_table(root, table, logs, seeds=[0, 1], jobs=2)
    assert commands == []


def test_failed_runs_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation.subprocess, "run", lambda *a, **k: type("Failed", (), {"returncode": 1}))
    with pytest.raises(RuntimeError, match="2 runs failed: One seed 4, Two seed 4"):
        run_table(root, load_table(root, "P", "t"), root / "logs", seeds=[4], jobs=1)


def test_the_table_has_mean_and_spread_and_replaces_itself(root: Path) -> None:
    table, logs = load_table(root, "P", "t"), root / "logs"
    finish(logs / "one" / "seed0", 50.0)
    finish(logs / "one" / "seed1", 60.0)
    text = write_table(table, logs, seeds=[0, 1])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert cells[2] == ["before training", "50.0 / 25.0", "50.0 / 25.0", "–", "1", ""]
    assert cells[3] == [
        "One",
        "55.0 ± 7.1 / 27.5 ± 3.5",
        "55.0 ± 7.1 / 27.5 ± 3.5",
        "0.25 ± 0.00",
        "2",
        "1/2",
    ]
    assert cells[4][1:] == ["– / –", "– / –", "–", "0", ""]
    write_table(table, logs, seeds=[0])
    readme = (root / "projects" / "P" / "README.md").read_text()
    assert readme.count("table t begin") == 1 and "55.0" not in readme
    # what was measured stays without the logs
    kept = json.loads((root / "projects" / "P" / "results.json").read_text())
    assert "60.0 / 30.0" in markdown(table, kept, seeds=[1])


def test_mean_and_spread() -> None:
    assert mean_and_spread([]) == "–" and mean_and_spread([float("nan")]) == "–"
    assert mean_and_spread([2.0]) == "2.0" and mean_and_spread([0.5, 0.7]) == "0.60 ± 0.14"


def test_figures_of_a_run_are_the_last_and_the_mean_of_what_is_finite(tmp_path: Path) -> None:
    finish(tmp_path, 1.0)
    assert ablation.last_health(tmp_path) == {"true/day/ARI": 0.25, "mean true/day/ARI": 0.2}
    assert ablation.last_health(tmp_path / "nothing") == {}


def test_unknown_project_and_table_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match="no project 'Q'"):
        load_table(root, "Q", "t")
    with pytest.raises(ValueError, match="no table 'u'"):
        load_table(root, "P", "u")


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/*/tables.yml")), ids=lambda path: path.parent.name)
def test_every_row_of_every_table_names_a_config_that_merges(path: Path) -> None:
    import yaml
    from fastreid.config import get_cfg

    from dnreid_plugins.runtime.config_files import merge_with_suggestions

    folders: dict[str, Row] = {}
    for name in yaml.safe_load(path.read_text()):
        for row in load_table(ROOT, path.parent.name, name).rows:
            cfg = get_cfg()
            merge_with_suggestions(cfg, str(ROOT / row.config), list(row.overrides))
            same = folders.setdefault(row.folder, row)
            assert (same.config, same.overrides) == (row.config, row.overrides), "two rows share a folder"


@pytest.mark.attack("surroundings", "names with markup, bars and line ends in a table of runs")
def test_odd_names_of_rows(root: Path) -> None:
    odd = TABLES.replace("name: One", 'name: "a|b<script>\\nc"').replace('"1/2"', '"x|y"')
    (root / "projects" / "P" / "tables.yml").write_text(odd)
    finish(root / "logs" / "one" / "seed0", 50.0)
    page = write_table(load_table(root, "P", "t"), root / "logs", seeds=[0])
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 5 and len({line.replace("\\|", "").count("|") for line in rows}) == 1, page
    assert "a\\|b&lt;script> c" in page and "x\\|y" in page
