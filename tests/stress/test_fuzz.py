"""Damaged and hostile input: one clear sentence or a right result, never anything else."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger import record
from mutations import mutated
from PIL import Image
from torch import nn

from dnreid_plugins.data.datasets.day_night_lists import DN348
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.images import read_image
from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.engine.preflight.training import check
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.config_files import ConfigError, known_keys, merge_with_suggestions
from dnreid_plugins.runtime.sentences import USER_ERRORS
from dnreid_plugins.runtime.weight_files import WeightFileError, read_weight_file

quick_and_long = pytest.mark.parametrize(
    "count", [60, pytest.param(10_000, marks=pytest.mark.stress)], ids=["quick", "long"]
)


def attack(area: str, count: int, one: Callable[[random.Random], bool], allowed: Any) -> Counter[str]:
    """Call ``one`` with ``count`` generators; it returns whether a result is right, or raises an allowed error."""
    outcome: Counter[str] = Counter()
    for seed in range(count):
        try:
            outcome["right" if one(random.Random(seed)) else "WRONG"] += 1
        except allowed as error:
            sentence = str(error)
            ok = sentence and len(sentence) < 2000 and "Traceback" not in sentence
            outcome["said" if ok else "UNCLEAR"] += 1
        except Exception as error:
            outcome[f"{type(error).__name__}: {str(error)[:200]} (seed {seed})"] += 1
    good = outcome["right"] + outcome["said"]
    if count >= 1000:
        other = ", ".join(key for key in outcome if key not in ("right", "said"))
        record("hostile input", area, tried=count, survived=good, lost=other)
    assert good == count, {key: number for key, number in outcome.items() if key not in ("right", "said")}
    return outcome


# ------------------------------------------------------------------ checkpoints


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.heads = nn.Linear(4, 3)


class Payload:
    """Leaves a file behind when somebody unpickles it."""

    canary = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.canary}",))


@quick_and_long
def test_mutated_checkpoints(tmp_path: Path, count: int) -> None:
    """Whatever is read back is the saved state to the bit; everything else is refused; no code runs."""
    model = Model()
    whole = AtomicCheckpointer(model, str(tmp_path / "whole"))
    whole.save("model_0001", iteration=7, generators=[{"torch": torch.get_rng_state()}])
    data = (tmp_path / "whole" / "model_0001.pth").read_bytes()
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    folder = tmp_path / "broken"
    folder.mkdir()
    path, canary = folder / "model_0001.pth", tmp_path / "canary"
    Payload.canary = str(canary)
    pickled = pickle.dumps({"model": Payload()})

    def one(rng: random.Random) -> bool:
        broken = mutated(data, rng)
        if rng.random() < 0.1:
            broken = _with_payload(data, pickled) if rng.random() < 0.5 else mutated(pickled, rng)
        path.write_bytes(broken)
        state = AtomicCheckpointer(model, str(folder)).load_newest()
        return (
            state["iteration"] == 7
            and state["model"].keys() == saved.keys()
            and all(torch.equal(value, saved[key]) for key, value in state["model"].items())
            and torch.equal(state["generators"][0]["torch"], whole.load_newest()["generators"][0]["torch"])
        )

    outcome = attack("checkpoint bytes", count, one, WeightFileError)
    assert outcome["said"] > count // 2
    assert not canary.exists()


def _with_payload(data: bytes, payload: bytes) -> bytes:
    """A sound archive whose pickle runs a command."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            new.writestr(member, payload if member.filename.endswith("data.pkl") else old.read(member))
    return buffer.getvalue()


@quick_and_long
def test_mutated_safetensors(tmp_path: Path, count: int) -> None:
    """The format has no checksum, so flipped values cannot be noticed; names, shapes and offsets can."""
    from safetensors.torch import save

    data = save({"a": torch.arange(12.0).view(3, 4), "b": torch.ones(2, dtype=torch.int64)})
    path = tmp_path / "w.safetensors"

    def one(rng: random.Random) -> bool:
        path.write_bytes(mutated(data, rng))
        return all(isinstance(value, torch.Tensor) for value in read_weight_file(path).values())

    attack("safetensors bytes", count, one, WeightFileError)


# ------------------------------------------------------------------ images and lists


@quick_and_long
def test_mutated_images(tmp_path: Path, count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    originals = []
    for suffix in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, suffix)
        originals.append((f"x.{suffix}", buffer.getvalue()))

    def one(rng: random.Random) -> bool:
        name, data = rng.choice(originals)
        path = tmp_path / name
        path.write_bytes(mutated(data, rng))
        image = read_image(str(path))
        return image.mode == "RGB" and min(image.size) > 0

    attack("image bytes", count, one, DataError)


@pytest.mark.filterwarnings("ignore")
@quick_and_long
def test_mutated_lists(tiny_root: Path, tmp_path: Path, count: int) -> None:
    """Every item that a reader gives exists and lies in the data folder."""
    root = tmp_path / "dn348"
    root.mkdir()
    for name in ("day", "night"):
        (root / name).symlink_to(tiny_root / "dn348" / name)
    lists = root / "train_test_split"
    lists.mkdir()
    originals = {
        path.name: path.read_bytes() for path in (tiny_root / "dn348" / "train_test_split").glob("*.txt")
    }

    def one(rng: random.Random) -> bool:
        broken = rng.choice(sorted(originals))
        for name, data in originals.items():
            (lists / name).write_bytes(mutated(data, rng) if name == broken else data)
        items = [*DN348(str(tmp_path)).train, *DN348(str(tmp_path)).test]
        inside = all(Path(item[0]).is_relative_to(root) and ".." not in item[0] for item in items)
        return inside and all(Path(item[0]).is_file() for item in items)

    attack("list files", min(count, 2000), one, DataError)


# ------------------------------------------------------------------ configs


@quick_and_long
def test_mutated_config_files(tmp_path: Path, count: int) -> None:
    data = (Path(__file__).resolve().parents[1] / "tiny.yml").read_bytes()
    data = data.replace(b"../configs", str(Path(__file__).resolve().parents[2] / "configs").encode())
    path = tmp_path / "c.yml"

    def one(rng: random.Random) -> bool:
        path.write_bytes(mutated(data, rng))
        cfg = get_cfg()
        merge_with_suggestions(cfg, str(path))
        try:
            check(cfg)
        except ConfigError:
            return True
        return True

    attack("config files", min(count, 2000), one, ConfigError)


KEYS = known_keys(get_cfg())
VALUES = st.one_of(
    st.integers(-3, 70),
    st.floats(),
    st.booleans(),
    st.sampled_from(
        ["", "cpu", "nonsense", "((1, 0.5),)", "[]", "()", "None", "[1, 2]", "1e400", "(" * 300, "\0"]
    ),
    st.text(max_size=8),
)


def overrides(keys: list[str], size: int) -> st.SearchStrategy[list[tuple[str, Any]]]:
    return st.lists(st.tuples(st.sampled_from(keys), VALUES), min_size=1, max_size=size)


def merged(pairs: list[tuple[str, Any]]) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).resolve().parents[1] / "tiny.yml"))
    merge_with_suggestions(cfg, "", [item for key, value in pairs for item in (key, str(value))])
    return cfg


def _overrides_are_taken_or_refused(pairs: list[tuple[str, Any]]) -> None:
    try:
        check(merged(pairs))
    except ConfigError as error:
        assert str(error)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(overrides(KEYS, 4))
def test_overrides(pairs: list[tuple[str, Any]]) -> None:
    _overrides_are_taken_or_refused(pairs)


#: One entry per set of overrides that the long version tried.
TRIED: list[int] = []


@settings(max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(overrides(KEYS, 4))
def _many_overrides(pairs: list[tuple[str, Any]]) -> None:
    TRIED.append(len(pairs))
    _overrides_are_taken_or_refused(pairs)


@pytest.mark.stress
def test_many_overrides() -> None:
    TRIED.clear()
    lost = "a failing example, see the log"
    try:
        _many_overrides()
        lost = ""
    finally:
        survived = len(TRIED) - bool(lost)
        record("hostile input", "config overrides", tried=len(TRIED), survived=survived, lost=lost)


#: Keys that shape a run of the tiny config; the rest is checked by name, type and pre-flight only.
RUN_SECTIONS = ("CLUSTER", "SOLVER", "DATALOADER", "TEST", "AUDIT", "SEED", "INPUT")
RUN_SECTIONS += ("MODEL.LOSSES.CLUSTERNCE", "MODEL.LOSSES.DGM", "MODEL.LOSSES.MAA", "MODEL.LOSSES.PGM")
RUN_SECTIONS += (
    "MODEL.LOSSES.TRI",
    "MODEL.TEACHER",
    "LABELS",
    "MODEL.DUAL_STREAM",
    "MODEL.MEMORY",
    "MODEL.HEADS",
    "MODEL.PIXEL",
    "MODEL.FREEZE",
)
RUN_KEYS = [key for key in KEYS if key.startswith(RUN_SECTIONS)]
#: These make a run long, not wrong.
SLOW_KEYS = (
    "SOLVER.MAX_EPOCH",
    "DATALOADER.ITERS_PER_EPOCH",
    "DATALOADER.NUM_WORKERS",
    "INPUT.RPT",
    "INPUT.SIZE",
)


def _run_or_say(pairs: list[tuple[str, Any]], folder: Path) -> str:
    base: list[tuple[str, Any]] = [
        ("MODEL.LOSSES.NAME", "['ClusterNCE', 'DGM', 'MAA', 'PGM', 'TripletLoss']")
    ]
    base += [("SOLVER.MAX_EPOCH", 2), ("DATALOADER.ITERS_PER_EPOCH", 2), ("OUTPUT_DIR", str(folder))]
    try:
        CrossDomainTrainer(merged(base + pairs)).train()
    except USER_ERRORS as error:
        assert str(error) and "\n\n" not in str(error)
        return "said"
    return "right"


@pytest.mark.parametrize("count", [15, pytest.param(1500, marks=pytest.mark.stress)], ids=["quick", "long"])
def test_runs_under_random_overrides(tiny_cfg: CfgNode, tmp_path: Path, count: int) -> None:
    """Two epochs of two steps: they run, or what stops them is a sentence."""
    keys = [key for key in RUN_KEYS if not key.startswith(SLOW_KEYS)]
    values = [
        -1,
        0,
        1,
        2,
        3,
        7,
        1000,
        0.0,
        0.5,
        1.0,
        -0.5,
        "nan",
        "inf",
        True,
        False,
        "",
        "nonsense",
        "()",
        "[0]",
    ]

    def one(rng: random.Random) -> bool:
        pairs = [(rng.choice(keys), rng.choice(values)) for _ in range(rng.randint(1, 2))]
        try:
            return _run_or_say(pairs, tmp_path / "run") == "right"
        except USER_ERRORS:
            raise
        except Exception as error:
            raise RuntimeError(f"{pairs}: {type(error).__name__} {error}") from error

    def counted(rng: random.Random) -> bool:
        one(rng)
        return True

    attack("runs under random overrides", count, counted, ())
