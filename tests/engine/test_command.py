"""``python -m dnreid_plugins``: what it runs, and that it says so before it imports anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fastreid.config import CfgNode
from test_scripts import ROOT

from dnreid_plugins import __main__ as command
from dnreid_plugins import cli
from dnreid_plugins.engine import script_door as as_fastreid
from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.shipped import config_names, config_path

TELLS = "import json, sys; json.dump([__name__, sys.argv, __spec__.name], open('told.json', 'w'))\n"


@pytest.fixture(autouse=True)
def _leave_fastreid_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_fastreid, "take_over", lambda: None)


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dnreid_plugins", *words])
    command.main()


def test_a_module_runs_as_python_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_project"
    package.mkdir()
    for name in ("__init__", "__main__", "train"):
        (package / f"{name}.py").write_text("" if name == "__init__" else TELLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, file in (("own_project", "__main__"), ("own_project.train", "train")):
        start(monkeypatch, "-m", name, "--resume", "A", "1")
        told = json.loads(Path("told.json").read_text())
        assert told == [
            "__main__",
            [str(package / f"{file}.py"), "--resume", "A", "1"],
            f"own_project.{file}",
        ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "error: no command or script was given.\nusage: .*COMMAND.*-m MODULE.*list KIND"),
        (["-m"], "error: -m must be followed by the name of a module"),
        (["-m", "no_such_module"], "error: No module named no_such_module; name a module"),
        (["-m", "json"], "error: No module named json.__main__; 'json' is a package"),
        (["absent.py"], "error: there is no command and no script 'absent.py'; name one of check, train, "),
        (["list", "metods"], "error: .*'metods'.*methods, parts, datasets, configs, backbones"),
        (["list"], "error: .*methods, parts, datasets, configs, backbones"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=f"(?s)^{sentence}"):
        start(monkeypatch, *words)


def test_a_module_that_misses_an_import_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "misses.py").write_text("import no_such_thing_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_thing_at_all"):
        start(monkeypatch, "-m", "misses")


def test_the_plug_ins_errors_are_sentences_in_a_script_and_its_own_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("from dnreid_plugins.runtime.shipped import config_path\nconfig_path('CIA/dnmimi')\n")
    with pytest.raises(
        SystemExit, match="^error: There is no config file CIA/dnmimi; did you mean CIA/dnmini"
    ):
        start(monkeypatch, str(script))
    script.write_text("raise ValueError('of my own')\n")
    with pytest.raises(ValueError, match="of my own"):
        start(monkeypatch, str(script))


def test_the_demo_is_the_command_line_on_the_shipped_config(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "main", seen.append)
    start(monkeypatch, "demo", "SEED", "3")
    assert seen == [["--config-file", str(ROOT / "configs/DNMini/demo.yml"), "SEED", "3"]]
    demo, cia = (
        CfgNode.load_yaml_with_base(str(path))
        for path in (seen[0][1], ROOT / "projects/CIA/configs/dnmini.yml")
    )
    workers = {**cia["DATALOADER"], "NUM_WORKERS": 1}
    assert demo == {**cia, "OUTPUT_DIR": "logs/demo", "DATALOADER": workers}
    assert "-m dnreid_plugins demo" in (ROOT / "Makefile").read_text()


def test_every_shipped_config_has_a_name_and_merges() -> None:
    assert {"CIA/dn348", "BridgingDayNight/dnmini", "DNMini/base"} <= set(config_names())
    for name in config_names():
        CfgNode.load_yaml_with_base(str(config_path(name)))
    with pytest.raises(ConfigError, match="no config file nothing like it"):
        config_path("nothing like it")


def test_it_speaks_before_it_imports_what_takes_seconds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dnreid_plugins"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1 and "no command or script was given" in done.stderr
    assert " torch" not in done.stderr and "fastreid.data" not in done.stderr
