"""results.json: what a run measured, before and after training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from .files import write_atomically

logger = logging.getLogger(__name__)


def read_json(path: Path) -> dict[str, Any]:
    """The file's content, or an empty dict where there is none or, with a warning, where it is damaged."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} where a mapping is needed")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning(
            "%s cannot be read (%s); what it held, such as the figures of the start, is lost and the file is "
            "begun anew.",
            path,
            error,
        )
        return {}
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write through a temporary file that is forced to the disk; a reader or a kill never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def update_results(output_dir: str, **entries: Any) -> None:
    """Merge ``entries`` into ``results.json`` of ``output_dir``; nothing happens for an empty folder name."""
    if output_dir:
        path = Path(output_dir) / "results.json"
        write_json(path, {**read_json(path), **entries})


def read_results(output_dir: str) -> dict[str, Any]:
    """What ``results.json`` of ``output_dir`` holds so far."""
    return read_json(Path(output_dir) / "results.json") if output_dir else {}
