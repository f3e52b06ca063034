"""``python -m dnreid_plugins SCRIPT ARGS``: run an unmodified fast-reid script with the plug-ins in.

The script's ``DefaultTrainer`` becomes `CrossDomainTrainer` and its ``launch`` knows the CPU; subclasses of
``DefaultTrainer`` in the script keep their overrides.
"""

from __future__ import annotations

import os
import runpy
import sys

from dnreid_plugins.engine.as_fastreid import take_over


def main() -> None:
    """Run the script named on the command line as ``__main__``."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(
            "usage: python -m dnreid_plugins SCRIPT [ARGS...]: runs a fast-reid script with the plug-ins in\n"
            "       python -m dnreid_plugins train [ARGS...]: trains or evaluates, with fast-reid's command line\n"
            "       python -m dnreid_plugins doctor: says what is installed here and whether it fits"
        )
    if sys.argv[1] == "doctor":
        from dnreid_plugins.engine.doctor import examine

        text, well = examine()
        sys.stdout.write(text)
        sys.exit(0 if well else 1)
    if sys.argv[1] == "train":
        from dnreid_plugins.engine.cli import main as train

        train(sys.argv[2:])
        return
    script = sys.argv[1]
    if not os.path.isfile(script):
        sys.exit(f"error: there is no script {script!r}; name the path of a fast-reid training script.")
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    take_over()
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
