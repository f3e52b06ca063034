"""``--num-gpus N`` without torchrun: the processes of this machine, started and ended together."""

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
import time
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from .agreement import portable
from .group import LostProcessError, Member, joined
from .workers import end_with_parent

#: Seconds that the other processes get to end by themselves after one has died; the same time again after SIGTERM.
GRACE = 7.0
#: Seconds that all processes get to write a checkpoint after SIGTERM or Ctrl-C.
STOP_GRACE = 120.0
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A function by name, the only way in which a new process can find it.

    Attributes:
        module, name: where it is.
        script: path of the main script if the function is defined there, else empty.
    """

    module: str
    name: str
    script: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Work:
        """Raises ``ValueError`` for a function that no other process could find."""
        module, name = function.__module__, function.__qualname__
        script = getattr(sys.modules["__main__"], "__file__", None) if module == "__main__" else ""
        if "<" in name or script is None:
            raise ValueError(
                f"{name} cannot be started in other processes; give launch a function at the top level of a file."
            )
        return cls(module, name, script)

    def load(self) -> Callable[..., Any]:
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
    """Run ``main_func(*args)`` in ``per_machine`` processes here; returns rank 0's result if rank 0 is one of them.

    Raises:
        LostProcessError: a process was killed.
        SystemExit: a process ended with an exit code, for instance after a signal.
        Exception: what ``main_func`` raised.
        ValueError: there is no folder for temporary files, or no ``dist_url`` that several machines could share.
    """
    if num_machines > 1 and not str(dist_url).startswith("tcp://"):
        raise ValueError(
            f"--dist-url is {dist_url!r}; {num_machines} machines need tcp://host:port of the first."
        )
    work, world = Work.of(main_func), per_machine * num_machines
    threads = max(torch.get_num_threads() // per_machine, 1) if device == "cpu" else 0
    with _temporary_folder() as folder:
        # Processes of one machine meet in a file: there is no port that could be in use.
        place = f"file://{folder}/meet" if num_machines == 1 else str(dist_url)
        members = [
            Member(machine * per_machine + local, world, local, machine, place)
            for local in range(per_machine)
        ]
        receivers, senders = zip(*(multiprocessing.Pipe(duplex=False) for _ in members), strict=True)
        with _without_main():
            context = start_processes(
                _member_main,
                args=(work, args, members, device, threads, senders),
                nprocs=per_machine,
                join=False,
            )
        for sender in senders:
            sender.close()
        return Watch(context, members, receivers).outcome()


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="dnreid-")
    except FileNotFoundError as error:
        raise ValueError(
            f"--num-gpus needs a folder for temporary files, where the processes meet ({error.strerror}); set TMPDIR "
            "to one."
        ) from None


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process runs the main script first; fast-reid must have been patched before that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _member_main(
    local: int,
    work: Work,
    args: tuple[Any, ...],
    members: list[Member],
    device: str,
    threads: int,
    senders: tuple[Connection, ...],
) -> None:
    """What a started process runs; its outcome is sent through its pipe as (kind, content, traceback)."""
    for other in (*senders[:local], *senders[local + 1 :]):
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent passes it on
    end_with_parent()
    if threads:
        torch.set_num_threads(threads)
    try:
        function = work.load()
        with joined(members[local], device=device):
            result = function(*args)
        _tell(senders[local], "result", result if local == 0 else None)
    except SystemExit as error:
        _tell(senders[local], "lost" if isinstance(error, LostProcessError) else "exit", error.code)
        os._exit(1)
    except BaseException as error:
        logging.getLogger(__name__).debug("the error's place", exc_info=True)
        _tell(senders[local], "error", error)
        os._exit(1)


def _tell(sender: Connection, kind: str, content: Any) -> None:
    text = traceback.format_exc() if kind == "error" else ""
    # Plain pickle, since torch would send a tensor as a handle that is invalid once this process ends.
    with contextlib.suppress(OSError):
        sender.send_bytes(pickle.dumps((kind, portable(content) if kind == "error" else content, text)))


class Watch:
    """Waits for the processes of this machine, receives their outcomes and reports what happened in one sentence.

    PyTorch's context ends the others when one fails; signals, results and the reason for the end are handled here.

    Args:
        context: the started processes.
        members, receivers: of each process, its place in the job and the pipe that its outcome comes from.
    """

    def __init__(
        self, context: ProcessContext, members: list[Member], receivers: tuple[Connection, ...]
    ) -> None:
        self.context, self.members, self.receivers = context, members, receivers
        self.words: dict[int, tuple[str, Any, str]] = {}
        #: Processes that failed before any was ended.
        self.failed: list[int] = []
        self.stopped_by = 0

    def outcome(self) -> Any:
        """The result of the first process, or the exception that explains best what happened."""
        with self._passing_signals_on():
            while not self._all_ended():
                time.sleep(POLL_SECONDS)
        self._listen()
        return self._verdict()

    def _all_ended(self) -> bool:
        told = len(self.words)
        self._listen()
        if told < len(self.words) == len(self.members):
            self._kill_after(GRACE)  # those that do not end although the outcome is known
        self.failed = [rank for rank, process in enumerate(self.context.processes) if process.exitcode]
        try:
            ended: bool = self.context.join(0, grace_period=STOP_GRACE if self.stopped_by else GRACE)
        except ProcessException as error:
            self.failed = self.failed or [error.error_index]
            return True
        return ended

    def _listen(self) -> None:
        """Receive the outcomes that have arrived."""
        for rank, receiver in enumerate(self.receivers):
            with contextlib.suppress(EOFError, OSError):
                if rank not in self.words and receiver.poll():
                    self.words[rank] = pickle.loads(receiver.recv_bytes())

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """Forward SIGTERM and Ctrl-C to all processes as SIGTERM; only a main thread can install that."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        self._kill_after(GRACE / 2 if self.stopped_by == number else STOP_GRACE)
        self.stopped_by = number
        for process in self.context.processes:
            process.terminate()

    def _kill_after(self, seconds: float) -> None:
        timer = threading.Timer(seconds, lambda: [process.kill() for process in self.context.processes])
        timer.daemon = True
        timer.start()

    def _verdict(self) -> Any:
        said: dict[str, list[int]] = {"result": [], "exit": [], "lost": [], "error": []}
        for rank, (kind, _, _) in sorted(self.words.items()):
            said[kind].append(rank)
        silent = [rank for rank in self.failed if rank not in self.words]
        if self.stopped_by and not said["exit"]:
            name = signal.Signals(self.stopped_by).name
            logger.warning("Ended by %s before a process could say more; go on with --resume.", name)
        if self.stopped_by or (said["exit"] and not silent):
            raise SystemExit(self.words[said["exit"][0]][1] if said["exit"] else 128 + self.stopped_by)
        if said["error"]:
            raise self._as_raised(said["error"][0])
        if silent:
            code, member = self.context.processes[silent[0]].exitcode, self.members[silent[0]]
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise LostProcessError(
                f"error: process {member.rank} of {member.world_size} {how}; the others were ended. Continue with "
                "--resume."
            )
        if said["lost"]:
            raise LostProcessError(self.words[said["lost"][0]][1])
        if len(said["result"]) < len(self.members):
            raise LostProcessError("error: a process did not end and was killed; continue with --resume.")
        return self.words[0][1]

    def _as_raised(self, rank: int) -> BaseException:
        """The exception of a process, with its traceback attached for debugging."""
        _, error, text = self.words[rank]
        error.__cause__ = RuntimeError(f"in process {self.members[rank].rank}:\n{text}")
        return error
