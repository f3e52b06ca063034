"""Train or evaluate from a config: fast-reid's own command line, with the plug-ins loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__" and os.environ.get("RANK", "0") == "0":
    print("dnreid_plugins: loading PyTorch and fast-reid ...", file=sys.stderr, flush=True)

try:
    from dnreid_plugins.cli import main
except ImportError as error:
    if error.name != "dnreid_plugins":
        raise
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    main()
