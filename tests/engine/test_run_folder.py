from __future__ import annotations

from pathlib import Path

from fastreid.config import CfgNode
from fastreid.engine import default_argument_parser

from dnreid_plugins.cli import main
from dnreid_plugins.engine import script_door as as_fastreid
from dnreid_plugins.runtime.run_folder import set_aside

TRACES = [
    "metrics.json",
    "results.json",
    "health.jsonl",
    "last_checkpoint",
    "model_0001.pth",
    "model_best.pth",
]


def test_an_earlier_run_is_moved_whole_and_the_rest_stays(tmp_path: Path) -> None:
    for name in [*TRACES, "events.out.tfevents.1.host", "log.txt", "config.yaml", "notes.md"]:
        (tmp_path / name).write_text(name)
    target = set_aside(tmp_path)
    assert target == tmp_path / "previous-001"
    moved = [*TRACES, "events.out.tfevents.1.host", "log.txt", "config.yaml"]
    assert sorted(path.name for path in target.iterdir()) == sorted(moved)
    assert all((target / name).read_text() == name for name in ("log.txt", "config.yaml"))
    assert (target / "results.json").read_text() == "results.json"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.yaml",
        "log.txt",
        "notes.md",
        "previous-001",
    ]
    (tmp_path / "results.json").touch()
    assert set_aside(tmp_path) == tmp_path / "previous-002"


def test_a_clean_or_missing_folder_is_left_alone(tmp_path: Path) -> None:
    assert set_aside(tmp_path) is None
    assert set_aside(tmp_path / "absent") is None
    assert list(tmp_path.iterdir()) == []


def test_config_and_log_of_the_earlier_run_go_with_it(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    """The log is open and the config may be written before the fresh run knows that it is one."""
    folder = tmp_path / "run"
    short = [
        "SOLVER.MAX_EPOCH",
        "1",
        "SOLVER.STEPS",
        "()",
        "TEST.EVAL_START",
        "False",
        "DATASETS.TESTS",
        "()",
    ]
    start = ["--config-file", str(Path(__file__).parents[1] / "tiny.yml")]
    for seed in ("11", "12"):
        main([*start, "SEED", seed, *short, "OUTPUT_DIR", str(folder)])
    for place, seed, other in ((folder / "previous-001", 11, 12), (folder, 12, 11)):
        assert f"SEED: {seed}" in (place / "config.yaml").read_text()
        log = (place / "log.txt").read_text()
        assert f"'SEED', '{seed}'" in log and f"'SEED', '{other}'" not in log
        assert log.count("Saved ") == 1 and "\0" not in log
    assert "its files are now in" in (folder / "log.txt").read_text()


def test_a_script_s_default_setup_does_not_lose_the_earlier_config(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("of the earlier run")
    (tmp_path / "results.json").write_text("{}")
    tiny_cfg.OUTPUT_DIR = str(tmp_path)
    as_fastreid.default_setup(tiny_cfg, default_argument_parser().parse_args([]))
    target = set_aside(tmp_path)
    assert target is not None and (target / "config.yaml").read_text() == "of the earlier run"
    assert "MAX_EPOCH: 2" in (tmp_path / "config.yaml").read_text()
