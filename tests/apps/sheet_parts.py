"""An .xlsx file, made by hand part by part, so that each may be odd."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

Parts = dict[str, str | bytes]

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
X14 = (
    'xmlns:x14="http://schemas.microsoft.com/office/spreadsheetml/2009/9/main" '
    'xmlns:xm="http://schemas.microsoft.com/office/excel/2006/main"'
)
XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
HEAD = ("recipient", "text", "copies")
ANN, BOB = ("ann", "Hello", 2), ("bob", "Hi", 3)
NBSP, ZERO_WIDTH, BOM = "\xa0", "\u200b", "\ufeff"


@dataclass(frozen=True)
class Raw:
    """A cell written out; {r} is where it is."""

    xml: str


def cell(value: Any, where: str) -> str:
    at = f' r="{where}"' if where else ""
    if isinstance(value, Raw):
        return value.xml.replace("{r}", where)
    if value is None:
        return ""
    if isinstance(value, bool):
        return f'<c{at} t="b"><v>{value:d}</v></c>'
    if isinstance(value, str):
        text = f'<t xml:space="preserve">{escape(value)}</t>'
        return f'<c{at} t="inlineStr"><is>{text}</is></c>'
    return f"<c{at}><v>{value}</v></c>"


def row(number: int, *values: Any, more: str = "", left: int = 0) -> str:
    letters = "ABCDEFGHIJ"[left:]
    cells = "".join(cell(each, f"{letters[n]}{number}") for n, each in enumerate(values))
    return f'<row r="{number}"{more}>{cells}</row>'


def sheet(*rows: Any, before: str = "", after: str = "") -> str:
    """A sheet: each row as XML, or as its values."""
    made = [
        each if isinstance(each, str) else row(number, *each)
        for number, each in enumerate(rows, 1)
    ]
    data = f"<sheetData>{''.join(made)}</sheetData>"
    return f'{XML}<worksheet xmlns="{MAIN}" {X14}>{before}{data}{after}</worksheet>'


def book(
    *sheets: str, states: str = "", target: str = "worksheets/sheet{}.xml", **more: Any
) -> Parts:
    """A workbook; `states` has a letter a sheet: v (shown), h (hidden) or H (very)."""
    listed, relations = "", ""
    names = {"h": ' state="hidden"', "H": ' state="veryHidden"'}
    parts: Parts = {}
    for number, data in enumerate(sheets, 1):
        state = names.get(states[number - 1 : number], "")
        listed += f'<sheet name="S{number}" sheetId="{number}"{state} r:id="rId{number}"/>'
        kind = "chartsheet" if "<chartsheet" in data else "worksheet"
        where = target.format(number).replace("worksheets", f"{kind}s")
        relations += f'<Relationship Id="rId{number}" Type="{OFFICE}/{kind}" Target="{where}"/>'
        parts[f"xl/{kind}s/sheet{number}.xml"] = data
    for name in ("sharedStrings", "styles"):
        if name in more:
            relations += f'<Relationship Id="{name}" Type="{OFFICE}/{name}" Target="{name}.xml"/>'
            parts[f"xl/{name}.xml"] = more[name]
    return {
        "[Content_Types].xml": f'{XML}<Types xmlns="{PACKAGE}"/>',
        "_rels/.rels": f'{XML}<Relationships xmlns="{PACKAGE}"><Relationship Id="r" '
        f'Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'{XML}<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{listed}'
        f"</sheets>{more.get('in_workbook', '')}</workbook>",
        "xl/_rels/workbook.xml.rels": f'{XML}<Relationships xmlns="{PACKAGE}">{relations}'
        "</Relationships>",
        **parts,
    }


def renamed(parts: Parts, old: str, new: str) -> Parts:
    return {new if name == old else name: data for name, data in parts.items()}


def changed(parts: Parts, **by_place: Any) -> Parts:
    """With other contents; `rels`, `workbook` and `sheet` are the places."""
    places = {
        "rels": "xl/_rels/workbook.xml.rels",
        "workbook": "xl/workbook.xml",
        "sheet": "xl/worksheets/sheet1.xml",
    }
    made = {**parts, **{places[place]: data for place, data in by_place.items()}}
    return {name: data for name, data in made.items() if data is not None}


def zipped(parts: Parts) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return file.getvalue()


def flagged(data: bytes, at: int, value: int) -> bytes:
    """With another value in a field of each entry of the archive."""
    made = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", at), (b"PK\x01\x02", at + 2)):
        start = -1
        while (start := made.find(mark, start + 1)) >= 0:
            made[start + offset] = value
    return bytes(made)


def flipped(data: bytes) -> bytes:
    made = bytearray(data)
    for at in range(len(made) // 3, len(made) // 2, 7):
        made[at] ^= 0xFF
    return bytes(made)
