"""The examples of CONTRIBUTING.md, taken from the page and run as they stand by the command that it names."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import get_cfg
from PIL import Image

from dnreid_plugins import cli
from dnreid_plugins.engine.preflight import check

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("scratch")
BLOCK = re.compile(r"```(?:python|yaml)\n# mine/(\S+)\n(.*?)```", re.DOTALL)
FILES = dict(BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text()))
#: What shows that a part of the example took part: a figure of the steps or of the health line, or a file.
TRACES = {
    "centre_pull": ("loss_centrepull",),
    "nearest_pairs": ("loss_marginmmd", "MatchNearest/pairs"),
    "flat": (),
    "stay_near": ("loss_staynear", "stage_start_features.pth"),
    "merge_nearest": ("loss_tripletloss",),
}


@pytest.fixture
def home(tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with the page's files in ``mine/``, whose base config is the tests' tiny one."""
    (tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        (tmp_path / "mine" / name).write_text(text)
    base = tmp_path / "configs" / "DNMini" / "base.yml"
    base.parent.mkdir(parents=True)
    base.write_text(f"_BASE_: {ROOT / 'tests' / 'tiny.yml'}\n")
    for half in ("train", "test"):
        (tmp_path / "flat" / half).mkdir(parents=True)
        for domain in ("day", "night"):
            lists = tiny_root / "dn348" / "train_test_split" / f"{half}_list_{domain}.txt"
            for line in lists.read_text().split():
                identity, file = line.split("/")
                picture = Image.open(tiny_root / "dn348" / domain / line)
                picture.save(tmp_path / "flat" / half / f"{identity}_{domain}_{file}")
    (tmp_path / "dn348").symlink_to(tiny_root / "dn348")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_page_has_an_example_of_each() -> None:
    assert set(FILES) == {f"{name}.{end}" for name in TRACES for end in ("py", "yml")}


@pytest.mark.parametrize("name", TRACES)
def test_an_example_runs_as_it_stands(name: str, home: Path) -> None:
    cli.main(["--config-file", f"mine/{name}.yml"])
    out = home / "logs" / "mine" / name
    seen = {key for row in [*lines(out / "metrics.json"), *lines(out / "health.jsonl")] for key in row}
    seen |= {path.name for path in out.iterdir()}
    assert set(TRACES[name]) <= seen
    results = json.loads((out / "results.json").read_text())
    assert results["finished"] and ("Flat" if name == "flat" else "DN348") in results


def test_the_whole_system_has_joint_rows_and_a_teacher(home: Path) -> None:
    cli.main(["--config-file", "mine/merge_nearest.yml", "SOLVER.CHECKPOINT_PERIOD", "1"])
    path = home / "logs/mine/merge_nearest/model_final.pth"
    model = torch.load(path, weights_only=True)["model"]
    clusters = {domain: len(model[f"parts.memory.own_{domain}"]) for domain in ("day", "night", "joint")}
    assert max(clusters["day"], clusters["night"]) <= clusters["joint"] < clusters["day"] + clusters["night"]
    assert any(key.startswith("parts.teacher.encoder.") for key in model)


def test_a_finished_stage_is_taken_from_its_file(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = home / "logs/mine/stay_near/stage_start_features.pth"
    cli.main(["--config-file", "mine/stay_near.yml"])
    content, when = torch.load(file, weights_only=True), file.stat().st_mtime_ns
    assert content["finished"] and content["stage"]["result"]["features"].shape == (72, 16)
    cli.main(["--resume", "--config-file", "mine/stay_near.yml"])
    assert file.stat().st_mtime_ns == when


@pytest.mark.slow
def test_a_fresh_process_with_plugins_on_the_command_line(home: Path) -> None:
    (home / "tiny.py").write_text("import tiny_run\n\ntiny_run.register_tiny_backbone()\n")
    names = "('centre_pull', 'tiny')"
    words = ["train", "--config-file", "mine/centre_pull.yml", "PLUGINS", names]
    words += ["MODEL.LOSSES.CENTREPULL.MARGIN", "0.2"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dnreid_plugins", *words]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert any("loss_centrepull" in row for row in lines(home / "logs/mine/centre_pull/metrics.json"))


# ---------------------------------------------------------------- the door: PLUGINS


def refusal(home: Path, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--config-file", "mine/centre_pull.yml", *words])
    return str(ended.value)


def test_a_wrong_plugin_is_a_sentence(home: Path) -> None:
    assert "PLUGINS has 'centre_pul', which is not installed and neither beside the config nor in" in refusal(
        home, "PLUGINS", "('centre_pul',)"
    )
    assert "PLUGINS has 'mine/centre_pull.py'; write a module" in refusal(
        home, "PLUGINS", "('mine/centre_pull.py',)"
    )
    assert "PLUGINS to 3" in refusal(home, "PLUGINS", "3")
    (home / "mine" / "json.py").write_text("")
    assert "PLUGINS has 'json', for which Python takes " in refusal(home, "PLUGINS", "('json',)")


def test_what_a_plugin_lacks_is_no_sentence_about_the_plugin(home: Path) -> None:
    (home / "mine" / "needs_more.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        cli.main(["--config-file", "mine/centre_pull.yml", "PLUGINS", "('needs_more',)"])


def test_a_plugins_keys_are_checked_like_ours(home: Path) -> None:
    assert "did you mean MODEL.LOSSES.CENTREPULL.MARGIN?" in refusal(
        home, "MODEL.LOSSES.CENTREPULL.MARGINS", "1"
    )
    assert "MARGIN is -1.0; it must be at least 0" in refusal(home, "MODEL.LOSSES.CENTREPULL.MARGIN", "-1")


def test_a_script_of_fastreid_reads_the_same_config(home: Path, as_fastreid: None) -> None:
    cfg = get_cfg()
    cfg.merge_from_file("mine/centre_pull.yml")
    assert cfg.MODEL.LOSSES.CENTREPULL.MARGIN == 0.1
    cfg.merge_from_list(["PLUGINS", "('nearest_pairs',)", "MODEL.LOSSES.MATCHNEAREST.LEAST", 0.5])
    assert cfg.MODEL.LOSSES.MATCHNEAREST.LEAST == 0.5
    assert cfg.MODEL.LOSSES.CENTREPULL.MARGIN == 0.1


def test_the_pre_flight_imports_them_and_workers_load_them_too(home: Path) -> None:
    """A script of one's own may build a trainer from a config that no command has read."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.PLUGINS, cfg.DATASETS.NAMES = "cpu", ("mine.flat",), ("Flat",)
    check(cfg)
    sent = [one.call for one in spawn.get_preparation_data("worker")["dnreid_plugins"]]
    assert (importlib.import_module, ("mine.flat",)) in sent
