"""The code blocks of a page, and a folder in which they run as a reader would run them.

A fence names its language: ```bash and ```python are run in their order, unless a comment ``<!-- not run: reason -->``
stands in the line before; ```text and ```console are output, ```mermaid a picture, ```yaml and ```json a file.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dnreid_plugins.dnmini import write_dnmini

ROOT = Path(__file__).resolve().parents[1]
RUN, SHOWN = ("bash", "python"), ("text", "console", "mermaid", "yaml", "json", "csv")
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>[^\n]*)\n(?P<code>.*?)^```[ ]*$",
    re.M | re.S,
)
#: What pip writes as the command `dnreid`.
COMMAND = "#!{python}\nimport sys\nfrom dnreid_plugins.commands.app import main\nsys.exit(main())\n"


@dataclass(frozen=True)
class Block:
    """A fenced block; ``reason`` says why it is not run, "" where it is."""

    language: str
    code: str
    reason: str = ""

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.reason


def blocks_of(page: str) -> list[Block]:
    """All blocks of the text of a page."""
    found = _FENCE.finditer(page)
    return [Block(one["language"].strip(), one["code"], one["reason"] or "") for one in found]


def write_crops(
    home: Path, *, identities: int = 4, images: int = 8, world: str | None = None
) -> dict[str, str]:
    """``mycrops/day`` and ``mycrops/night`` below ``home``, rendered, under names that tell nothing.

    ``world``: of the two renderers; None is the first. Returns the identity of each path, relative to ``home``.
    """
    sizes = {"num_train_ids": identities, "num_test_ids": 1, "images_per_domain": images}
    write_dnmini(home / "set", workers=1, world=world, **sizes)
    lists = home / "set" / "train_test_split"
    hidden = {}
    for domain in ("day", "night"):
        folder = home / "mycrops" / domain
        folder.mkdir(parents=True)
        lines = (lists / f"train_list_{domain}.txt").read_text().split()
        for number, line in enumerate(sorted(lines, key=lambda line: line.rpartition("/")[2][::-1])):
            target = folder / f"{number:03d}.jpg"
            (home / "set" / domain / line).rename(target)
            hidden[str(target.relative_to(home))] = line.partition("/")[0]
    return hidden


def execute(block: Block, home: Path) -> str:
    """Run a block in ``home`` and return what it printed; its first failing line is an error."""
    names = ("PYTHONPATH", "FASTREID_DATASETS")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    command = home / ".bin" / "dnreid"
    if not command.exists():
        command.parent.mkdir(exist_ok=True)
        command.write_text(COMMAND.format(python=sys.executable))
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = [str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": os.pathsep.join(path)}
    start = ["bash", "-eu", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*start, block.code],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{block.code}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout
