"""spreadsheet.py: read an .xlsx file that anybody may have sent.

The API runs this as a process of its own, so that a file made to fill the
memory or to take for ever ends the reader and not the API. By hand it tells
whether a file would be taken:

    python spreadsheet.py FILE

Without FILE it waits for a name on its standard input. It prints lines of
JSON: {"rows": 21}, then the rows themselves, 100 a line; or {"faults": [...]},
and then nothing of the file may be stored.
"""

import datetime
import json
import os
import re
import resource
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from pydantic import ValidationError
from python_calamine import CalamineError, load_workbook
from schemas import Payload

MAX_ROWS = int(os.environ.get("HTTP_QUEUE_MAX_ROWS", "200000"))
MAX_UNPACKED = 128 * 2**20  # bytes; 200,000 rows of letters have some 40 MB
MAX_PARTS = 1_000
MAX_MEMORY = 2**30  # bytes
MAX_SECONDS = 60
MAX_FAULTS = 20
ROWS_A_LINE = 100

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
CELL = re.compile(rb'<(?:\w+:)?c\b[^>]*?\br="([A-Z]+)(\d+)"')
FORMULA = re.compile(rb"<(?:\w+:)?f[\s>/]")
ERROR = re.compile(rb'<(?:\w+:)?c\b[^>]*\bt="e"[^>]*>')
WORDS = {bool: "yes or no", float: "a number", int: "a number"}
TIMES = (datetime.date, datetime.time, datetime.timedelta)


Faults = list[dict[str, Any]]


class Refused(Exception):
    """Why the file is refused, as a list of faults."""

    def __init__(
        self, reason: str, row: int = 0, *, faults: Faults | None = None
    ) -> None:
        self.faults = faults or [fault(reason, row)]


def fault(reason: str, row: int = 0, column: str = "") -> dict[str, Any]:
    where = {"row": row or None, "column": column or None}
    return {**{k: v for k, v in where.items() if v}, "reason": reason}


def check_start(path: str) -> None:
    """What can be told without reading the file. Raises Refused."""
    with open(path, "rb") as file:  # noqa: PTH123
        start = file.read(8)
    if not start:
        raise Refused("The file is empty (0 bytes).")
    if start == OLE:
        raise Refused(
            "An old .xls file, or one with a password. Save it as .xlsx."
        )
    if not start.startswith(b"PK"):
        raise Refused("Not a spreadsheet: an .xlsx file is expected.")


def check_container(path: str) -> None:
    """An .xlsx is a zip archive: unpack it once, within limits.

    Sizes in the archive's own table of contents may lie, so the parts are
    read through; a part that doesn't match its size or checksum is corrupt.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if len(parts) > MAX_PARTS:
            raise Refused(f"More than {MAX_PARTS:,} parts in the archive.")
        if sum(part.file_size for part in parts) > MAX_UNPACKED:
            limit = MAX_UNPACKED // 2**20
            raise Refused(f"Unpacked it has more than {limit} MiB.")
        for part in parts:
            with archive.open(part) as stream:
                while stream.read(2**20):
                    pass
        check_cells(archive)


def check_cells(archive: zipfile.ZipFile) -> None:
    """Refuse formulas: what they come to is only known to a spreadsheet."""
    names = {name: name.lower() for name in archive.namelist()}
    if "xl/workbook.xml" not in names.values():
        raise Refused("Not a spreadsheet: there is no workbook in it.")
    path = first_sheet(archive)
    cells = archive.read(path) if path in names else b""
    for pattern, what in ((FORMULA, "a formula"), (ERROR, "an error value")):
        if not (found := pattern.search(cells)):
            continue
        before = [*CELL.finditer(cells[: found.end()])][-1:]
        column, row = before[0].groups() if before else (b"?", b"0")
        raise Refused(
            f"Cell {column.decode()}{row.decode()} is {what}; "
            "paste the values instead.",
            int(row),
        )


def first_sheet(archive: zipfile.ZipFile) -> str:
    """The path of the first sheet, which is the one that is read."""
    workbook = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    sheet = workbook.find(".//{*}sheets/{*}sheet")
    if sheet is None:
        raise Refused("There is no sheet in it.")
    wanted = [value for name, value in sheet.items() if name.endswith("}id")]
    rels = archive.read("xl/_rels/workbook.xml.rels")
    for relation in ElementTree.fromstring(rels):
        if relation.get("Id") in wanted:
            target = relation.get("Target", "")
            return f"xl/{target}" if target[:1] != "/" else target[1:]
    return ""


def read(path: str) -> list[tuple[int, dict[str, Any]]]:
    """All rows with their numbers, each a Payload. Raises Refused."""
    check_start(path)
    check_container(path)
    rows = sheet_rows(path)
    number, header = next(rows, (0, []))
    names = [str(name).strip().lower() for name in header]
    check_header(number, names)
    good: list[tuple[int, dict[str, Any]]] = []
    faults: list[dict[str, Any]] = []
    for number, cells in rows:
        if len(good) == MAX_ROWS:
            raise Refused(f"More than {MAX_ROWS:,} rows.", number)
        given = {
            name: int(cell)
            if isinstance(cell, float) and cell.is_integer()
            else cell
            for name, cell in zip(names, cells, strict=True)
            if cell != "" and name
        }
        try:
            good.append((number, Payload.model_validate(given).model_dump()))
        except ValidationError as error:
            faults += faults_of(error, number)
            if len(faults) >= MAX_FAULTS:
                faults[MAX_FAULTS:] = [fault("And perhaps more after that.")]
                break
    if faults:
        raise Refused("", faults=faults)
    if not good:
        raise Refused("There is no row under the headings.")
    return good


def sheet_rows(path: str) -> Iterator[tuple[int, list[Any]]]:
    """The rows that hold something, with their numbers."""
    # Calamine gives those between the first and the last cell with something
    # in it, whatever dimensions the sheet declares.
    with load_workbook(path) as workbook:
        sheet = workbook.get_sheet_by_index(0)
        first = sheet.start[0] if sheet.start else 0
        rows = sheet.to_python(skip_empty_area=True)
    for number, cells in enumerate(rows, first + 1):
        if any(cell != "" for cell in cells):
            yield number, cells


def check_header(number: int, names: list[str]) -> None:
    if not number:
        raise Refused("The sheet is empty.")
    columns = Payload.model_fields
    expected = ", ".join(columns)
    for name in names:
        if name and name not in columns:
            reason = f"Unknown column {name[:40]!r}; there are {expected}."
            raise Refused(reason, number)
        if name and names.count(name) > 1:
            raise Refused(f"Two columns {name!r}.", number)
    for name, field in columns.items():
        if field.is_required() and name not in names:
            raise Refused(f"The column {name!r} is missing.", number)


def faults_of(error: ValidationError, row: int) -> Iterator[dict[str, Any]]:
    for each in error.errors(include_url=False):
        column = str(each["loc"][0])
        if each["type"] == "missing":
            yield fault("Empty, and it must not be.", row, column)
            continue
        value = each["input"]
        what = "a date or time" if isinstance(value, TIMES) else ""
        what = what or f"{WORDS.get(type(value), 'text')}, {value!r:.40}"
        yield fault(f"{each['msg']}; this is {what}.", row, column)


def main(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faults: list[dict[str, Any]] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    try:
        rows = read(path)
    except Refused as refused:
        faults = refused.faults
    except MemoryError:
        faults = [fault("Reading it takes too much memory.")]
    except (
        zipfile.BadZipFile,
        zlib.error,
        CalamineError,
        ElementTree.ParseError,
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        faults = [fault(f"The file is corrupt: {error}")]
    if faults:
        print(json.dumps({"faults": faults}))
        return
    print(json.dumps({"rows": len(rows)}), flush=True)
    for start in range(0, len(rows), ROWS_A_LINE):
        print(json.dumps(rows[start : start + ROWS_A_LINE]))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.stderr.write("Usage: python spreadsheet.py [FILE]\n")
        sys.exit(2)
    # No name: the API has ended.
    if name := [*sys.argv[1:], ""][0] or sys.stdin.readline().rstrip("\n"):
        main(name)
