"""workbook.py: open an .xlsx file that anybody may have sent, with care.

Such a file is a zip archive of XML parts. python-calamine reads the cells;
what it doesn't tell is looked up here: formulas and errors (it gives "" for
#REF!), what is hidden, and whether the parts are what they say.
"""

import re
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from posixpath import join, normpath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.parsers import expat

from python_calamine import CalamineSheet, CalamineWorkbook
from python_calamine import SheetTypeEnum as Type
from python_calamine import SheetVisibleEnum as Visible

MAX_UNPACKED = 128 * 2**20  # bytes; 200,000 rows of letters have some 40 MB
MAX_PARTS = 1_000
MAX_NUMBER = 2**20  # rows that a sheet can have

OLE = bytes.fromhex("d0cf11e0a1b11ae1")
OTHERS = {"xl/workbook.bin": "An .xlsb", "content.xml": "An .ods"}
MAIN = "xl/workbook.xml"
# To parse a sheet takes longer than to read it, so first it is asked whether
# there is any need: it may have a formula, an error, something hidden, or is
# written so that these wouldn't be seen. One by one, as re finds the start of
# a word faster than that of any of several.
SUSPECTS = (
    re.compile(rb"[<:]f[\s/>]"),
    re.compile(rb"[\"']e[\"']"),
    re.compile(rb"hidden"),
    re.compile(rb"\s(?:ht|width)\s*=\s*[\"']0"),
    re.compile(rb"&#"),
    re.compile(rb"<!"),
    re.compile(rb"\sr\s*=\s*[\"'](?:[A-Z]{4}|[A-Z]*[a-z])"),
)
ENCODING = re.compile(rb"<\?xml[^>]*\bencoding\s*=\s*[\"']([\w.-]+)")
ROW = re.compile(rb"<(?:\w+:)?row\s[^>]*?\br\s*=\s*[\"'](\d+)[\"']")
CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
TRUE = ("1", "true")

Faults = list[dict[str, Any]]


class Refused(Exception):
    """Why the file is refused, as a list of faults."""

    def __init__(
        self,
        reason: str,
        row: int = 0,
        column: str = "",
        *,
        faults: Faults | None = None,
    ) -> None:
        self.faults = faults or [fault(reason, row, column)]


def fault(reason: str, row: int = 0, column: str = "") -> dict[str, Any]:
    where = {"row": row or None, "column": column or None}
    return {**{k: v for k, v in where.items() if v}, "reason": reason}


@dataclass
class Marks:
    """What the XML of a sheet says beside the values of its cells."""

    rows: set[int] = field(default_factory=set)  # those that are hidden
    columns: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Sheet:
    """The one sheet that counts."""

    cells: CalamineSheet
    marks: Marks
    warnings: list[str]


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


class Parts:
    """The archive's parts. Their names are the same in any case."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names: dict[str, str] = {}
        for name in archive.namelist():
            if (same := self._key(name)) in self.names:
                raise Refused(f"The file is corrupt: {same} is there twice.")
            self.names[same] = name

    def _key(self, name: str) -> str:
        return name.replace("\\", "/").lower().lstrip("/")

    def read(self, name: str) -> bytes:
        if (same := self._key(name)) not in self.names:
            raise Refused(f"The file is corrupt: there is no {name} in it.")
        return self._archive.read(self.names[same])


def check_container(archive: zipfile.ZipFile) -> Parts:
    """An .xlsx is a zip archive: unpack it once, within limits.

    Sizes in the archive's own table of contents may lie, so the parts are
    read through; a part that doesn't match its size or checksum is corrupt.
    """
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
    found = Parts(archive)
    if MAIN not in found.names:
        for name, kind in OTHERS.items():
            if name in found.names:
                raise Refused(f"{kind} file. Save it as .xlsx.")
        raise Refused("Not a spreadsheet: there is no workbook in it.")
    return found


def open_sheet(path: str) -> Sheet:
    """The first sheet that can be seen; a warning for each left out."""
    check_start(path)
    with zipfile.ZipFile(path) as archive:
        parts = check_container(archive)
        # As a stream: by its name calamine would take .xls for another kind.
        with open(path, "rb") as file:  # noqa: PTH123
            book = CalamineWorkbook.from_filelike(file)
        shown = [
            number
            for number, sheet in enumerate(book.sheets_metadata)
            if (sheet.visible, sheet.typ) == (Visible.Visible, Type.WorkSheet)
        ]
        if not shown:
            raise Refused("There is no sheet in it that can be seen.")
        first = shown[0]
        data = parts.read(part_of(parts, first, book.sheet_names[first]))
    marks = look_through(data)
    warnings = []
    for number, sheet in enumerate(book.sheets_metadata):
        if number == first or sheet.typ != Type.WorkSheet:
            continue
        if book.get_sheet_by_index(number).start:
            what = "sheet" if number in shown else "hidden sheet"
            warnings.append(f"The {what} {sheet.name[:40]!r} was left out.")
    return Sheet(book.get_sheet_by_index(first), marks, warnings)


def part_of(parts: Parts, number: int, name: str) -> str:
    """The part that has the sheet. Raises Refused if there is none."""
    sheets = ElementTree.fromstring(parts.read(MAIN)).findall(
        "./{*}sheets/{*}sheet"
    )
    if len(sheets) <= number or sheets[number].get("name") != name:
        raise Refused("The file is corrupt: its sheets cannot be told apart.")
    wanted = [
        value
        for key, value in sheets[number].items()
        if key.endswith("}id") and "relationships" in key
    ]
    rels = parts.read("xl/_rels/workbook.xml.rels")
    targets = [
        unquote(relation.get("Target", "")).replace("\\", "/")
        for relation in ElementTree.fromstring(rels)
        if [relation.get("Id")] == wanted
    ]
    if len(targets) != 1:
        raise Refused(f"The file is corrupt: where is sheet {name[:40]!r}?")
    return normpath(join("/xl", targets[0]))


def look_through(data: bytes) -> Marks:
    """What is hidden. Raises Refused for formulas and errors.

    What a formula comes to is only known to a spreadsheet.
    """
    encoding = ENCODING.search(data[:200])
    if b"\0" in data or (encoding and encoding[1].lower() != b"utf-8"):
        raise Refused("The file is corrupt: a sheet that isn't in UTF-8.")
    marks = Marks()
    numbers = [*map(int, ROW.findall(data))]
    if any(b <= a for a, b in pairwise([0, *numbers, MAX_NUMBER + 1])):
        raise Refused("The file is corrupt: its rows are not in order.")
    if any(suspect.search(data) for suspect in SUSPECTS):
        Look(marks).through(data)
    return marks


class Look:
    """Parses a sheet, and notes what calamine does not."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self._path: list[str] = []
        self._row = self._column = 0

    def through(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = self._doctype
        parser.Parse(data, True)

    def _doctype(self, *_: object) -> None:
        raise Refused("The file is corrupt: a sheet with a document type.")

    def _end(self, tag: str) -> None:
        self._path.pop()

    def _start(self, tag: str, has: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        inside = self._path[-1] if self._path else ""
        self._path.append(name)
        in_data = "sheetData" in self._path[:3]
        if name == "row" and in_data:
            self._row = int(has.get("r") or self._row + 1)
            self._column = 0
            if self._hidden(has, "ht"):
                self.marks.rows.add(self._row)
        elif name == "c" and in_data:
            self._at(has.get("r", ""))
            if has.get("t") == "e":
                self._refuse("an error value")
        elif name == "f" and inside == "c" and in_data:
            self._refuse("a formula")
        elif name == "col" and inside == "cols" and self._hidden(has, "width"):
            at = int(has.get("min", 0)), int(has.get("max", 0))
            self.marks.columns.append(at)

    def _hidden(self, has: dict[str, str], size: str) -> bool:
        return has.get("hidden") in TRUE or float(has.get(size) or 1) == 0

    def _at(self, reference: str) -> None:
        if found := CELL.fullmatch(reference):
            self._column = number_of(found[1])
            self._row = int(found[2])
        elif reference:
            raise Refused("The file is corrupt: a cell that cannot be.")
        else:
            self._column += 1

    def _refuse(self, what: str) -> None:
        column = letters_of(self._column)
        reason = f"Cell {column}{self._row} is {what}; paste the values."
        raise Refused(reason, self._row)


def number_of(letters: str) -> int:
    """1 for A, 27 for AA."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number


def letters_of(number: int) -> str:
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters or "?"


def check_merged(
    sheet: CalamineSheet, columns: Iterable[int], rows: list[int]
) -> None:
    """One value for several cells: whose is it? Raises Refused.

    `columns` are those with a heading, `rows` those that are taken.
    """
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or []:
        if not any(left < column <= right + 1 for column in columns):
            continue
        inside = rows[
            bisect_left(rows, top + 1) : bisect_right(rows, bottom + 1)
        ]
        covered = [row for row in inside if row > top + 1]
        wide = sum(left < column <= right + 1 for column in columns) > 1
        if covered or (inside and (wide or left + 1 not in columns)):
            name = (
                f"{letters_of(left + 1)}{top + 1}:"
                f"{letters_of(right + 1)}{bottom + 1}"
            )
            row = (covered or inside)[0]
            raise Refused(f"The cells {name} are merged; separate them.", row)
