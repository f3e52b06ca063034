"""What a new system needs beyond the package: a config and at most two files, loaded for the tests of it alone."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fastreid.config import CfgNode, get_cfg
from registrations import registrations_undone
from run_helpers import replays_a_bad_batch

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def addition(request: pytest.FixtureRequest) -> Iterator[dict[str, ModuleType]]:
    """The files of the additions that the test file names in ``ADDITIONS``, imported and registered while it runs."""
    with registrations_undone():
        loaded = {path.stem: _imported(path) for name in request.module.ADDITIONS for path in files(name)}
        yield loaded
    for name in loaded:
        del sys.modules[name]


def files(name: str) -> list[Path]:
    """The Python files of an addition."""
    return sorted((HERE / name).glob("*.py"))


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cfg(
    request: pytest.FixtureRequest,
    addition: dict[str, ModuleType],
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> CfgNode:
    """The config of the first of ``ADDITIONS`` on the tiny data."""
    name = request.module.ADDITIONS[0]
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    cfg = get_cfg()
    cfg.merge_from_file(str(HERE / name / f"{name}.yml"))
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    return cfg


@pytest.fixture
def replays(cfg: CfgNode) -> Callable[[str, int], None]:
    """`run_helpers.replays_a_bad_batch` of the addition's config."""
    return lambda name, iteration: replays_a_bad_batch(cfg, name, iteration)
