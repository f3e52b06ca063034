"""Shipped configs by name, wherever the run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.shipped import config_names, config_path, find_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("CIA/dnmini", "projects/CIA/configs/dnmini.yml"),
        ("CIA/dnmini/cma.yml", "projects/CIA/configs/dnmini/cma.yml"),
        ("projects/BridgingDayNight/configs/regdb.yml", "projects/BridgingDayNight/configs/regdb.yml"),
        ("DNMini/base", "configs/DNMini/base.yml"),
        ("Base-CrossDomain", "configs/Base-CrossDomain.yml"),
    ],
)
def test_shipped_configs_are_found_by_name_from_anywhere(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == ROOT / file


def test_a_path_as_given_comes_before_a_shipped_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("CIA").mkdir()
    Path("CIA/dnmini").write_text("MODEL: {DEVICE: cpu}\n")
    assert find_config("CIA/dnmini") == Path("CIA/dnmini")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("CIA/dnmimi", "did you mean CIA/dnmini?"), ("/", "such as DNMini/base"), ("a\0b", "--config-file")],
)
def test_a_config_that_is_not_there_is_one_sentence(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="There is no config file") as caught:
        find_config(name)
    assert hint in str(caught.value)


def test_every_name_that_is_listed_is_found() -> None:
    names = config_names()
    assert {"CIA/dnmini", "BridgingDayNight/dn348", "DNMini/base"} <= set(names)
    assert all(config_path(name).is_file() for name in names) and not any("Base-" in name for name in names)
