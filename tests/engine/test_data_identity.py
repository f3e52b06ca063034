"""A run is of its data: what changed between a stop and the resume is one sentence, and never trained on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from fastreid.config import CfgNode
from PIL import Image
from run_helpers import StoppedError, stop_at

import dnreid_plugins
from dnreid_plugins.data.digest import DataDigest
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.engine.identity import (
    LIBRARIES,
    READERS,
    RunIdentity,
    code_version,
    config_hash,
    source_digest,
)
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.runtime.plugins import import_plugins
from dnreid_plugins.runtime.weight_files import read_weight_file


def lines(root: Path, name: str) -> Path:
    return root / "dn348" / "train_test_split" / f"{name}.txt"


def added(root: Path) -> None:
    shutil.copy(root / "dn348/day/00000/000.png", root / "dn348/day/00000/0005.png")
    with lines(root, "train_list_day").open("a") as file:
        file.write("00000/0005.png\n")


def removed(root: Path) -> None:
    listing = lines(root, "train_list_day")
    listing.write_text("\n".join(listing.read_text().splitlines()[1:]) + "\n")


def replaced(root: Path) -> None:
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(root / "dn348/night/00002/003.png")


def blackened(root: Path) -> None:
    for path in (root / "dn348/day").rglob("*.png"):
        Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(path)


def swapped(root: Path) -> None:
    for first, second in (("day", "other"), ("night", "day"), ("other", "night")):
        (root / "dn348" / first).rename(root / "dn348" / second)


def another_list(root: Path) -> None:
    lines(root, "train_list_night").write_text(lines(root, "test_list_night").read_text())


def scored_on_another(root: Path) -> None:
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(root / "dn348/night/00007/003.png")


CHANGES: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "an image added",
        added,
        r"training images: day/00000/0005.png is new \(1 differences; 73 images now, 72 then\)",
    ),
    ("an image removed", removed, r"training images: day/00000/000.png is gone \(1 diff"),
    (
        "an image replaced",
        replaced,
        r"training images: night/00002/003.png has size \d+ in place of \d+ \(1 diff",
    ),
    (
        "all pixels of a domain replaced",
        blackened,
        r"day/00000/000.png has size \d+ in place of \d+ \(36 diff",
    ),
    ("day and night swapped", swapped, r"day/00000/000.png has size \d+ in place of \d+"),
    ("another list", another_list, r"night/00000/000.png is gone"),
    ("a test image replaced", scored_on_another, r"DN348: night/00007/003.png has size \d+ in place of"),
]


@pytest.fixture
def own_root(tiny_cfg: CfgNode, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny set that a test may change."""
    shutil.copytree(tiny_root, tmp_path / "data")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    return tmp_path / "data"


def cut(cfg: CfgNode, iteration: int) -> None:
    cfg.SOLVER.CHECKPOINT_MINUTES = 1e-9
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load(resume=False)
    stop_at(trainer, iteration)
    with pytest.raises(StoppedError):
        trainer.train()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            change, sentence, id=name, marks=pytest.mark.attack("data changed before --resume", name)
        )
        for name, change, sentence in CHANGES
    ],
)
def test_a_resume_refuses_other_data(
    tiny_cfg: CfgNode, own_root: Path, change: Callable[[Path], None], sentence: str
) -> None:
    tiny_cfg.TEST.EVAL_START = change is scored_on_another
    cut(tiny_cfg, 2)
    change(own_root)
    again = CrossDomainTrainer(tiny_cfg)
    with pytest.raises(ValueError, match=f"^The data changed since this run began, .*{sentence}"):
        again.resume_or_load(resume=True)


@pytest.mark.attack("data changed before --resume", "pixels of one size, DATASETS.DIGEST content")
def test_contents_are_compared_on_request(tiny_cfg: CfgNode, own_root: Path) -> None:
    tiny_cfg.DATASETS.DIGEST, tiny_cfg.TEST.EVAL_START = "content", False
    cut(tiny_cfg, 2)
    image = own_root / "dn348/day/00001/001.png"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    with pytest.raises(ValueError, match=r"day/00001/001.png has content \w{16} in place of \w{16} \(1 diff"):
        CrossDomainTrainer(tiny_cfg).resume_or_load(resume=True)
    tiny_cfg.DATASETS.DIGEST = "list"
    CrossDomainTrainer(tiny_cfg).resume_or_load(resume=True)


@pytest.mark.attack("data changed before --resume", "the data set lies elsewhere: goes on")
def test_the_same_data_elsewhere_is_the_same(
    tiny_cfg: CfgNode, own_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(tiny_cfg, 2)
    own_root.rename(tmp_path / "moved")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "moved"))
    again = CrossDomainTrainer(tiny_cfg)
    again.resume_or_load(resume=True)
    assert again.iter == 2


@pytest.mark.attack("data changed before --resume", "in stage 1 of Bridging")
def test_a_stage_refuses_other_data(tiny_bridging_cfg: CfgNode, own_root: Path) -> None:
    cfg = tiny_bridging_cfg
    cfg.TEST.EVAL_START, cfg.SOLVER.CHECKPOINT_MINUTES = False, 0.0
    first = CrossDomainTrainer(cfg)
    first.resume_or_load(resume=False)
    stop_at(first, 0)
    with pytest.raises(StoppedError):
        first.train()
    file = Path(cfg.OUTPUT_DIR) / "stage1.pth"
    assert set(read_weight_file(file)) >= {"data", "config_hash", "code_version"}
    replaced(own_root)
    again = CrossDomainTrainer(cfg)
    again.resume_or_load(resume=True)
    with pytest.raises(ValueError, match="training images: night/00002/003.png has size"):
        again.train()


def test_a_supervised_run_has_a_digest_too(supervised_cfg: CfgNode, own_root: Path) -> None:
    supervised_cfg.SOLVER.CHECKPOINT_PERIOD = 1
    cut(supervised_cfg, 3)
    replaced(own_root)
    with pytest.raises(ValueError, match="training images: night/00002/003.png has size"):
        CrossDomainTrainer(supervised_cfg).resume_or_load(resume=True)


def test_names_and_differences(tmp_path: Path) -> None:
    names = ["a\nb.png", "c\udcff.png", "d\t.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"123")
    items = [DomainItem(str(tmp_path / name), "x_1", "x_0", Domain.DAY) for name in names]
    plain, read = DataDigest.of(items), DataDigest.of(items, content=True)
    assert DataDigest.from_text(plain.text) == plain and len(plain.lines) == 3
    assert read.name.startswith(plain.name + "-") and read.difference(plain) is None
    night = [*items[:2], DomainItem(str(tmp_path / names[2]), "x_1", "x_0", Domain.NIGHT)]
    assert "domain night in place of day" in str(DataDigest.of(night).difference(plain))
    other = [*items[:2], DomainItem(str(tmp_path / names[2]), "x_2", "x_0", Domain.DAY)]
    assert "identity x_2 in place of x_1" in str(DataDigest.of(other).difference(plain))
    assert "the order is another one from" in str(DataDigest.of(items[::-1]).difference(plain))
    assert "is new (1 differences; 4 images now, 3 then)" in str(
        DataDigest.of([*items, items[0]]).difference(plain)  # one file in two data sets
    )
    assert DataDigest.of([("absent.png", 1, 2)]).lines == ('["absent.png", "day", "1", "2", -1, ""]',)
    assert DataDigest.of([]).name == DataDigest.from_text("").name


def test_the_code_version_names_all_that_decides_the_bits(tmp_path: Path) -> None:
    for name in LIBRARIES:
        assert f"{name} {metadata.version(name)}" in code_version()
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("a")
    (tmp_path / "w.safetensors").write_bytes(b"w")
    seen = [source_digest(tmp_path)]
    (tmp_path / "w.safetensors").write_bytes(b"v")
    seen.append(source_digest(tmp_path))
    (tmp_path / "room" / "a.py").write_text("b")
    seen.append(source_digest(tmp_path))
    (tmp_path / "room" / "a.py").rename(tmp_path / "room" / "c.py")
    seen.append(source_digest(tmp_path))
    assert len(set(seen)) == 4
    (tmp_path / "notes.txt").touch()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "a.py").touch()
    assert source_digest(tmp_path) == seen[-1]
    package = Path(dnreid_plugins.__file__).parent
    assert source_digest(package) in code_version()


def test_rooms_that_do_not_count_are_above_the_engine() -> None:
    """What the engine and all below it cannot import cannot decide a figure of a run."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert set(READERS) <= set(layers[: layers.index("engine")])


def test_a_plugin_that_was_changed_makes_another_config_and_is_said_on_a_resume(
    tiny_cfg: CfgNode, tmp_path: Path, scratch: None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "experiments" / "own_part.py"
    file.parent.mkdir()
    file.write_text("VALUE = 1\n")
    plain = config_hash(tiny_cfg)
    import_plugins(("own_part",), file.parent)
    tiny_cfg.PLUGINS = ("own_part",)
    named = config_hash(tiny_cfg)
    before = RunIdentity(tiny_cfg).state()
    file.write_text("VALUE = 2\n")
    import_plugins(("own_part",), file.parent)
    assert config_hash(tiny_cfg) == named != plain  # what this process has imported
    del sys.modules["own_part"]
    import_plugins(("own_part",), file.parent)
    assert config_hash(tiny_cfg) not in (plain, named)
    RunIdentity(tiny_cfg).compare_config(before["config"])
    assert "resume: the source of PLUGINS was " in caplog.text
