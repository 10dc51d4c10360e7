"""The promises of docs/http-queue.rst: which spreadsheets are taken, and why others aren't.

Here are spreadsheet.py, workbook.py and insert.py; the odd ones are in apps/odd_sheets.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from apps import odd_sheets
from apps.http_queue import module


@pytest.mark.parametrize("name", odd_sheets.CASES)
def test_an_odd_sheet_gets_its_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / "odd.xlsx"
    expected = odd_sheets.write(name, path)
    module("spreadsheet").tell(str(path))
    told, *lines = map(json.loads, capfd.readouterr().out.splitlines())
    if isinstance(expected, odd_sheets.Taken):
        rows = {number: (*json.loads(text).values(),) for line in lines for number, text in line}
        assert (told, rows) == (
            {"rows": len(expected.rows), "warnings": told.get("warnings")},
            expected.rows,
        )
        assert len(told["warnings"]) == len(expected.warnings)
        for part, warning in zip(expected.warnings, told["warnings"], strict=True):
            assert part in warning
        return
    assert lines == []
    fault = told["faults"][0]
    assert (fault.get("row"), fault.get("column")) == (expected.row, expected.column), fault
    assert expected.reason in fault["reason"]
