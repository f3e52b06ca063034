"""Cut one wire after the other in a copy of the tree and see whether a test notices; `make mutate`.

    python tools/mutate.py                    # every cut of tests/wires.yml
    python tools/mutate.py --only memory      # those whose sentence has this word

A cut is a piece of text that is replaced in one file, and the tests that must fail then. It ends with code 1 when one
survives, or when its text is no longer in the file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
WIRES = ROOT / "tests" / "wires.yml"


@dataclass(frozen=True)
class Cut:
    """``cut``: what no longer happens; ``tests``: words for pytest, one of which must fail."""

    cut: str
    file: str
    old: str
    new: str
    tests: str


def read_cuts(path: Path = WIRES) -> list[Cut]:
    """All cuts of the list."""
    return [Cut(**one) for one in yaml.safe_load(path.read_text(encoding="utf-8"))]


def copy_tree(target: Path) -> None:
    """The files that git knows, and those that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def outcome(cut: Cut, tree: Path) -> str:
    """What became of the cut: "killed", "survived" or why it could not be tried."""
    path = tree / cut.file
    text = path.read_text(encoding="utf-8")
    if text.count(cut.old) != 1:
        return f"not tried: its text stands {text.count(cut.old)} times in {cut.file}"
    path.write_text(text.replace(cut.old, cut.new), encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *cut.tests.split()]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    code = subprocess.run(words, cwd=tree, env=env, capture_output=True).returncode
    path.write_text(text, encoding="utf-8")
    return {0: "survived", 1: "killed"}.get(code, f"not tried: pytest ended with {code}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a word of the cuts that are wanted")
    args = parser.parse_args()
    cuts = [cut for cut in read_cuts() if args.only in cut.cut]
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for cut in cuts:
            end = outcome(cut, Path(folder))
            killed += end == "killed"
            print(f"{end:10} {cut.cut}", flush=True)
    print(f"{killed} of {len(cuts)} killed")
    sys.exit(killed != len(cuts))


if __name__ == "__main__":
    main()
