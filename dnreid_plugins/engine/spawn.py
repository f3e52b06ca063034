"""``--num-gpus N`` without torchrun: start the processes of this machine."""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import pickle
import runpy
import signal
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from ..runtime.agreement import portable
from .distributed import LostProcessError, Member, joined
from .watch import MemberProcess, Watch


@dataclass(frozen=True)
class Work:
    """A function by name, since a new process can find it by that only.

    Attributes:
        module, name: where it is.
        script: path of the main script if the function was defined there, else empty.
        as_fastreid: our trainer and launcher stand where a fast-reid script looks for fast-reid's.
    """

    module: str
    name: str
    script: str
    as_fastreid: bool

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Work:
        """Raises ``ValueError`` for a function that no other process could find."""
        module, name = function.__module__, function.__qualname__
        script = getattr(sys.modules["__main__"], "__file__", None) if module == "__main__" else ""
        if "<" in name or script is None:
            raise ValueError(
                f"{name} cannot be started in other processes; give launch a function at the top of a file."
            )
        import fastreid.engine

        from .distributed import launch

        return cls(module, name, script, fastreid.engine.launch is launch)

    def load(self) -> Callable[..., Any]:
        if self.as_fastreid:
            from .as_fastreid import take_over

            take_over()
        if self.script:
            sys.path.insert(0, os.path.dirname(os.path.abspath(self.script)))
            return runpy.run_path(self.script, run_name="__mp_main__")[self.name]
        return getattr(importlib.import_module(self.module), self.name)


def run_processes(
    main_func: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    per_machine: int,
    num_machines: int,
    machine: int,
    dist_url: str | None,
    device: str,
) -> Any:
    """Run ``main_func(*args)`` in ``per_machine`` processes here; returns rank 0's result if it is here.

    Raises:
        LostProcessError: a process was killed.
        SystemExit: a process left with a code, after a signal for instance.
        Exception: what ``main_func`` raised.
    """
    if num_machines > 1 and not str(dist_url).startswith("tcp://"):
        raise ValueError(
            f"--dist-url is {dist_url!r}; {num_machines} machines need tcp://host:port of the first."
        )
    work, world = Work.of(main_func), per_machine * num_machines
    threads = max(torch.get_num_threads() // per_machine, 1) if device == "cpu" else 0
    with tempfile.TemporaryDirectory(prefix="dnreid-") as folder:
        # Processes of one machine meet in a file: no port that could be taken.
        place = f"file://{folder}/meet" if num_machines == 1 else str(dist_url)
        members = [
            Member(machine * per_machine + local, world, local, machine, place)
            for local in range(per_machine)
        ]
        return Watch([_start(work, args, member, device, threads) for member in members]).outcome()


def _start(work: Work, args: tuple[Any, ...], member: Member, device: str, threads: int) -> MemberProcess:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_member_main, args=(work, args, member, device, threads, sender), name=f"rank{member.rank}"
    )
    with _without_main():
        process.start()
    sender.close()
    return MemberProcess(process, receiver, member)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process runs the main script first; ours must have mended fast-reid before it may do that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _member_main(
    work: Work, args: tuple[Any, ...], member: Member, device: str, threads: int, sender: Connection
) -> None:
    """What a started process does; its last word goes through ``sender`` as (kind, content)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent passes it on
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads:
        torch.set_num_threads(threads)
    try:
        function = work.load()
        with joined(member, device=device):
            result = function(*args)
        _tell(sender, "result", result if member.local_rank == 0 else None)
    except SystemExit as error:
        _tell(sender, "lost" if isinstance(error, LostProcessError) else "exit", error.code)
        os._exit(1)
    except BaseException as error:
        logging.getLogger(__name__).debug("the error's place", exc_info=True)
        _tell(sender, "error", error)
        os._exit(1)


def _tell(sender: Connection, kind: str, content: Any) -> None:
    text = traceback.format_exc() if kind == "error" else ""
    # Plain pickle, since torch would send a tensor as a handle that dies with this process.
    with contextlib.suppress(OSError):
        sender.send_bytes(pickle.dumps((kind, portable(content) if kind == "error" else content, text)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
