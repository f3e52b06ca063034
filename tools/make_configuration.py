"""Write docs/configuration.md: every key that we add to fast-reid's config, from where it is declared."""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Sequence

from made_page import ROOT, cell, write_or_check

import dnreid_plugins  # noqa: F401  (fills the registries)
from dnreid_plugins.config import KEYS
from dnreid_plugins.runtime.sections import SECTIONS, Key, keys_of

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Every key that this package adds to fast-reid's config; fast-reid's own keys keep their meaning. A value that is none
of those allowed is refused before any image is read. A weight is piecewise constant in the epoch:
`WEIGHT: ((1, 0.5), (51, 0.3))` means 0.5 from epoch 1 on and 0.3 from epoch 51 on (epochs count from 1). U and T
numbers are the open points of the papers and of released code, listed in [projects/README.md](../projects/README.md).

This page is made by `python tools/make_configuration.py` from the constructors that the sections belong to.
"""


def page() -> str:
    """The whole page."""
    sections: dict[str, tuple[str, list[Key]]] = {}
    general: dict[str, list[Key]] = defaultdict(list)
    for path, key in KEYS:
        general[path].append(key)
    for path, keys in general.items():
        sections[path] = ("", keys)
    for path, cls in SECTIONS.items():
        sentence = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
        before = sections.get(path, ("", []))[1]
        sections[path] = (f"`{cls.__name__}`: {sentence}", before + keys_of(cls))
    parts = [HEAD]
    for path in sorted(sections):
        text, keys = sections[path]
        if keys:
            parts.append(f"## {path or 'Top level'}\n" + (f"\n{text}\n" if text else ""))
            parts.append(table(keys))
    return "\n".join(parts)


def table(keys: list[Key]) -> str:
    """Key, default, what it may be, sentence."""
    rows = ["| key | default | may be | |", "|---|---|---|---|"]
    for key in keys:
        cells = (f"`{key.name}`", f"`{key.default!r}`", key.choices, key.sentence)
        rows.append("| " + " | ".join(map(cell, cells)) + " |")
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    return write_or_check(PAGE, page, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
