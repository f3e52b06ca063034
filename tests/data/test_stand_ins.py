"""Stand-ins: each in its set's layout, read by its reader, scored by its protocol, and known as what it is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from fastreid.config import get_cfg
from fastreid.data.datasets import DATASET_REGISTRY
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from dnreid_plugins.commands.app import app
from dnreid_plugins.data.datasets import configure
from dnreid_plugins.data.datasets.settings import SETTINGS
from dnreid_plugins.dnmini.stand_ins import LAYOUTS, write_stand_in
from dnreid_plugins.evaluation.evaluator import evaluate, in_words


class Colours(nn.Module):
    """Mean colours of a 2 x 3 grid."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(batch["images"], (2, 3)).flatten(1)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each in a folder of data sets of its own, so that a set cannot be read by accident from another."""
    found = {name: tmp_path_factory.mktemp(f"sets of {name}") for name in LAYOUTS}
    for name, root in found.items():
        write_stand_in(name, root, workers=1)
    return found


DIRECTIONS = {
    "SYSUMM01": ["N2D", "N2D indoor", "N2D multi-shot", "N2D indoor multi-shot", "D2D", "N2N"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_protocol_runs_from_disk_to_figures(
    name: str, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(roots[name]))
    cfg = get_cfg()
    cfg.INPUT.SIZE_TEST, cfg.DATALOADER.NUM_WORKERS, cfg.TEST.WITHIN_DOMAIN = [16, 24], 0, True
    dataset = DATASET_REGISTRY.get(name)()
    layout = LAYOUTS[name]()
    marked = {layout.images[os.path.relpath(item.path, dataset.root)][0] for item in dataset.train}
    if name != "DayNightFolder":
        asked = {layout.images[os.path.relpath(item.path, dataset.root)][0] for item in dataset.test}
        assert marked and asked and not marked & asked
    for item in [*dataset.train, *dataset.test]:
        assert layout.images[os.path.relpath(item.path, dataset.root)][1] == item.domain
    results = evaluate(Colours(), dataset, cfg)
    assert list(results) == DIRECTIONS.get(name, ["D2N", "N2D", "D2D", "N2N"])
    for direction, figures in results.items():
        assert 0 < figures["mAP"] < 100, direction
    words = in_words(dataset.protocol, cfg)
    assert "a stand-in, not the real set" in words and "cosine distances" in words


@pytest.mark.parametrize("trial", [1, 10])
def test_regdb_has_ten_splits(roots: dict[str, Path], trial: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SETTINGS, "regdb_trial", 1)
    cfg = get_cfg()
    cfg.DATASETS.REGDB_TRIAL = trial
    configure(cfg)
    data = DATASET_REGISTRY.get("RegDB")(roots["RegDB"])
    assert len(data.train) == len(data.test) == 96 and len({item.pid for item in data.test}) == 12
    other = DATASET_REGISTRY.get("RegDB")(roots["RegDB"], trial=5)
    assert {item.path for item in other.test} != {item.path for item in data.test}


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def test_the_bytes_depend_on_the_seed_alone(roots: dict[str, Path], tmp_path: Path) -> None:
    first = roots["RegDB"] / "RegDB"
    assert digest(write_stand_in("RegDB", tmp_path / "a", workers=2)) == digest(first)
    assert digest(write_stand_in("RegDB", tmp_path / "b", seed=1, workers=1)) != digest(first)
    picture = Image.open(first / "Thermal" / "1" / "t_1.bmp")
    assert picture.format == "BMP" and picture.size == (128, 80)
    assert len({path.read_bytes() for path in first.rglob("*.bmp")}) == 192


def test_the_command_writes_once_and_never_into_another_set(tmp_path: Path) -> None:
    out = tmp_path / "my sets"
    result = CliRunner().invoke(app, ["fake-dataset", "dn348", "--out", str(out)])
    assert result.exit_code == 0, result.exception
    assert "a stand-in of DN348, not the real set" in result.output
    assert f"FASTREID_DATASETS='{out}'" in result.output and "DATASETS.NAMES \"('DN348',)\"" in result.output
    mark = json.loads((out / "dn348" / "stand-in.json").read_text())
    assert mark == {"stand_in_of": "DN348", "images": 216, "seed": 0}
    before = digest(out)
    assert CliRunner().invoke(app, ["fake-dataset", "DN348", "--out", str(out)]).exit_code == 0
    assert digest(out) == before
    other = CliRunner().invoke(app, ["fake-dataset", "DN348", "--out", str(out), "--seed", "3"])
    assert isinstance(other.exception, ValueError) and "is there already" in str(other.exception)
    assert digest(out) == before


def test_a_real_set_is_neither_written_into_nor_hidden(tmp_path: Path) -> None:
    (tmp_path / "sysu" / "cam1").mkdir(parents=True)  # another name that the reader looks for
    with pytest.raises(ValueError, match=r"sysu' is there already and is not this stand-in of SYSUMM01"):
        write_stand_in("SYSUMM01", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sysu"]
    with pytest.raises(ValueError, match="no stand-in of 'Market1501'; choose one of DN348"):
        write_stand_in("Market1501", tmp_path)
    with pytest.raises(ValueError, match="seed is -1"):
        write_stand_in("LLCM", tmp_path, seed=-1)


def test_a_stand_in_that_is_cut_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dnreid_plugins.dnmini.stand_ins import write

    def full(*args: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "_encoded", full)
    with pytest.raises(OSError, match="No space left"):
        write_stand_in("RegDB", tmp_path, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_no_two_files_show_the_same_picture() -> None:
    for layout in (make() for make in LAYOUTS.values()):
        views = list(layout.images.values())
        assert len(set(views)) == len(views)
