#!/usr/bin/env python3
"""make_samples.py: write sample spreadsheets into a folder.

    python make_samples.py FOLDER

letters-21.xlsx, -100, -1000 and -10000, and letters-declared.xlsx, which says
of itself that it has 1,048,576 rows, and holds 21.
"""

import re
import sys
import zipfile
from pathlib import Path

import xlsxwriter

COUNTS = (21, 100, 1_000, 10_000)
COLUMNS = ("recipient", "text", "copies")


def write(path: Path, count: int) -> None:
    """A workbook with so many letters under its headings."""
    options = {"constant_memory": True}
    with xlsxwriter.Workbook(str(path), options) as workbook:
        sheet = workbook.add_worksheet("letters")
        sheet.write_row(0, 0, COLUMNS)
        for number in range(1, count + 1):
            name = f"reader{number}@example.com"
            row = (name, f"Letter {number}", 1 + number % 3)
            sheet.write_row(number, 0, row)


def declare(path: Path, source: Path) -> None:
    """A copy that declares all the rows that a sheet can have."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename == "xl/worksheets/sheet1.xml":
                wide = rb'<dimension ref="A1:C1048576"/>'
                data = re.sub(rb"<dimension [^>]*>", wide, data)
            new.writestr(part, data, zipfile.ZIP_DEFLATED)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for count in COUNTS:
        write(folder / f"letters-{count}.xlsx", count)
    declare(folder / "letters-declared.xlsx", folder / "letters-21.xlsx")
    for path in sorted(folder.glob("letters-*.xlsx")):
        print(f" [x] {path.name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.stderr.write("Usage: python make_samples.py FOLDER\n")
        sys.exit(2)
    main(Path(sys.argv[1]))
