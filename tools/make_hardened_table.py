"""Write docs/fast-reid-hardened.md from the docstrings of tests/test_fastreid_traps.py (--check: only compare)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence

from made_page import ROOT, cell, write_or_check

TESTS = ROOT / "tests" / "test_fastreid_traps.py"
DOCUMENT = ROOT / "docs" / "fast-reid-hardened.md"

SECTIONS = {
    "S": "Silent wrong results",
    "M": "Models",
    "D": "Data",
    "T": "Solver, trainer, hooks, checkpoints",
    "E": "Evaluation",
}
HEAD = """# What fast-reid 1.4.0 does, and what happens here instead

Found by running fast-reid 1.4.0 on Python 3.11 and PyTorch 2 on a CPU. Every row is a test of that number in
`tests/test_fastreid_traps.py`: it asserts what plain fast-reid does, so that a change upstream is noticed, and what
this package does. A row is *mended* from outside (nothing is written into fast-reid's folder) or *refused* before the
first epoch with a sentence that names the key, its value and the way out.

This file is made by `python tools/make_hardened_table.py`; do not edit it.
"""


def rows(source: str) -> list[tuple[str, str, str]]:
    """``(number, fast-reid, here)`` of each test whose name carries a row's number, in order.

    Raises:
        ValueError: such a test has no docstring of the two parts "fast-reid: ..." and "Here: ...".
    """
    found = []
    for node in ast.parse(source).body:
        named = isinstance(node, ast.FunctionDef) and re.match(r"test_([SMDTE]\d\d)_", node.name)
        if not named:
            continue
        text = " ".join((ast.get_docstring(node) or "").split())
        parts = re.fullmatch(r"fast-reid: (.+?) Here: (.+)", text)
        if parts is None:
            raise ValueError(
                f"{node.name} needs a docstring 'fast-reid: ...' and, after a blank line, 'Here: ...'."
            )
        found.append((named[1], parts[1], parts[2]))
    return found


def document(source: str) -> str:
    """The whole markdown file."""
    items = rows(source)
    parts = [HEAD]
    for letter, title in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| row | fast-reid 1.4.0 | here |\n|---|---|---|\n")
        parts += [
            f"| {n} | {cell(_capital(a))} | {cell(_capital(b))} |\n"
            for n, a, b in items
            if n.startswith(letter)
        ]
    return "".join(parts)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def main(argv: Sequence[str] | None = None) -> int:
    return write_or_check(DOCUMENT, lambda: document(TESTS.read_text(encoding="utf-8")), __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
