"""A run in odd surroundings: permissions, folders, names and ports that another machine may have."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from forked import TINY, Ended, run_forked
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from test_ends import says

from dnreid_plugins.engine import trainer as trainer_module
from dnreid_plugins.runtime import files

AREA = "surroundings"


def trained(ended: Ended, folder: Path) -> bool:
    assert ended.code == 0 and "Traceback" not in ended.said, ended.said[-3000:]
    return (folder / "model_final.pth").is_file()


@pytest.mark.stress
@pytest.mark.attack(AREA, "umask 077, a run and its resume")
def test_umask(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "1"]
    assert trained(run_forked(words, tmp_path, before=lambda: os.umask(0o077)), tmp_path / "out")
    assert (tmp_path / "out" / "model_final.pth").stat().st_mode & 0o077 == 0
    assert trained(
        run_forked(["--resume", *words], tmp_path, before=lambda: os.umask(0o077)), tmp_path / "out"
    )


@pytest.mark.attack(AREA, "no folder for temporary files")
def test_no_folder_for_temporary_files(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    def before() -> None:
        os.environ["TMPDIR"] = str(tmp_path / "gone")
        tempfile._candidate_tempdir_list = lambda: [str(tmp_path / "gone")]  # type: ignore[attr-defined]
        tempfile.tempdir = None

    ended = run_forked(
        ["--num-gpus", "2", *TINY, "OUTPUT_DIR", str(tmp_path / "two")], tmp_path, before=before
    )
    says(ended, 1, "set TMPDIR to one")
    for workers in ("0", "2"):
        words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", workers]
        ended = run_forked(words, tmp_path, before=before)
        if workers == "0":
            assert trained(ended, tmp_path / "out")
        else:
            says(ended, 1, "set TMPDIR to one or DATALOADER.NUM_WORKERS 0")


@pytest.mark.stress
@pytest.mark.attack(AREA, "TensorBoard's file is cut in the middle: a resume goes on")
def test_a_cut_file_of_tensorboard(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert trained(run_forked([*TINY, "OUTPUT_DIR", str(out)], tmp_path), out)
    (events,) = out.glob("events.out.tfevents.*")
    events.write_bytes(events.read_bytes()[:-7])
    (out / "model_final.pth").unlink()
    assert trained(run_forked([*TINY, "--resume", "OUTPUT_DIR", str(out)], tmp_path), out)


@pytest.mark.stress
@pytest.mark.attack(AREA, "file times of whole seconds, of an hour ahead, of 1970")
@pytest.mark.parametrize("when", [0.0, -3600.0, 3600.0])
def test_coarse_and_wrong_file_times(tiny_cfg: CfgNode, tmp_path: Path, when: float) -> None:
    """The newest checkpoint is found and kept whatever the file times say."""

    def before() -> None:
        inner = files.os.replace

        def replaced(source: Any, target: Any) -> None:
            inner(source, target)
            os.utime(target, (0.0, 0.0) if when == 0 else (float(int(time.time() + when)),) * 2)

        files.os.replace = replaced  # type: ignore[assignment]

    out = tmp_path / "out"
    words = [*TINY, "OUTPUT_DIR", str(out), "SOLVER.CHECKPOINT_MINUTES", "1e-9"]
    assert trained(run_forked(words, tmp_path, before=before), out)
    kept = sorted(path.name for path in out.glob("model_iter*.pth"))
    assert kept and kept[-1] == "model_iter00000007.pth"


ODD = ["<b>bold</b>.png", 'quo"te,comma.png', "=1+2.png", "new\nline.png", "ünï 車 .png", "%s{0}\\n.png"]


@pytest.mark.attack(AREA, "names with markup, quotes, line ends, formulas: a run and its tables")
def test_odd_names(tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = sorted(Path(os.environ["FASTREID_DATASETS"]).rglob("*.png"))
    names: set[str] = set()
    for domain in ("day", "night"):
        images = [path for path in sources if domain in path.parts][:36]
        for number, path in enumerate(images):
            target = tmp_path / "crops" / domain / f"{number // 6}<i>" / f"{number}{ODD[number % 6]}"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).save(target)
            names.add(target.name)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "crops"))
    out = tmp_path / "out <b>"
    words = [*TINY, "OUTPUT_DIR", str(out), "DATASETS.NAMES", "('DayNightFolder',)"]
    assert trained(run_forked(words, tmp_path), out)
    with (out / "clusters.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["path"]).name for row in rows} == names


@pytest.mark.attack(AREA, "a data set's name is markup with quotes and line ends: results, TensorBoard, log")
def test_odd_names_of_data_sets(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    odd = '<script>alert("1")</script>|\n%s{0}'

    def before() -> None:
        DATASET_REGISTRY._obj_map[odd] = DATASET_REGISTRY.get("DN348")

    out = tmp_path / "out"
    words = [*TINY, "OUTPUT_DIR", str(out), "DATASETS.TESTS", repr((odd,)), "TEST.EVAL_PERIOD", "1"]
    assert trained(run_forked(words, tmp_path, before=before), out)
    result = json.loads((out / "results.json").read_text())
    assert result[odd]["D2N"]["mAP"] > 0 and result["start"][odd]["D2N"]["mAP"] > 0
    rows = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    assert rows[-1][f"{odd}/D2N/mAP"] == result[odd]["D2N"]["mAP"]
    (events,) = out.glob("events.out.tfevents.*")
    tags = {value.tag for event in EventFileLoader(str(events)).Load() for value in event.summary.value}
    assert {f"{odd}/D2N/mAP", f"{odd}/N2D/mAP"} <= tags
    ended = run_forked(["--resume", *words], tmp_path, before=before)
    assert ended.code == 0, ended.said[-3000:]


@pytest.mark.attack(AREA, "torchrun's port is in use: a sentence")
def test_a_port_in_use(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        def before() -> None:
            os.environ.update(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

        ended = run_forked([*TINY, "OUTPUT_DIR", str(tmp_path / "out")], tmp_path, before=before)
    says(ended, 1, str(port))


@pytest.mark.stress
@pytest.mark.attack(AREA, "the port of --dist-url is in use: a sentence")
def test_the_port_of_several_machines_in_use(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    """On one machine ``--num-gpus 2`` asks for no port; of several machines the first one opens it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--num-gpus", "1", "--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{port}"]
        ended = run_forked([*words, *TINY, "OUTPUT_DIR", str(tmp_path / "out")], tmp_path)
    says(ended, 1, "error: Process 0 of 2 cannot meet the others (The server socket has failed to listen")
    assert str(port) in ended.said


@pytest.mark.stress
@pytest.mark.attack(AREA, "kill -9 while TensorBoard's file is written: a resume goes on")
def test_a_kill_in_tensorboard(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    def before() -> None:
        writer = trainer_module.TensorboardXWriter

        def write(self: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        writer.write = write  # type: ignore[method-assign]

    out = tmp_path / "out"
    words = [*TINY, "OUTPUT_DIR", str(out), "SOLVER.CHECKPOINT_MINUTES", "1e-9"]
    assert run_forked(words, tmp_path, before=before).code == -signal.SIGKILL
    assert trained(run_forked(["--resume", *words], tmp_path), out)
