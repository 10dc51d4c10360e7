"""spreadsheet.py: the rows of an .xlsx file, each a Payload.

The API and insert.py run this as a process of its own, so that a file made to
fill the memory or to take for ever ends the reader only. By hand it tells
whether a file would be taken:

    python spreadsheet.py FILE

Without FILE it waits for a name on its standard input. It prints lines of
JSON: {"rows": 21, "warnings": []}, then the rows themselves, 100 a line; or
{"faults": [...]}, and then nothing of the file may be stored.
"""

import datetime
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError
from schemas import Payload
from workbook import (
    Faults,
    Refused,
    Sheet,
    check_merged,
    fault,
    letters_of,
    open_sheet,
)

MAX_ROWS = int(os.environ.get("HTTP_QUEUE_MAX_ROWS", "200000"))
MAX_MEMORY = 2**30  # bytes
MAX_SECONDS = 60
MAX_FAULTS = 20
ROWS_A_LINE = 100

WORDS = {bool: "yes or no", float: "a number", int: "a number"}
TIMES = (datetime.date, datetime.time, datetime.timedelta)
# A cell of nothing but these is empty: spaces of all kinds, and what has no
# width or no ink.
BLANKS = "".join(
    chr(each)
    for each in (
        *(*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0xAD),
        *(0x1680, 0x180E, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F),
        *(0x205F, *range(0x2060, 0x2065), 0x2800, 0x3000, 0x3164, 0xFEFF),
    )
)
COLUMNS = {name.lower(): name for name in Payload.model_fields}
CHECK = TypeAdapter(Payload)

Rows = list[tuple[int, str]]  # by the sheet's number: the payload as JSON


def read(path: str) -> tuple[Rows, list[str]]:
    """All rows, and what was left out. Raises Refused."""
    sheet = open_sheet(path)
    rows = rows_of(sheet)
    header, cells = next(rows, (0, []))
    left = (sheet.cells.start or (0, 0))[1] + 1
    names = check_header(header, cells, left, sheet)
    good: Rows = []
    faults: Faults = []
    hidden: list[int] = []
    for number, cells in rows:
        if number in sheet.marks.rows:
            hidden.append(number)
            continue
        if len(good) == MAX_ROWS:
            raise Refused(f"More than {MAX_ROWS:,} rows.", number)
        given: dict[str, Any] = {}
        for index, cell in enumerate(cells):
            if is_blank(cell):
                continue
            if not (name := names[index]):
                column = letters_of(left + index)
                reason = f"No heading over {cell!r:.40}."
                faults.append(fault(reason, number, column))
            elif isinstance(cell, float) and cell.is_integer():
                given[name] = int(cell)
            else:
                given[name] = cell
        try:
            made = CHECK.validate_python(given)
            good.append((number, CHECK.dump_json(made).decode()))
        except ValidationError as error:
            faults += faults_of(error, number)
        if len(faults) >= MAX_FAULTS:
            faults[MAX_FAULTS:] = [fault("And perhaps more after that.")]
            break
    named = [left + index for index, name in enumerate(names) if name]
    if faults:
        raise Refused("", faults=faults)
    check_merged(sheet.cells, named, [number for number, _ in good])
    if not good:
        more = " that can be seen" if hidden else ""
        raise Refused(f"There is no row{more} under the headings.")
    return good, [*sheet.warnings, *told_of(hidden)]


def is_blank(cell: object) -> bool:
    return isinstance(cell, str) and not cell.strip(BLANKS)


def told_of(hidden: list[int]) -> list[str]:
    """What you don't see in the sheet, you don't send."""
    if not hidden:
        return []
    listed = ", ".join(f"{number}" for number in hidden[:10])
    more = f" and {len(hidden) - 10:,} more" if len(hidden) > 10 else ""
    return [f"Hidden rows were left out: {listed}{more}."]


def rows_of(sheet: Sheet) -> Iterator[tuple[int, list[Any]]]:
    """The rows that hold something, with their numbers."""
    # Calamine gives those between the first and the last cell with something
    # in it, whatever dimensions the sheet declares.
    first = (sheet.cells.start or (0, 0))[0] + 1
    for number, cells in enumerate(sheet.cells.to_python(), first):
        if not all(map(is_blank, cells)):
            yield number, cells


def check_header(
    row: int, cells: list[Any], left: int, sheet: Sheet
) -> list[str]:
    """By column: the name of the field, or "". Raises Refused."""
    if not row:
        raise Refused("The sheet is empty.")
    names: list[str] = []
    for index, cell in enumerate(cells):
        heading = str(cell).strip(BLANKS)
        name = COLUMNS.get(heading.lower(), "")
        if heading and not name:
            there = ", ".join(Payload.model_fields)
            reason = f"Unknown column {heading[:40]!r}; there are {there}."
            raise Refused(reason, row)
        if name and name in names:
            raise Refused(f"Two columns {name!r}.", row)
        for first, last in sheet.marks.columns:
            if name and first <= left + index <= last:
                reason = f"The column {name!r} is hidden; show or delete it."
                raise Refused(reason, row, letters_of(left + index))
        names.append(name)
    for name, field in Payload.model_fields.items():
        if field.is_required() and name not in names:
            raise Refused(f"The column {name!r} is missing.", row)
    return names


def faults_of(error: ValidationError, row: int) -> Iterator[dict[str, Any]]:
    for each in error.errors(include_url=False):
        column = str(each["loc"][0]) if each["loc"] else ""
        value = each["input"]
        if each["type"] == "missing":
            yield fault("Empty, and it must not be.", row, column)
        elif not column:  # a rule of the Payload as a whole
            yield fault(f"{each['msg']}.", row)
        else:
            what = "a date or time" if isinstance(value, TIMES) else ""
            what = what or f"{WORDS.get(type(value), 'text')}, {value!r:.40}"
            yield fault(f"{each['msg']}; this is {what}.", row, column)


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def tell(path: str) -> None:
    """Print the rows, or why there are none."""
    try:
        rows, warnings = read(path)
    except Refused as refused:
        print(json.dumps({"faults": refused.faults}))
        return
    except MemoryError:
        print(json.dumps({"faults": [fault("It takes too much memory.")]}))
        return
    # Whatever a library says of a file like this, be it that it panics
    # (calamine is written in Rust): the file is corrupt.
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        reason = f"The file is corrupt: {str(error) or type(error).__name__}"
        print(json.dumps({"faults": [fault(reason)]}))
        return
    head = {"rows": len(rows), "warnings": warnings}
    print(json.dumps(head), flush=True)
    for start in range(0, len(rows), ROWS_A_LINE):
        print(json.dumps(rows[start : start + ROWS_A_LINE]))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.stderr.write("Usage: python spreadsheet.py [FILE]\n")
        sys.exit(2)
    # No name: who started us has ended.
    named = [*map(os.fsencode, sys.argv[1:])] or sys.stdin.buffer.readlines()
    if name := b"".join(named).rstrip(b"\n"):
        limit()
        tell(os.fsdecode(name))
