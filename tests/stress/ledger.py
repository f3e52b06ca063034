"""Where the stress runs write down what they tried; ``tools/reliability_table.py`` makes the table of it."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path

import torch

LEDGER = "DNREID_STRESS_LEDGER"


def record(area: str, fault: str, *, tried: int, survived: int, lost: str = "") -> None:
    """One line of the table: how often a fault was tried, and after how many all was as it should be.

    ``lost`` says what was missing in the others. Nothing is written unless the environment names a file.
    """
    path = os.environ.get(LEDGER)
    if not path:
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    row = {
        "area": area,
        "fault": fault,
        "tried": tried,
        "survived": survived,
        "lost": lost,
        "day": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "where": f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}",
    }
    with Path(path).open("a") as file:
        file.write(json.dumps(row) + "\n")
