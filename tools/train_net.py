"""Train or evaluate from a config: fast-reid's own command line, with the plug-ins in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dnreid_plugins.engine.cli import main

if __name__ == "__main__":
    result: Any = main()
    sys.exit(0)
