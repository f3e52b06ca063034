"""``python -m dnreid_plugins ...``: fast-reid's own scripts with the plug-ins loaded, the demo, lists of available
choices.

A script's ``DefaultTrainer`` becomes `CrossDomainTrainer` and its ``launch`` also works on the CPU; subclasses of
``DefaultTrainer`` in the script keep their overrides.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys

USAGE = """\
usage: python -m dnreid_plugins SCRIPT [ARGS...]       run a fast-reid script with the plug-ins loaded
       python -m dnreid_plugins -m MODULE [ARGS...]    the same for a module, as `python -m` does
       python -m dnreid_plugins demo [KEY VALUE...]    train on the embedded data, evaluate before and after
       python -m dnreid_plugins train [ARGS...]        train or evaluate, with fast-reid's command line
       python -m dnreid_plugins list KIND              list methods, datasets, configs or backbones
       python -m dnreid_plugins doctor                 check the installation\
"""


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(f"{USAGE}\n")
    elif not words:
        sys.exit(f"error: no command or script was given.\n{USAGE}")
    elif words[0] == "doctor":
        from dnreid_plugins.engine.doctor import examine

        text, well = examine()
        sys.stdout.write(text)
        sys.exit(0 if well else 1)
    elif words[0] == "train":
        load()
        from .cli import main as train

        train(words[1:])
    elif words[0] == "demo":
        # Small convolutions run fastest on one thread; torch reads this when it is imported.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        load()
        from .cli import main as train
        from .runtime.shipped import config_path

        train(["--config-file", str(config_path("DNMini/demo")), *words[1:]])
    elif words[0] == "list":
        load()
        from .report.lists import text_of

        try:
            sys.stdout.write(f"{text_of(words[1] if len(words) > 1 else '')}\n")
        except ValueError as error:
            sys.exit(f"error: {error}")
    else:
        run(words)


def run(words: list[str]) -> None:
    """Run the script or module of the command line as ``__main__``."""
    as_module = words[0] == "-m"
    if words == ["-m"]:
        sys.exit("error: -m must be followed by the name of a module.")
    if not as_module and not os.path.isfile(words[0]):
        sys.exit(f"error: there is no script {words[0]!r}; name the path of a fast-reid training script.")
    load()
    from .cli import sentences
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


def load() -> None:
    """Do the slow imports, with a message before each of them."""
    silent = os.environ.get("RANK", "0") != "0"
    say("loading PyTorch", silent)
    importlib.import_module("torchvision")
    say("loading fast-reid and the plug-ins", silent)
    importlib.import_module("dnreid_plugins").load()


def say(text: str, silent: bool) -> None:
    if not silent:
        sys.stderr.write(f"dnreid_plugins: {text} ...\n")
        sys.stderr.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("dnreid_plugins: ended by Ctrl-C before anything had begun.\n")
        sys.exit(130)
