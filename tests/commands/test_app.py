"""``dnreid``: quick where nothing is computed, one sentence for whatever is wrong, and one implementation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dnreid_plugins import __main__ as module
from dnreid_plugins import cli
from dnreid_plugins.commands import app, loading

ROOT = Path(__file__).resolve().parents[2]
#: What pip writes as the command `dnreid`.
SCRIPT = "import sys\nfrom dnreid_plugins.commands.app import main\nsys.exit(main())\n"


def dnreid(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "dnreid"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(script), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "Find the most similar"),
        (["train", "--help"], 0, "--night"),
        ([], 0, "Commands"),
        (["configs"], 0, "CIA/dn348"),
        (["methods"], 0, "PCLHD"),
        (["tran"], 1, "error: There is no command 'tran'; did you mean train or trials?"),
        (["train", "ciaa", "--data", "dn348"], 1, "error: There is no system 'ciaa'; did you mean CIA"),
        (["eval", "nowhere"], 1, "error: nowhere is not a folder; name the OUTPUT_DIR of a run."),
    ],
)
def test_what_computes_nothing_imports_nothing_large(
    words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    done = dnreid(tmp_path, *words)
    imports = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == code and said in done.stdout + done.stderr
    assert "typer" in imports and not imports & {"torch", "numba", "matplotlib", "faiss", "fastapi"}


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    words = {"_DNREID_COMPLETE": "complete_bash", "COMP_WORDS": "dnreid tr", "COMP_CWORD": "1"}
    assert {"train", "trials"} <= set(dnreid(tmp_path, **words).stdout.split())


def test_an_import_in_a_process_that_the_command_started_loads_everything(tmp_path: Path) -> None:
    """Such a process has the command's ``argv``, but not its ``orig_argv``."""
    code = f"import sys; sys.argv = [{str(tmp_path / 'dnreid')!r}, 'train']; import dnreid_plugins; "
    code += "from fastreid.config import get_cfg; print('CLUSTER' in get_cfg())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("name", list(app.COMMANDS))
def test_every_command_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app.main([name, "--help"])
    text = capsys.readouterr().out
    assert f"Usage: dnreid {name} " in text
    assert " ".join(text.split()).count("--help") >= 1


def test_both_doors_lead_to_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "main", seen.append)
    monkeypatch.setattr(loading, "load", lambda: None)
    words = ["train", "--resume", "--config-file", "CIA/dnmini", "SEED", "-1"]
    app.main(words)
    monkeypatch.setattr(sys, "argv", ["x", *words])
    module.main()
    assert seen[0] == seen[1]
    assert seen[0][:2] == ["--config-file", str(ROOT / "projects/CIA/configs/dnmini.yml")]
    assert seen[0][-2:] == ["SEED", "-1"] and "--resume" in seen[0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("One sentence."), "One sentence."),
        (FileNotFoundError(2, "No such file", "a.txt"), "a.txt cannot be read or written .No such file"),
        (MemoryError(), "Memory ran out"),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_sentence(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine() -> None:
        raise error

    monkeypatch.setattr("dnreid_plugins.engine.doctor.examine", examine)
    with pytest.raises(SystemExit, match=f"^error: {said}"):
        app.main(["doctor"])
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        app.main(["doctor"])


def test_the_exit_code_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnreid_plugins.engine.doctor.examine", lambda: ("", False))
    with pytest.raises(SystemExit) as left:
        app.main(["doctor"])
    assert left.value.code == 1
    monkeypatch.setattr("dnreid_plugins.engine.doctor.examine", lambda: ("", True))
    app.main(["doctor"])
