"""The line that says how far a long piece of work is."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from dnreid_plugins.runtime import progress
from dnreid_plugins.runtime.progress import ProgressLine


class Clock:
    """Gives the seconds it was told, one after the other."""

    def __init__(self, *seconds: float) -> None:
        self.seconds: Iterator[float] = iter(seconds)

    def __call__(self) -> float:
        return next(self.seconds)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == progress.__name__]


def test_lines_come_four_seconds_apart_with_the_time_to_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    line = ProgressLine("Search", clock=Clock(100, 101, 103.9, 104, 107, 109, 112.9, 120))
    for done in (1, 9, 10, 15, 20, 30, 40):
        line(done, 40)
    assert lines(caplog) == [
        "Search: 25 % after 4 s, about 12 s to go",
        "Search: 50 % after 9 s, about 9 s to go",
    ]


def test_a_short_search_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    line = ProgressLine("Search", clock=Clock(*range(4)))
    for done in range(1, 4):
        line(done, 3)
    assert lines(caplog) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_passes_everything_on_and_stays_out_of_the_output(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.with_progress(iter("abc"), "Search", 3)) == ["a", "b", "c"]
    said = capsys.readouterr()
    assert said.out == "" and ("Search" in said.err) == terminal
