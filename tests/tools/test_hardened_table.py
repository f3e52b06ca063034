from __future__ import annotations

import make_hardened_table as table
import pytest


def test_every_row_of_the_audit_has_its_test() -> None:
    numbers = [number for number, _, _ in table.rows(table.TESTS.read_text())]
    assert [n for n in numbers if n.startswith("S")] == [f"S{i:02d}" for i in range(1, 37)]
    assert len(numbers) == len(set(numbers))


def test_a_docstring_without_both_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="test_S01_x needs a docstring"):
        table.rows('def test_S01_x():\n    """fast-reid: something."""\n')
    assert table.rows('def test_S01_x():\n    """fast-reid: a |.\n\n    Here: b.\n    """\n') == [
        ("S01", "a |.", "b.")
    ]
    assert table.rows("def test_other():\n    pass\n") == []


def test_bars_do_not_break_the_table() -> None:
    text = table.document('def test_S01_x():\n    """fast-reid: a | b.\n\n    Here: c.\n    """\n')
    assert "| S01 | A \\| b. | C. |" in text
