"""A suggestion as a config file: each key below the sentence that says why."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode

from ...runtime.files import write_atomically
from ...runtime.shipped import config_names, config_path
from .proposals import Suggestion


def check_target(path: Path) -> None:
    """Refuse a file that cannot be written, before the work.

    Raises:
        OSError: it exists, or its folder does not.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already; give another name or move it away.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path.absolute().parent} is no folder; create it or give another name.")


def write_suggestion(path: Path, suggestion: Suggestion, config: Path, settings: Sequence[str]) -> None:
    """Write a config for ``dnreid train``.

    Args:
        path: of the new file.
        suggestion: what it sets.
        config: what it is based on; a shipped config is named, any other given by its absolute path.
        settings: ``KEY VALUE`` pairs that name the images; each key has one section.
    """
    text = suggestion_text(suggestion, config, settings)
    write_atomically(path, lambda file: file.write(text.encode()))


def suggestion_text(suggestion: Suggestion, config: Path, settings: Sequence[str]) -> str:
    """The file's content."""
    shipped = next((name for name in config_names() if config_path(name) == config), None)
    images = " and ".join(f"{view.images} {domain.word}" for domain, view in suggestion.views.items())
    lines = [
        f"# Proposed by `dnreid suggest` for {images} images; train with `dnreid train <this file>`.",
        f"_BASE_: {_written(shipped or str(config.resolve()))}",
    ]
    sections: dict[str, list[str]] = {}
    proposed = {choice.key for choice in suggestion.choices}
    for key, value in zip(settings[::2], settings[1::2], strict=True):
        if key not in proposed:
            section, _, name = key.rpartition(".")
            decoded = CfgNode._decode_cfg_value(value)
            sections.setdefault(section, []).append(f"{name}: {_written(decoded)}")
    for choice in suggestion.choices:
        section, _, name = choice.key.rpartition(".")
        said = textwrap.wrap(choice.reason, 100)
        if choice.key:
            sections.setdefault(section, []).extend(
                [*(f"# {line}" for line in said), f"{name}: {_written(choice.value)}"]
            )
        else:
            lines.insert(
                1, "\n".join(f"# {line}" for line in textwrap.wrap(f"{choice.value} - {choice.reason}", 100))
            )
    lines += sections.pop("", [])
    for section, entries in sections.items():
        lines += [f"{section}:", *(f"  {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    """A value as JSON, which yaml reads: names with quotes, newlines or other signs stay what they are."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
