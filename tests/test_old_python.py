"""A Python that is too old gets one sentence."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRETEND = "import sys; sys.version_info = (3, 9, 18, 'final', 0); "
SENTENCE = "dnreid_plugins needs Python 3.10 or newer, this is 3.9: run it with a newer one"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRETEND + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.strip()


def test_the_commands_say_it_and_nothing_else() -> None:
    train_net = "import runpy; runpy.run_path('tools/train_net.py', run_name='__main__')"
    said = run(train_net).splitlines()
    assert said == ["dnreid_plugins: loading PyTorch and fast-reid ...", f"error: {SENTENCE}"]
    command = "import runpy; sys.argv = ['-m']; runpy._run_module_as_main('dnreid_plugins')"
    said = run(command)
    assert SENTENCE in said and "\n" not in said


def test_an_import_says_it_last() -> None:
    assert run("import dnreid_plugins").splitlines()[-1] == f"ImportError: {SENTENCE}"


def test_the_file_that_says_it_can_be_parsed_by_an_old_python() -> None:
    for name in ("dnreid_plugins/__init__.py", "tools/train_net.py"):
        ast.parse((ROOT / name).read_text(), feature_version=(3, 8))
