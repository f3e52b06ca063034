"""``dnreid reproduce`` on a tiny paper: trained, tested elsewhere, drawn, written; stopped, continued and refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dnreid_plugins.commands.app import main
from dnreid_plugins.dnmini.stand_ins import write_stand_in
from dnreid_plugins.report import runs, store
from dnreid_plugins.report.reproduce import make
from dnreid_plugins.runtime import shipped
from dnreid_plugins.runtime.signals import Stopped

TESTS = Path(__file__).resolve().parents[2]
PAPER = """
paper: A Paper
metrics: [Rank-1, mAP]
words: {DN348: {rate: 0.02}}
items:
  t-1:
    title: "Table 1: rates | <script>"
    kind: table
    of: [DN348]
    rows:
      - {name: Base, system: T, published: {DN348: "10 20 | 30 40"}}
      - name: "faster | <script>alert(1)</script>"
        system: T
        overrides: [SOLVER.BASE_LR, "{rate}"]
        published: {DN348: "11 21 | 29 41"}
      - {name: Elsewhere, system: E, published: {DN348: "12 22 | 32 42"}}
  t-2:
    title: Rates
    kind: sweep
    of: [DN348]
    label: rate
    values: {DN348: [0.01, 0.02], others: [1.0]}
    row: {system: T, overrides: [SOLVER.BASE_LR, "{value}"]}
    published: {0.01: {DN348: "10 20 | 30 40"}}
  t-3:
    title: Elsewhere
    kind: zero-shot
    of: [DN348]
    rows: [{name: Base, system: T, published: {DN348>DNWild: "1 2 | 3 4"}}]
  t-4: &figure {title: Cosines, kind: figure, draw: cosine, of: [DN348], rows: [{name: Base, system: T}]}
  t-5: {<<: *figure, title: Map, draw: map}
  t-6: {<<: *figure, title: Grad-CAM, draw: attention}
  t-7: {<<: *figure, title: First results, draw: rank-lists, length: 3}
  t-8: {<<: *figure, title: Labels, draw: labels}
  t-9: {title: Counts, kind: statistics, of: [DN348], published: {DN348: {train day: 6/30}}}
"""
FAST = "SOLVER: {MAX_EPOCH: 1, STEPS: [], CHECKPOINT_PERIOD: 1}\nTEST: {EVAL_START: False}\n"


REAL, REAL_RUN = main, runs.subprocess.run


class World:
    """A folder with one system and one paper; runs and tests are made in this process, and their words kept."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.home, self.seen = home, list[list[str]]()
        self.stop_at = self.fail_at = 0
        patch.setattr(runs.subprocess, "run", self.run)
        patch.setattr(shipped, "HOMES", (home,))
        patch.chdir(home)

    def run(self, command: list[str], **more: Any) -> Any:
        if "dnreid_plugins" not in command:
            return REAL_RUN(command, **more)
        self.seen.append(command)
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        code = 0
        try:
            if len(self.seen) == self.fail_at:
                raise SystemExit("error: the disk is full")
            main(command[3:])
        except SystemExit:
            code = 1
        return type("Done", (), {"returncode": code})

    def do(self, *words: str) -> None:
        main(["reproduce", "run", *words, "--data", "dn348", "--out", "docs/the results"])

    def page(self, name: str) -> str:
        return (self.home / "docs" / "the results" / "dn348" / f"{name}.md").read_text()

    @property
    def index(self) -> str:
        return (self.home / "docs" / "the results.md").read_text()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_root: Path) -> World:
    return build(tmp_path, monkeypatch, tiny_root)


def build(folder: Path, patch: pytest.MonkeyPatch, root: Path) -> World:
    data = folder / "data"
    data.mkdir()
    (data / "dn348").symlink_to(root / "dn348")
    patch.setenv("FASTREID_DATASETS", str(data))
    home = folder / "home"
    for system in ("T", "P"):
        (home / "projects" / system / "configs").mkdir(parents=True)
    (home / "configs").mkdir()
    (home / "projects" / "P" / "reproduce.yml").write_text(PAPER)
    (home / "projects" / "T" / "configs" / "dn348.yml").write_text(f"_BASE_: {TESTS / 'tiny.yml'}\n{FAST}")
    return World(home, patch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Iterator[World]:
    """Everything that can be made, once."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        world = build(folder, patch, tiny_root)
        write_stand_in("DNWild", folder / "data", workers=1)
        world.do("--all", "--seeds", "0,1")
        yield world


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_a_table_has_paper_ours_difference_and_spread(made: World) -> None:
    header, *rows = cells(made.page("t-1"))
    assert header == [
        "row",
        "direction",
        "Rank-1 paper",
        "ours",
        "difference",
        "mAP paper",
        "ours",
        "difference",
        "runs",
    ]
    assert [row[:2] for row in rows[::2]] == [
        ["Base", "D2N"],
        ["faster \\| &lt;script>alert(1)&lt;/script>", "D2N"],
        ["Elsewhere", "D2N"],
    ]
    assert [row[2] for row in rows] == ["10.00", "30.00", "11.00", "29.00", "12.00", "32.00"]
    kept = json.loads((made.home / "docs/the results/runs.json").read_text())
    record = json.loads((made.home / "docs/the results/dn348/t-1.json").read_text())
    for row, direction in zip(rows[:2], ("D2N", "N2D")):
        values = [kept[key]["end"][direction]["mAP"] for key in record["runs"]["Base"]]
        mean = sum(values) / 2
        assert (
            len(values) == 2
            and row[6].startswith(f"{mean:.1f} ± ")
            and row[7] == f"{mean - float(row[5]):+.1f}"
        )
    assert rows[4][3:] == ["–", "–", "22.00", "–", "–", "not built"] and rows[0][-1] == "2"
    assert "standard deviation of the runs with the seeds 0, 1" in made.page("t-1")


def test_the_index_names_command_date_code_and_runs(made: World) -> None:
    assert "`dnreid reproduce run t-1 --data DN348 --seeds 0,1`" in made.index
    assert "[A Paper: Table 1: rates \\| &lt;script>](the%20results/dn348/t-1.md)" in made.index
    assert "<script>" not in made.index
    for link in re.findall(r"\]\(([^)]+)\)", made.index):
        assert (made.home / "docs" / link.replace("%20", " ")).is_file(), link
    record = json.loads((made.home / "docs/the results/dn348/t-2.json").read_text())
    assert record["date"][:10] in made.index and record["code"] in made.index
    assert all(key in made.index for keys in record["runs"].values() for key in keys)


def test_nothing_is_trained_or_tested_twice(made: World) -> None:
    trained = [c for c in made.seen if c[3] == "train"]
    assert len(trained) == 4 and len(made.seen) == 6, "two rates and two seeds, and Base tested elsewhere"
    stamp = json.loads((made.home / "docs/the results/dn348/t-5.json").read_text())["date"]
    made.do("--all", "--seeds", "0,1")
    assert len(made.seen) == 6
    assert json.loads((made.home / "docs/the results/dn348/t-5.json").read_text())["date"] == stamp


def test_models_are_tested_on_the_other_set(made: World) -> None:
    row = cells(made.page("t-3"))[1]
    assert row[:3] == ["Base", "D2N", "1.00"] and re.fullmatch(r"\d+\.\d ± \d+\.\d", row[3])
    assert "Trained on DN348, tested on DNWild." in made.page("t-3")
    tests = [c for c in made.seen if c[3] == "eval"]
    assert all(c[-2:] == ["DATASETS.TESTS", "('DNWild',)"] for c in tests)
    shown = cells(made.page("t-1"))[1][3]
    assert row[3] != shown


@pytest.mark.parametrize("name", ["t-2", "t-4", "t-5", "t-6", "t-7-1", "t-7-2", "t-8"])
def test_pictures_show_something(name: str, made: World) -> None:
    path = made.home / "docs" / "the results" / "dn348" / f"{name}.png"
    image = Image.open(path).convert("RGB")
    assert min(image.size) > 100 and len(image.getcolors(1 << 24) or ()) > 20
    assert f"{name}.png)" in made.page(name[:3])


def test_texts_of_figures(made: World) -> None:
    assert "Of the first run of each row." in made.page("t-4") and "first run" not in made.page("t-1")
    margins = {row[1]: row for row in cells(made.page("t-4"))[1:]}
    assert set(margins) == {"within day", "within night", "across: day and night"}
    assert all(-2 < float(row[3]) < 2 for row in margins.values())
    (first,) = [row for row in cells(made.page("t-7"))[1:] if row[1] == "D2N"]
    assert re.fullmatch(r"\d+ of 12", first[2])
    labels = cells(made.page("t-8"))
    assert labels[0][2:] == ["ARI", "AMI", "FMI", "V"] and len(labels) == 3
    assert all(-1 <= float(cell) <= 1 for row in labels[1:] for cell in row[2:])
    assert cells(made.page("t-9"))[1] == ["train day", "6 / 30", "6 / 36", "+0 / +6"]


def test_the_list_says_what_is_there(
    made: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["reproduce", "list", "--data", "DN348", "--out", "docs/the results", "--seeds", "0,1"])
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("t-1 "))
    assert (
        "written" in line and "4 of 4 runs" in line and "not built: Elsewhere" in line and "nothing" in line
    )
    main(["reproduce", "list", "--data", "DN348", "--out", "docs/the results", "--seeds", "0-2"])
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("t-1 "))
    assert "not of these runs" in line and "4 of 6 runs" in line and "2 runs, about" in line
    for module in ("store", "reproduce.plan", "reproduce.book", "reproduce.make"):
        monkeypatch.setattr(f"dnreid_plugins.report.{module}.code_version", lambda: "other (abc)")
    main(["reproduce", "list", "--data", "DN348", "--out", "docs/the results", "--seeds", "0,1"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("t-1 "))
    assert "not of these runs" not in line and "4 of 4 runs" in line and "not the present one" in line
    main(["reproduce", "list", "--data", "DN348", "--out", "elsewhere"])
    text = capsys.readouterr().out
    assert "0 of 2 runs" in text and "2 runs, 128 images" in text and "counted once: 2 runs" in text


def test_runs_that_are_gone_are_made_again_only_where_weights_are_needed(made: World) -> None:
    shutil.move(made.home / "logs", made.home / "away")
    (made.home / "docs/the results/dn348/t-1.json").unlink()
    (made.home / "docs/the results/dn348/t-3.json").unlink()
    before = len(made.seen)
    made.do("t-1", "t-3", "--seeds", "0,1")
    assert len(made.seen) == before
    shutil.move(made.home / "away", made.home / "logs")


def fake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are finished at once, and figures are only a word: what is left is the order of things."""

    def train(words: list[str]) -> None:
        folder = Path(words[words.index("OUTPUT_DIR") + 1])
        figures = {direction: {"Rank-1": 50.0, "mAP": 40.0} for direction in ("D2N", "N2D")}
        content = {"DN348": figures, "start": {"DN348": figures}, "finished": True, "data": {"DN348": "x"}}
        content["code_version"] = store.code_version()
        (folder / "results.json").write_text(json.dumps(content))
        (folder / "model_final.pth").touch()

    monkeypatch.setattr(
        f"{__name__}.main", lambda words: train(words) if words[0] == "train" else REAL(words)
    )
    monkeypatch.setattr(make, "make_figure", lambda *_: ("a figure", []))


def test_a_stop_loses_nothing_that_was_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(world, monkeypatch)
    world.stop_at = 2
    with pytest.raises(Stopped):
        world.do("t-1", "t-4", "t-9")
    assert "a figure" in world.index and "Counts" in world.index, "cheaper ones came first"
    assert "Table 1" not in world.index and len(world.seen) == 2
    assert not list(world.home.rglob("*.part"))
    world.do("t-1", "t-4", "t-9")
    assert len(world.seen) == 3 and "Table 1" in world.index


def test_a_failed_run_is_told_and_the_rest_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(world, monkeypatch)
    world.fail_at = 2
    with pytest.raises(
        SystemExit, match="error: 1 of 2 could not be made; the first is t-1: 1 of 1 runs failed"
    ):
        world.do("t-1", "t-4")
    assert "a figure" in world.index and "t-1 could not be made" in capsys.readouterr().out
    world.do("t-1", "t-4")
    assert len(world.seen) == 3 and "Table 1" in world.index


def test_overrides_are_other_runs_and_the_page_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(world, monkeypatch)
    world.do("t-4")
    world.do("t-4", "CLUSTER.K1", "4")
    assert len(world.seen) == 2 and "Every row with CLUSTER.K1 4." in world.page("t-4")
    assert world.seen[1][world.seen[1].index("CLUSTER.K1") + 1] == "4"


def test_other_code_is_measured_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(world, monkeypatch)
    world.do("t-1")
    for module in ("store", "reproduce.plan", "reproduce.book", "reproduce.make"):
        monkeypatch.setattr(f"dnreid_plugins.report.{module}.code_version", lambda: "other (abc)")
    world.do("t-1")
    assert len(world.seen) == 4 and "other (abc)" in world.index


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name the items to make, or give --all"),
        (["t-1", "--all"], "Name the items to make, or give --all"),
        (["--all", "--seeds", "0", "1"], "'1' is no table or figure; several seeds have commas"),
        (["t-11"], "no table or figure 't-11'; did you mean"),
        (["t-1", "--seeds", "x"], "--seeds is 'x'; give numbers"),
        (["t-1", "--data-seeds", "1"], "--data-seeds is for rendered sets, and DN348 is none"),
        (["t-3", "--test", "DN348"], "--test is 'DN348', the set that is trained on"),
        (["t-1", "--test", "DN34"], "--test is 'DN34'; choose one of DN348"),
        (["t-3"], "DNWild: the data root .* docs/datasets.md says where DNWild comes from"),
        (["t-1", "--weights", "no.pth"], "--weights is 'no.pth', which is no file"),
        (["t-1", "SEED", "4"], "SEED is set for each run by the table"),
        (["t-1", "MODEL.NO_SUCH_KEY", "4"], "NO_SUCH_KEY"),
        (["t-1", "SOLVER.BASE_LR"], "SOLVER.BASE_LR has no value"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_run(words: list[str], said: str, world: World) -> None:
    with pytest.raises(SystemExit, match=f"^error: .*{said}"):
        world.do(*words)
    assert world.seen == [] and not (world.home / "docs").exists()


def test_a_resnet_begins_with_the_users_weights(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(world, monkeypatch)
    config = world.home / "projects" / "T" / "configs" / "dn348.yml"
    config.write_text(
        config.read_text() + "MODEL: {BACKBONE: {NAME: build_resnet_backbone, PRETRAIN: True}}\n"
    )
    with pytest.raises(SystemExit, match="name its file by --weights"):
        world.do("t-4")
    (world.home / "resnet50.pth").touch()
    world.do("t-4", "--weights", "resnet50.pth")
    command = world.seen[0]
    assert command[command.index("MODEL.BACKBONE.PRETRAIN_PATH") + 1] == "resnet50.pth"


def test_a_place_that_cannot_be_written_is_told_before_any_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(world, monkeypatch)
    (world.home / "docs").write_text("a file")
    with pytest.raises(SystemExit, match="^error: .*docs"):
        world.do("t-4")
    assert world.seen == []
