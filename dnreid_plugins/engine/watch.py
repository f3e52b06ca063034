"""The processes of one machine: hear their last words, end them together, say what happened in one sentence."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from .distributed import LostProcessError, Member

#: Seconds that the other processes get to end by themselves after one has died, before they are ended.
GRACE = 10.0
#: Seconds that all get to write a checkpoint after SIGTERM or Ctrl-C.
STOP_GRACE = 120.0

KINDS = ("result", "exit", "lost", "error")


@dataclass
class MemberProcess:
    """A started process and its last word: ``("result" | "exit" | "lost" | "error", content, traceback)``."""

    process: Any
    receiver: Connection
    member: Member
    word: tuple[str, Any, str] | None = None
    ended_by_us: bool = False

    def listen(self) -> None:
        """Take the last word if it has come."""
        with contextlib.suppress(EOFError, OSError):
            if self.word is None and self.receiver.poll():
                self.word = pickle.loads(self.receiver.recv_bytes())

    @property
    def failed(self) -> bool:
        return self.word[0] != "result" if self.word else self.process.exitcode is not None

    def end(self, *, hard: bool) -> None:
        if self.process.exitcode is None:
            self.ended_by_us = True
            self.process.kill() if hard else self.process.terminate()


class Watch:
    """Waits for the processes of this machine; one that dies ends the others within `GRACE` seconds and a bit."""

    def __init__(self, processes: list[MemberProcess]) -> None:
        self.processes = processes
        self.stopped_by = 0
        self.deadline: float | None = None

    def outcome(self) -> Any:
        """The result of the first process, or the exception that tells best what happened."""
        with self._passing_signals_on():
            while any(one.process.exitcode is None for one in self.processes):
                running = [one.process.sentinel for one in self.processes if one.process.exitcode is None]
                multiprocessing.connection.wait(running, timeout=0.2)
                for one in self.processes:
                    one.listen()
                self._end_the_rest()
        for one in self.processes:
            one.listen()
        return self._verdict()

    def _end_the_rest(self) -> None:
        now = time.monotonic()
        done = all(one.word is not None for one in self.processes)
        if self.deadline is None and (done or any(one.failed for one in self.processes)):
            self.deadline = now + GRACE
        if self.deadline is not None and now > self.deadline:
            for one in self.processes:
                one.end(hard=now > self.deadline + GRACE / 2)

    @contextlib.contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C go to all processes as SIGTERM; only a main thread can arrange for that."""
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
        self.deadline = time.monotonic() + (0.0 if self.stopped_by == number else STOP_GRACE)
        self.stopped_by = number
        for one in self.processes:
            if one.process.exitcode is None:
                one.process.terminate()

    def _verdict(self) -> Any:
        words = {kind: [one for one in self.processes if one.word and one.word[0] == kind] for kind in KINDS}
        silent = [one for one in self.processes if one.word is None and not one.ended_by_us]
        if self.stopped_by or words["exit"]:
            codes = [one.word[1] for one in words["exit"] if one.word]
            raise SystemExit(codes[0] if codes else 128 + self.stopped_by)
        if words["error"]:
            raise _as_raised(words["error"][0])
        if silent:
            one, world = silent[0], self.processes[0].member.world_size
            code = one.process.exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise LostProcessError(
                f"error: process {one.member.rank} of {world} {how}; the others were ended. Go on with --resume."
            )
        for one in words["lost"]:
            raise LostProcessError(one.word[1] if one.word else None)
        if len(words["result"]) < len(self.processes):
            raise LostProcessError("error: a process did not end and was killed; go on with --resume.")
        return self.processes[0].word[1] if self.processes[0].word else None


def _as_raised(one: MemberProcess) -> BaseException:
    """The exception of a process, with the place where it happened as a note for those who look deeper."""
    assert one.word is not None
    _, error, text = one.word
    error.__cause__ = RuntimeError(f"in process {one.member.rank}:\n{text}")
    return error
