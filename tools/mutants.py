"""Change one operator, number or decorator after the other in some modules and see whether a test notices.

    python tools/mutants.py dnreid_plugins/functional/losses dnreid_plugins/functional/matching
    python tools/mutants.py dnreid_plugins/functional/losses/mmd.py --share 0.2 --seed 1
    python tools/mutants.py dnreid_plugins/modeling/matchers --also tests/projects/test_one_matching.py

The changes are cosmic-ray's; of those at one place by one kind of operator a single one is drawn. Annotations and
docstrings are left out. The tests of a module are those of its room (tests/functional, tests/modeling ...) that import
from it, are named after it or, outside of functional code, name one of its classes; ``--also`` adds some. They run in
a fork of a process that has loaded all but what is changed, so that a change costs the tests alone. It prints each
survivor, then per module how many were killed. A change whose tests take five times as long as without it counts as
killed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import io
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from mutate import ROOT, copy_tree

#: Loaded before the forks.
LOADED = (
    "faiss",
    "hypothesis",
    "numba",
    "pytest",
    "scipy.optimize",
    "sklearn.cluster",
    "torch",
    "torchvision",
)
#: If all changes are below it, the package is loaded too, and each fork loads this part of it anew. Of the rest
#: nothing can be loaded twice: it fills fast-reid's registries.
FUNCTIONAL = "dnreid_plugins.functional"
#: What pins the default of a key.
DEFAULTS = (
    "tests/test_defaults.py",
    "tests/tools/test_made_pages.py::test_a_page_is_up_to_date[configuration]",
)
#: The same for masks, which are what such operators work on here.
NO_CHANGE = {"core/ReplaceBinaryOperator_BitAnd_Mul", "core/ReplaceBinaryOperator_BitOr_Add"}


def changes(text: str, draw: random.Random) -> Iterator[str]:
    """The texts with one change each; one per place and kind of operator."""
    tree, plain = get_ast(text), without_annotations(text)
    places: dict[tuple[object, ...], list[tuple[str, int]]] = {}
    for name in sorted(operator_names()):
        if name in NO_CHANGE or get_operator(name).arguments():
            continue
        operator, occurrence = get_operator(name)(), 0
        for node in ast_nodes(tree):
            for place in operator.mutation_positions(node):
                places.setdefault((*place, name.split("_")[0]), []).append((name, occurrence))
                occurrence += 1
    for place in sorted(places, key=str):
        name, occurrence = draw.choice(places[place])
        # Its operator for exceptions does not know names with a dot.
        with contextlib.suppress(SyntaxError, AttributeError):
            changed = mutate_code(text, get_operator(name)(), occurrence)
            if changed and without_annotations(changed) != plain:
                yield changed


def without_annotations(text: str) -> str:
    """The code without what no run reads: comments, docstrings and annotations."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [
                one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def tests_of(module: Path) -> list[str]:
    """The tests of the room that ask for the module, of every function, of defaults and of the page of all keys."""
    asking, room = [module], module.parts[1]
    if module.stem.startswith("_"):  # a module of its neighbours alone is tested through them
        beside = (ROOT / module.parent).glob("*.py")
        line = f" .{module.stem} import"
        asking += [module.parent / one.name for one in beside if line in one.read_text(encoding="utf-8")]
    texts = {file: file.read_text(encoding="utf-8") for file in (ROOT / "tests" / room).rglob("test_*.py")}
    words = [re.escape(".".join(one.with_suffix("").parts) + " import") for one in asking]
    if room != "functional":
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        words += [rf"\b{node.name}\b" for node in tree.body if isinstance(node, ast.ClassDef)]
    asked = [
        file for file, text in texts.items() if re.search("|".join(words), text) or module.stem in file.stem
    ]
    asked += [file for file, text in texts.items() if "functional_cases.CASES" in text]
    quick_first = sorted(set(asked), key=lambda file: ("run_helpers" in texts[file], file))
    return [*(str(file.relative_to(ROOT)) for file in quick_first), *DEFAULTS] if asked else []


def survives(tree: Path, tests: list[str], *, seconds: int = 0) -> bool:
    """Whether the tests pass in a fork of this process, in this time; 0: in any."""
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        os.chdir(tree)
        for name in [name for name in sys.modules if name.startswith(FUNCTIONAL)]:
            del sys.modules[name]
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        import pytest

        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])))
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", type=Path, help="modules or folders, relative to the root")
    parser.add_argument("--share", type=float, default=1.0, help="of the changes, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--also", nargs="+", default=[], help="further test files")
    args = parser.parse_args()
    draw, total, left = random.Random(args.seed), 0, 0
    modules = [path for one in args.modules for path in (sorted(one.glob("*.py")) or [one])]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        sys.path[:0] = [str(tree), str(tree / "tests")]
        with contextlib.redirect_stderr(io.StringIO()):
            for name in LOADED:
                importlib.import_module(name)
            if all(module.parts[1] == "functional" for module in modules):
                importlib.import_module("dnreid_plugins")
        for module in modules:
            tests, file = [*tests_of(module), *args.also], tree / module
            text = file.read_text(encoding="utf-8")
            found = [one for one in changes(text, draw) if draw.random() < args.share]
            if not found:
                continue
            if not tests:
                raise SystemExit(f"{module}: no file of its tests imports from it.")
            began = time.monotonic()
            if not survives(tree, tests):
                raise SystemExit(f"{module}: {' '.join(tests)} fails without any change.")
            alive, seconds = 0, 10 + int(5 * (time.monotonic() - began))
            for changed in found:
                file.write_text(changed, encoding="utf-8")
                if survives(tree, tests, seconds=seconds):
                    alive += 1
                    lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), n=0, lineterm="")
                    print(f"{module} survived:", *list(lines)[2:], sep="\n", flush=True)
            file.write_text(text, encoding="utf-8")
            print(f"{module}: {len(found) - alive} of {len(found)} killed", flush=True)
            total, left = total + len(found), left + alive
    print(f"{total - left} of {total} killed")


if __name__ == "__main__":
    main()
