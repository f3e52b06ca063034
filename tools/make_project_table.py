"""Write docs/fast-reid-projects.md from the docstrings of tests/fastreid_projects (--check: only compare)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence

from made_page import ROOT, write_or_check

TESTS = ROOT / "tests" / "fastreid_projects"
DOCUMENT = ROOT / "docs" / "fast-reid-projects.md"

VERDICTS = {"Runs": "Runs as it is", "Patched": "Patched here", "Dead upstream": "Dead upstream"}
HEAD = """# fast-reid's projects under `python -m dnreid_plugins`

What becomes of the training scripts in fast-reid's `projects` folder when they are run with the plug-ins in:

```
python -m dnreid_plugins projects/FastClas/train_net.py --config-file projects/FastClas/configs/base-clas.yaml
```

Each sentence is a test in `tests/fastreid_projects` that makes the same calls as the project on a few small pictures.
*Runs as it is*: nothing stood in the way. *Patched here*: it failed, or gave wrong figures, and works now. *Dead
upstream*: no trainer can help; the sentence says why and, where there is one, the way out.

This file is made by `python tools/make_project_table.py`; do not edit it.
"""


def project(source: str) -> tuple[str, dict[str, list[str]]]:
    """``("FastClas: what it is", {verdict: sentences})`` of one test file.

    Raises:
        ValueError: a docstring is missing or begins with no verdict.
    """
    tree = ast.parse(source)
    title = " ".join((ast.get_docstring(tree) or "").split())
    if not re.match(r"\w+: ", title):
        raise ValueError(f"the file's docstring is {title!r}; it begins with 'Project: '.")
    sentences: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for node in tree.body:
        if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
            continue
        text = " ".join((ast.get_docstring(node) or "").split())
        verdict, _, sentence = text.partition(": ")
        if verdict not in VERDICTS or not sentence:
            raise ValueError(
                f"{node.name} needs a docstring that begins with one of {list(VERDICTS)} and ': '."
            )
        sentences[verdict].append(sentence[0].upper() + sentence[1:])
    return title, sentences


def document(sources: list[str]) -> str:
    """The whole markdown file; ``sources`` are the test files' contents."""
    projects = sorted(project(source) for source in sources)
    parts = [HEAD, "\n| project | runs | patched here | dead upstream |\n|---|---|---|---|\n"]
    for title, found in projects:
        counts = " | ".join(str(len(found[verdict]) or "") for verdict in VERDICTS)
        parts.append(f"| {title.split(':')[0]} | {counts} |\n")
    for title, found in projects:
        name, _, what = title.partition(": ")
        parts.append(f"\n## {name}\n\n{what[0].upper()}{what[1:]}\n\n")
        for verdict, heading in VERDICTS.items():
            parts += [f"- **{heading}.** {sentence}\n" for sentence in found[verdict]]
    return "".join(parts)


def sources() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(TESTS.glob("test_*.py"))]


def main(argv: Sequence[str] | None = None) -> int:
    return write_or_check(DOCUMENT, lambda: document(sources()), __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
