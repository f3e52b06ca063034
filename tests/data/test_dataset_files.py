"""Lists and folders: what is understood, what is refused, with which sentence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dnreid_plugins.data.datasets import files
from dnreid_plugins.data.datasets.counts import differences
from dnreid_plugins.data.errors import DataError


def test_lines_are_field_zero_with_forward_slashes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeff7/a.jpg 3\r\n\r\n   \n8\\b.jpg\t1 2\n".encode())
    assert [(number, fields[0]) for number, fields in files.read_lines(path)] == [
        (1, "7/a.jpg"),
        (4, "8/b.jpg"),
    ]


@pytest.mark.parametrize("line", ["/etc/passwd", "7/../../x.jpg", "..\\x.jpg", "7/\0.jpg"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"1/a.jpg\n{line}\n")
    with pytest.raises(DataError, match="line 2: .* is outside the data folder"):
        files.read_lines(tmp_path / "list.txt")


def test_binary_and_missing_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not UTF-8 text"):
        files.read_lines(tmp_path / "list.txt")
    with pytest.raises(DataError, match="No such file"):
        files.read_lines(tmp_path / "gone.txt")


@pytest.mark.parametrize("text", ["", "-1", "1.0", "²", "x", "9" * 19])
def test_identities_are_plain_integers(text: str) -> None:
    with pytest.raises(DataError, match=r"list\.txt', line 4"):
        files.parse_identity(Path("list.txt"), 4, text)
    assert files.parse_identity(Path("list.txt"), 4, "00012") == 12


def test_repeated_lines_count_once_and_contradictions_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    path = Path("list.txt")
    with caplog.at_level(logging.WARNING):
        assert files.unique_paths(path, [("a", 1), ("b", 2), ("a", 1)]) == {"a": 1, "b": 2}
    assert "1 repeated" in caplog.text
    with pytest.raises(DataError, match="'a' identity 1 and 2"):
        files.unique_paths(path, [("a", 1), ("a", 2)])


def test_missing_images_are_found_folder_by_folder(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["1/a.jpg", "1/b.jpg", "c.jpg"])
    wanted = ["1/a.jpg", "1/c.jpg", "2/a.jpg", "c.jpg", "1/b.jpg"]
    assert files.missing_images(tmp_path, wanted) == ["1/c.jpg", "2/a.jpg"]
    assert files.missing_images(tmp_path, wanted) == [p for p in wanted if not (tmp_path / p).is_file()]


def test_the_base_with_all_images_wins_and_otherwise_five_are_named(tmp_path: Path, write_images) -> None:
    paths = [f"1/{i}.jpg" for i in range(9)]
    write_images(tmp_path / "day", paths[:2])
    write_images(tmp_path / "train_day", paths)
    bases = [tmp_path / "day", tmp_path / "train_day"]
    assert files.locate_images("S", Path("l.txt"), bases, paths) == tmp_path / "train_day"
    with pytest.raises(DataError, match=r"7 of the 9 images .*the first: 1/2.jpg, .*1/6.jpg;") as caught:
        files.locate_images("S", Path("l.txt"), bases[:1], paths)
    assert "1/7.jpg" not in str(caught.value)
    with pytest.raises(DataError, match="9 of the 9"):
        files.locate_images("S", Path("l.txt"), [tmp_path / "nowhere"], paths)


def test_root_is_read_when_asked_for_not_at_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastreid.data import build

    monkeypatch.setenv(files.ENVIRONMENT, str(tmp_path))
    assert files.datasets_root(None) == files.datasets_root(build._root) == tmp_path
    assert files.datasets_root("/elsewhere") == Path("/elsewhere")
    monkeypatch.delenv(files.ENVIRONMENT)
    assert files.datasets_root(None) == Path("datasets")


def test_expected_counts_name_each_difference() -> None:
    counts = {"day images": 5, "ids": 3, "not published": 4}
    assert differences(counts, {"day images": 7, "ids": 3}) == ["day images 5 (published: 7, difference -2)"]
    assert differences(counts, {}) == []
