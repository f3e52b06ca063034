"""Print the five longest files and functions; fail if one exceeds the budget of CONTRIBUTING.md."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("dnreid_plugins", "tools", "benchmarks", "projects")
MAX_FILE, MAX_FUNCTION, SHOWN = 300, 80, 5


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(lines, "file:line name")`` of each function in a file, docstring included."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield length, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def measure() -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Return files and functions, longest first, as ``(lines, name)``."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    files = [
        (len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(ROOT))) for path in paths
    ]
    found = [item for path in paths for item in functions(path)]
    return sorted(files, reverse=True), sorted(found, reverse=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-file", type=int, default=MAX_FILE)
    parser.add_argument("--max-function", type=int, default=MAX_FUNCTION)
    args = parser.parse_args()
    too_long = 0
    for title, items, limit in zip(("files", "functions"), measure(), (args.max_file, args.max_function)):
        print(f"longest {title} (budget {limit} lines):")
        for length, name in items[:SHOWN]:
            print(f"  {length:4d}  {name}{'  <-- too long' if length > limit else ''}")
        too_long += sum(length > limit for length, _ in items)
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
