"""``python -m dnreid_plugins ...``: the command ``dnreid``, and fast-reid's own scripts with the plug-ins loaded.

A script's ``DefaultTrainer`` becomes `CrossDomainTrainer` and its ``launch`` also works on the CPU; subclasses of
``DefaultTrainer`` in the script keep their overrides.
"""

from __future__ import annotations

import os
import runpy
import sys

from .commands import app
from .commands.loading import load
from .runtime.sentences import sentences

LISTS = ("methods", "parts", "datasets", "configs", "backbones")
USAGE = """\
usage: python -m dnreid_plugins COMMAND [ARGS...]      the same as `dnreid COMMAND`; --help lists the commands
       python -m dnreid_plugins SCRIPT [ARGS...]       run a fast-reid script with the plug-ins loaded
       python -m dnreid_plugins -m MODULE [ARGS...]    the same for a module, as `python -m` does
       python -m dnreid_plugins list KIND              the same as `dnreid KIND`, such as `configs`\
"""


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if not words:
        sys.exit(f"error: no command or script was given.\n{USAGE}")
    if words[0] == "list":
        words = words[1:]
        if words[:1] not in ([kind] for kind in LISTS):
            named = repr(words[0]) if words else "without a name"
            sys.exit(f"error: There is no list {named}; the lists are {', '.join(LISTS)}.")
    if words[0] in app.COMMANDS or words[0] in ("-h", "--help"):
        app.main(words)
    else:
        run(words)


def run(words: list[str]) -> None:
    """Run the script or module of the command line as ``__main__``."""
    as_module = words[0] == "-m"
    if words == ["-m"]:
        sys.exit("error: -m must be followed by the name of a module.")
    if not as_module and not os.path.isfile(words[0]):
        sys.exit(
            f"error: there is no command and no script {words[0]!r}; name one of {', '.join(app.COMMANDS)}, or the "
            "path of a fast-reid training script."
        )
    load()
    from .engine.script_door import take_over

    take_over()
    with sentences(ours_only=True):
        if as_module:
            sys.argv = words[1:]
            try:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            except ImportError as error:
                if error.name is not None or not str(error).startswith(("No module", "No code")):
                    raise
                sys.exit(f"error: {error}; name a module that `python -m` can run.")
        else:
            sys.argv = words
            sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
            runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("dnreid_plugins: ended by Ctrl-C before anything had begun.\n")
        sys.exit(130)
