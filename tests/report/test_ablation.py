"""The ablation tables: rows, which runs they need, what is kept and what is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dnreid_plugins.report import ablation, runs
from dnreid_plugins.report import store as stored
from dnreid_plugins.report.ablation import (
    mean_and_error,
    mean_and_spread,
    power_lines,
    run_table,
    write_table,
)
from dnreid_plugins.report.forest import forest
from dnreid_plugins.report.runs import plan, protocol_changes
from dnreid_plugins.report.store import Run
from dnreid_plugins.report.tables import Row, Table, load_table
from dnreid_plugins.runtime.config_files import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TABLES = """
t:
  title: "A table"
  start: True
  figures: ["true/day/ARI"]
  rows:
    - {name: One, config: one.yml, paper: "1/2"}
    - {name: Two, config: two.yml, overrides: [SOLVER.MAX_EPOCH, 3], reuse: one.yml}
"""
ONE = "DATASETS: {TESTS: [DNMini]}\nCLUSTER: {K1: 12, EPS: 0.5}\n"
CODE = "first code"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "projects" / "P"
    folder.mkdir(parents=True)
    (folder / "tables.yml").write_text(TABLES)
    (folder / "one.yml").write_text(ONE)
    (folder / "two.yml").write_text("_BASE_: one.yml\nCLUSTER: {EPS: 0.3}\n")
    (folder / "protocol.yml").write_text(
        "_BASE_: one.yml\nDATASETS: {TESTS: [DNMini2]}\nCLUSTER: {K1: 15, EPS: 0.4}\nOUTPUT_DIR: elsewhere\n"
    )
    set_code(monkeypatch, CODE)
    return tmp_path


def set_code(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(stored, "code_version", lambda: code)


def finish(folder: Path, value: float, *, dataset: str = "DNMini") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    block = {d: {"Rank-1": value, "mAP": value / 2} for d in ("D2N", "N2D")}
    content = {
        dataset: block,
        "start": {dataset: block},
        "finished": True,
        "code_version": stored.code_version(),
    }
    (folder / "results.json").write_text(json.dumps({**content, "data": {dataset: "abc"}}))
    (folder / "health.jsonl").write_text(
        '{"true/day/ARI": 0.15}\n{"true/day/ARI": 0.25}\n{"true/day/ARI": null}\n'
    )


def planned(root: Path, *overrides: str, table: Table | None = None, **seeds: Any) -> list[Run]:
    seeds = {"data_seeds": [0], "seeds": [0, 1], **seeds}
    return plan(root, table or load_table(root, "P", "t"), overrides=overrides, **seeds)


def of(found: list[Run], name: str) -> dict[tuple[int, int], Run]:
    return {(run.data_seed, run.seed): run for run in found if run.row.name == name}


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run; each finishes at once."""
    seen: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        seen.append(command)
        dataset = "DNMini2" if "('DNMini2',)" in command else "DNMini"
        finish(Path(command[command.index("OUTPUT_DIR") + 1]), 10.0, dataset=dataset)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(runs.subprocess, "run", run)
    return seen


def go(root: Path, found: list[Run], jobs: int = 1) -> Path:
    store = root / "store.json"
    run_table(root, found, root / "logs", store, jobs=jobs)
    stored.collect(found, root / "logs", store)
    return store


# ---------------------------------------------------------------- which runs there are


def test_only_unfinished_runs_are_run_and_stage_1_is_reused(root: Path, commands: list[list[str]]) -> None:
    found, logs = planned(root), root / "logs"
    first = of(found, "One")[0, 0].folder(logs)
    finish(first, 50.0)
    (first / "stage1.pth").touch()
    go(root, found)
    assert [c[c.index("SEED") + 1] for c in commands] == ["0", "1", "1"]
    assert commands[0][-2:] == ["PROMPT_STAGE.WEIGHTS", str(first / "stage1.pth")]
    assert commands[0][commands[0].index("SOLVER.MAX_EPOCH") + 1] == "3"
    # seed 1 of the first row has left no stage 1, so the second row learns its own
    assert "PROMPT_STAGE.WEIGHTS" not in commands[2]
    commands.clear()
    go(root, found, jobs=2)
    assert commands == []


def test_an_override_makes_another_run(root: Path, commands: list[list[str]]) -> None:
    """The store once knew a run by its row alone: a table with overrides printed the default rows."""
    go(root, planned(root, seeds=[0]))
    assert len(commands) == 2
    other = planned(root, "CLUSTER.K1", "7", seeds=[0])
    go(root, other)
    assert len(commands) == 4 and [c[c.index("CLUSTER.K1") + 1] for c in commands[2:]] == ["7", "7"]
    assert {run.folder(root) for run in other}.isdisjoint(
        run.folder(root) for run in planned(root, seeds=[0])
    )
    # one that changes nothing is the same run
    go(root, planned(root, "CLUSTER.K1", "12", seeds=[0]))
    assert len(commands) == 4


def test_every_rendering_and_seed_is_a_run(root: Path, commands: list[list[str]]) -> None:
    found = planned(root, data_seeds=[1, 2], seeds=[0, 3])
    assert [(r.data_seed, r.seed, r.row.name) for r in found[:4]] == [
        *((1, 0, "One"), (1, 0, "Two"), (2, 0, "One"), (2, 0, "Two"))
    ]
    assert len({run.key for run in found}) == len({run.folder(root) for run in found}) == 8
    go(root, found)
    seeds = [(c[c.index("DATASETS.DNMINI_SEED") + 1], c[c.index("SEED") + 1]) for c in commands]
    assert sorted(seeds) == sorted((d, s) for d in "12" for s in "03" for _ in "ab")


def test_a_typing_error_in_an_override_is_named_before_anything_runs(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"CLUSTER\.K11"):
        planned(root, "CLUSTER.K11", "7")


@pytest.mark.parametrize("key", ["SEED", "DATASETS.DNMINI_SEED", "OUTPUT_DIR"])
def test_what_the_table_sets_itself_is_no_override(root: Path, key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is set for each run by the table"):
        planned(root, "CLUSTER.K1", "7", key, "3")


def test_failed_runs_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.subprocess, "run", lambda *a, **k: type("Failed", (), {"returncode": 1}))
    with pytest.raises(RuntimeError, match="2 runs failed: One data 0 seed 4, Two data 0 seed 4"):
        run_table(root, planned(root, seeds=[4]), root / "logs", root / "store.json", jobs=1)


# ---------------------------------------------------------------- code and protocol


def test_runs_of_another_code_are_repeated_and_never_mixed(
    root: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, table = planned(root, seeds=[0]), load_table(root, "P", "t")
    store = go(root, found)
    assert {one["code"] for one in json.loads(store.read_text()).values()} == {CODE}
    set_code(monkeypatch, "second code")
    # what is there may still be printed, with the code that made it
    assert "Code: first code" in write_table(table, found, root / "logs", store)
    finish(found[0].folder(root / "logs"), 99.0)
    # a table that shares a row does not push out what the first code gave
    assert "Code: first code" in write_table(table, found, root / "logs", store)
    assert json.loads(store.read_text())[found[0].key]["code"] == "second code"
    with pytest.raises(ValueError, match="1 of first code; 1 of second code; run the table again"):
        write_table(table, found + planned(root, "CLUSTER.K1", "7", seeds=[0]), root / "logs", store)
    assert "99.0" not in table.readme.read_text()
    commands.clear()
    go(root, found)
    assert len(commands) == 1
    assert "Code: second code" in write_table(table, found, root / "logs", store)


def test_entries_of_an_older_store_are_no_runs(root: Path, commands: list[list[str]]) -> None:
    store = root / "store.json"
    store.write_text('{"one": {"0": {"end": {}, "start": {}, "health": {}}}}')
    go(root, planned(root, seeds=[0]))
    assert len(commands) == 2 and "one" in json.loads(store.read_text())


def test_a_protocol_changes_what_a_row_has_from_the_base(root: Path, commands: list[list[str]]) -> None:
    protocol = root / "projects" / "P" / "protocol.yml"
    table = replace(load_table(root, "P", "t"), protocol=str(protocol))
    go(root, planned(root, table=table, seeds=[0]))
    one, two = commands
    assert one[one.index("CLUSTER.EPS") + 1] == "0.4" and "CLUSTER.EPS" not in two  # two.yml has its own
    for command in commands:
        assert command[command.index("CLUSTER.K1") + 1] == "15"
        assert command[command.index("DATASETS.TESTS") + 1] == "('DNMini2',)"
        assert "elsewhere" not in command
    found = planned(root, table=table)
    assert {run.dataset for run in found} == {"DNMini2"}
    # what is asked for in the command line comes last
    last = planned(root, "CLUSTER.K1", "9", table=table)[0].opts
    assert last.index("9") > last.index("15")


def test_an_override_of_a_row_wins_over_the_protocol(root: Path) -> None:
    """Also where it sets what the base has: a table that tries settings names the old one, too."""
    row = Row("Old", "projects/P/one.yml", ("CLUSTER.K1", "12"))
    table = replace(load_table(root, "P", "t"), rows=(row,), protocol=str(root / "projects/P/protocol.yml"))
    (run,) = planned(root, table=table, seeds=[0])
    cfg = runs.merged(root / row.config, run.opts)
    assert (cfg.CLUSTER.K1, cfg.CLUSTER.EPS) == (12, 0.4)


def test_a_protocol_needs_a_base(root: Path) -> None:
    with pytest.raises(ValueError, match="has no _BASE_"):
        protocol_changes(runs.merged(root / "projects/P/one.yml", ()), root / "projects/P/one.yml")


# ---------------------------------------------------------------- what is printed


def filled(
    root: Path, values: dict[tuple[str, int, int], float], **changes: Any
) -> tuple[Table, list[Run], Path]:
    """Finished runs of ``{(row, data seed, seed): Rank-1}``; mAP is half of it."""
    table = replace(load_table(root, "P", "t"), **changes)
    data, seeds = ({place[i] for place in values} for i in (1, 2))
    found = planned(root, table=table, data_seeds=sorted(data), seeds=sorted(seeds))
    for run in found:
        value = values.get((run.row.name, run.data_seed, run.seed))
        if value is not None:
            finish(run.folder(root / "logs"), value)
    return table, found, root / "store.json"


def test_the_table_has_mean_and_spread_and_replaces_itself(root: Path) -> None:
    table, found, store = filled(root, {("One", 0, 0): 50.0, ("One", 0, 1): 60.0})
    text = write_table(table, found, root / "logs", store)
    assert cells(text)[2] == ["before training", "50.0 / 25.0", "50.0 / 25.0", "–", "1", ""]
    both = "55.0 ± 7.1 / 27.5 ± 3.5"
    assert cells(text)[3] == ["One", both, both, "0.25 ± 0.00", "2", "1/2"]
    assert cells(text)[4][1:] == ["– / –", "– / –", "–", "0", ""]
    assert "standard deviation of the runs on rendering 0" in text
    write_table(table, planned(root, seeds=[0]), root / "logs", store)
    readme = (root / "projects" / "P" / "README.md").read_text()
    assert readme.count("table t begin") == 1 and "55.0" not in readme
    # what was measured stays without the logs
    assert "60.0 / 30.0" in write_table(table, planned(root, seeds=[1]), root / "nowhere", store)


def test_several_renderings_give_standard_errors_and_paired_differences(root: Path) -> None:
    values = {("One", 1, 0): 40.0, ("One", 1, 1): 44.0, ("One", 2, 0): 60.0, ("One", 2, 1): 64.0}
    values |= {("Two", 1, 0): 44.0, ("Two", 1, 1): 48.0, ("Two", 2, 0): 68.0}  # one run is still missing
    table, found, store = filled(root, values, start=False, difference_to="One")
    text = write_table(table, found, root / "logs", store)
    # means 42 and 62: error 10. Differences in mAP 2, 2 and 4: means 2 and 4, error 1.
    assert cells(text)[0][3:5] == ["D2N mAP − One", "N2D mAP − One"]
    assert cells(text)[2][1:6] == ["52.0 ± 10.0 / 26.0 ± 5.0"] * 2 + ["", "", "0.25 ± 0.00"]
    assert cells(text)[3][3:5] == ["+3.0 ± 1.0"] * 2 and cells(text)[3][6] == "3"
    assert "standard error over the renderings 1, 2" in text and "same two seeds" in text
    with pytest.raises(ValueError, match="'Three', which is no row"):
        write_table(replace(table, difference_to="Three"), found, root / "logs", store)


def test_the_differences_are_drawn_below_the_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {("One", 1, 0): 40.0, ("One", 2, 0): 60.0, ("Two", 1, 0): 44.0, ("Two", 2, 0): 70.0}
    table, found, store = filled(root, values, difference_to="One", picture=root / "docs.png")
    drawn: list[Any] = []
    monkeypatch.setattr(ablation, "forest", lambda *given: [drawn.append(given), forest(*given)][1])
    write_table(table, found, root / "logs", store)
    two = {1: [2.0], 2: [5.0]}
    assert drawn == [({"Two": {"D2N": two, "N2D": two}}, "One")]
    picture = Image.open(table.picture)
    assert picture.width > 600 and picture.getextrema() != ((255, 255),) * 4
    assert "](../../docs.png)" in table.readme.read_text()
    assert "docs.png" not in write_table(table, found, root / "logs", store, readme=False)
    table.picture.unlink()
    finish(planned(root, table=table, data_seeds=[7])[0].folder(root / "logs"), 50.0)
    write_table(table, planned(root, table=table, data_seeds=[7]), root / "logs", store)
    assert not table.picture.exists(), "nothing to draw yet"


def test_a_table_of_another_protocol_has_its_own_place(root: Path) -> None:
    table, found, store = filled(root, {("One", 0, 0): 50.0})
    write_table(table, found, root / "logs", store)
    other = replace(table, protocol=str(root / "projects" / "P" / "protocol.yml"))
    finish(planned(root, table=other)[0].folder(root / "logs"), 70.0, dataset="DNMini2")
    write_table(other, planned(root, table=other), root / "logs", store)
    readme = table.readme.read_text()
    assert readme.count("table t begin") == 1 and readme.count("table t protocol begin") == 1
    assert "50.0" in readme and "70.0" in readme
    before = table.readme.read_text()
    with pytest.raises(ValueError, match="no run of this table on renderings"):
        write_table(table, planned(root, "CLUSTER.K1", "3"), root / "logs", store)
    assert table.readme.read_text() == before


def test_rows_outlive_a_new_key_of_the_config(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes the hash of every config; a store of the present code has no such excuse."""
    table, found, store = filled(root, {("One", 0, 0): 50.0, ("Two", 0, 0): 60.0})
    text = write_table(table, found, root / "logs", store)
    later = [replace(run, key=f"later {place}") for place, run in enumerate(found)]
    with pytest.raises(ValueError, match="no run of this table"):
        write_table(table, later, root / "logs", store)
    monkeypatch.setattr(stored, "code_version", lambda: "later code")
    assert write_table(table, later, root / "logs", store) == text
    other = [replace(run, opts=("CLUSTER.K1", "3", *run.opts)) for run in later]
    with pytest.raises(ValueError, match="no run of this table"):
        write_table(table, other, root / "logs", store)
    # Another table, measured later, shares a row.
    kept = json.loads(store.read_text())
    kept["later 0"] = {**kept[found[0].key], "code": "a code between", "end": {}}
    store.write_text(json.dumps(kept))
    assert write_table(table, later, root / "logs", store) == text


def test_what_a_difference_needs_is_said(root: Path) -> None:
    values = {("One", d, s): 40.0 for d in (1, 2) for s in (0, 1)}
    values |= {("Two", 1, 0): 40.0, ("Two", 1, 1): 44.0, ("Two", 2, 0): 50.0, ("Two", 2, 1): 58.0}
    table, found, store = filled(root, values, difference_to="One", directions=("D2N",))
    kept = stored.collect(found, root / "logs", store)
    # differences in mAP 0, 2 and 5, 9: variance of the runs 5, between 18 - 2.5; 4 x (15.5 + 5) = 82 renderings
    (line,) = power_lines(ablation.Results(table, found, kept))
    assert "variance 15.50 between renderings, 5.00 between runs" in line and "82 renderings x 1 runs" in line


def test_mean_and_spread() -> None:
    assert mean_and_spread([]) == "–" and mean_and_spread([float("nan")]) == "–"
    assert mean_and_spread([2.0]) == "2.0" and mean_and_spread([0.5, 0.7]) == "0.60 ± 0.14"
    assert mean_and_error({}) == mean_and_error({}, sign=True) == "–"
    assert mean_and_error({1: [2.0]}, sign=True) == "+2.0" and mean_and_error({1: [2.0, 4.0]}) == "3.0 ± 1.4"


def test_figures_of_a_run_are_the_last_and_the_mean_of_what_is_finite(root: Path, tmp_path: Path) -> None:
    finish(tmp_path, 1.0)
    assert stored.last_health(tmp_path) == {"true/day/ARI": 0.25, "mean true/day/ARI": 0.2}
    assert stored.last_health(tmp_path / "nothing") == {}


# ---------------------------------------------------------------- the shipped tables


def test_unknown_project_and_table_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match="no project 'Q'"):
        load_table(root, "Q", "t")
    with pytest.raises(ValueError, match="no table 'u'"):
        load_table(root, "P", "u")


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/*/tables.yml")), ids=lambda path: path.parent.name)
def test_every_row_of_every_table_names_a_config_that_merges(path: Path, scratch: None) -> None:
    import yaml

    folders: dict[str, Row] = {}
    for name in yaml.safe_load(path.read_text()):
        table = load_table(ROOT, path.parent.name, name)
        assert len(plan(ROOT, table, data_seeds=[0], seeds=[0])) == len(table.rows)
        table.reference()
        for row in table.rows:
            same = folders.setdefault(row.folder, row)
            assert (same.config, same.overrides) == (row.config, row.overrides), "two rows share a folder"


@pytest.mark.attack("surroundings", "names with markup, bars and line ends in a table of runs")
def test_odd_names_of_rows(root: Path) -> None:
    odd = TABLES.replace("name: One", 'name: "a|b<script>\\nc"').replace('"1/2"', '"x|y"')
    (root / "projects" / "P" / "tables.yml").write_text(odd)
    table = replace(load_table(root, "P", "t"), difference_to="a|b<script>\nc")
    found = planned(root, table=table, seeds=[0])
    finish(found[0].folder(root / "logs"), 50.0)
    page = write_table(table, found, root / "logs", root / "store.json")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == 5 and len({line.replace("\\|", "").count("|") for line in rows}) == 1, page
    assert "a\\|b&lt;script> c" in page and "x\\|y" in page
