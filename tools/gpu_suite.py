"""Try everything on a GPU that a test on the CPU cannot: `make gpu`; the figures go to docs/gpu.json and docs/gpu.md.

Each check of tests/gpu/checks.py runs in a process of its own with a time limit, in the order of its importance; what
no longer fits into the budget is left out and named. Where there is no GPU nothing is done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import make_gpu_page
import torch
from made_page import ROOT

sys.path.insert(0, str(ROOT / "tests" / "gpu"))
import checks

#: A check is not begun with fewer seconds left: importing takes most of them.
LEAST = 20.0
MARK = "figures of the check: "


def run_one(name: str, device: str, *, small: bool) -> None:
    """One check in this process; its figures as the last line."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures = checks.CHECKS[name].run(device, small=small)
    print(MARK + json.dumps(figures), flush=True)


def in_own_process(name: str, device: str, *, small: bool, limit: float) -> dict[str, Any]:
    """The outcome of one check: figures, or the reason why there are none; never raises."""
    command = [sys.executable, __file__, "--one", name, "--device", device, *(["--small"] if small else [])]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"outcome": "too slow", "reason": f"stopped after {limit:.0f} s", "seconds": limit}
    seconds = time.monotonic() - start
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode == 0 and last and last[0].startswith(MARK):
        figures = json.loads(last[0].removeprefix(MARK))
        if reason := figures.get("left out"):
            return {"outcome": "left out", "reason": reason, "seconds": seconds}
        return {"outcome": "passed", "figures": figures, "seconds": seconds}
    said = done.stderr.strip().splitlines()[-1:] or [f"ended with code {done.returncode}"]
    return {"outcome": "failed", "reason": said[0][:600], "seconds": seconds}


def run_all(device: str, *, small: bool, budget: float, names: Sequence[str]) -> dict[str, Any]:
    """All checks within ``budget`` seconds; the machine they ran on."""
    begin, outcomes = time.monotonic(), {}
    for name in names:
        left = budget - (time.monotonic() - begin)
        if left < min(LEAST, checks.CHECKS[name].limit):
            outcomes[name] = {"outcome": "left out", "reason": f"the budget of {budget:.0f} s was spent"}
            continue
        limit = min(left, checks.CHECKS[name].limit)
        outcomes[name] = in_own_process(name, device, small=small, limit=limit)
        one = outcomes[name]
        print(f"{one['outcome']:>8} {one['seconds']:6.1f} s  {name}  {one.get('reason', '')}", flush=True)
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "small": small,
        "seconds": time.monotonic() - begin,
        "checks": outcomes,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cpu compares the CPU with itself")
    parser.add_argument("--budget", type=float, default=570.0, help="seconds for all of it")
    parser.add_argument("--small", action="store_true", help="sizes of a test; docs/gpu.md stays as it is")
    parser.add_argument(
        "--only", action="append", choices=list(checks.CHECKS), metavar="NAME", help="repeatable"
    )
    parser.add_argument("--json", type=Path, default=make_gpu_page.FIGURES, help="where the figures go")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use here, so nothing was tried.")
        return 0
    if args.one:
        run_one(args.one, args.device, small=args.small)
        return 0
    found = run_all(args.device, small=args.small, budget=args.budget, names=args.only or list(checks.CHECKS))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"figures in {args.json}")
    if args.json == make_gpu_page.FIGURES:
        make_gpu_page.main([])
    return int(any(one["outcome"] in ("failed", "too slow") for one in found["checks"].values()))


if __name__ == "__main__":
    sys.exit(main())
