"""Train or evaluate from a config: fast-reid's own command line, with the plug-ins in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from dnreid_plugins.engine.cli import main
except ImportError as error:
    if error.name != "dnreid_plugins":
        raise
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    result: Any = main()
    sys.exit(0)
