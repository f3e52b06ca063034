from __future__ import annotations

from pathlib import Path

from dnreid_plugins.engine.run_folder import set_aside

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
    assert sorted(path.name for path in target.iterdir()) == sorted([*TRACES, "events.out.tfevents.1.host"])
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
