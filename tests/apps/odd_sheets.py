"""Odd spreadsheets, each with the answer that it must get."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.sheet_parts import (
    ANN,
    BOB,
    BOM,
    HEAD,
    MAIN,
    NBSP,
    X14,
    XML,
    ZERO_WIDTH,
    Parts,
    Raw,
    book,
    cell,
    changed,
    flagged,
    flipped,
    renamed,
    row,
    sheet,
    zipped,
)


@dataclass(frozen=True)
class Taken:
    """By row: what is taken; and words that the warnings have."""

    rows: dict[int, tuple[Any, ...]]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Refusal:
    reason: str
    row: int | None = None
    column: str | None = None


TWO = Taken({2: ANN, 3: BOB})
plain = sheet(HEAD, ANN, BOB)


def with_c(xml: str) -> Parts:
    """A workbook with a third cell in row 2 of one's own."""
    return book(sheet(HEAD, ("ann", "Hello", Raw(xml)), BOB))


def extended(inside: str) -> Parts:
    ext = f'<extLst><ext uri="{{A}}" {X14}>{inside}</ext></extLst>'
    return book(sheet(HEAD, ANN, BOB, after=ext))


def columns(at: int, more: str = ' hidden="1"') -> str:
    return f'<cols><col min="{at}" max="{at}" width="9"{more}/></cols>'


def merged(*ranges: str) -> str:
    cells = "".join(f'<mergeCell ref="{each}"/>' for each in ranges)
    return f"<mergeCells>{cells}</mergeCells>"


FORMULA = Refusal("C2 is a formula", 2)
ERROR = Refusal("C2 is an error value", 2)
CORRUPT = Refusal("corrupt")
STRINGS = f'{XML}<sst xmlns="{MAIN}">{{}}</sst>'
RICH = "<si><r><t>Hel</t></r><r><rPr><b/></rPr><t>lo</t></r><rPh><t>ignored</t></rPh></si>"
DATES = (
    f'{XML}<styleSheet xmlns="{MAIN}"><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="14"/>'
    "</cellXfs></styleSheet>"
)
chart = f'{XML}<chartsheet xmlns="{MAIN}"/>'
third = Raw('<c r="C2"><f>1+1</f><v>2</v></c>')

CASES: dict[str, tuple[Callable[[], Parts | bytes], Taken | Refusal]] = {
    "plain": (lambda: book(plain), TWO),
    # Formulas and error values
    "formula": (lambda: with_c('<c r="{r}"><f>1+1</f><v>2</v></c>'), FORMULA),
    "formula without a value": (lambda: with_c('<c r="{r}"><f>A1</f></c>'), FORMULA),
    "formula, shared": (lambda: with_c('<c r="{r}"><f t="shared" si="0"/><v>2</v></c>'), FORMULA),
    "formula, array": (
        lambda: with_c('<c r="{r}"><f t="array" ref="C2">A1</f><v>2</v></c>'),
        FORMULA,
    ),
    "formula with a text": (
        lambda: book(sheet(HEAD, ("ann", Raw('<c r="B2" t="str"><f>A1</f><v>a</v></c>'), 1))),
        Refusal("B2 is a formula", 2),
    ),
    "formula, its name with a prefix": (
        lambda: book(
            sheet(HEAD, ("ann", "Hello", third))
            .replace("<c ", "<x:c ")
            .replace("<f>", "<x:f>")
            .replace("</c>", "</x:c>")
            .replace("</f>", "</x:f>")
            .replace("xmlns=", f'xmlns:x="{MAIN}" xmlns=')
        ),
        FORMULA,
    ),
    "formula, cells without references": (
        lambda: book(
            sheet(HEAD, "<row>" + "".join(cell(v, "") for v in ANN[:2]) + "<c><f>1</f></c></row>")
        ),
        FORMULA,
    ),
    "formula in a column without a heading": (
        lambda: book(sheet(HEAD, (*ANN, Raw('<c r="{r}"><f>1</f><v>1</v></c>')))),
        Refusal("D2 is a formula", 2),
    ),
    "formula in a hidden row": (
        lambda: book(sheet(HEAD, row(2, "ann", "Hello", third, more=' hidden="1"'))),
        FORMULA,
    ),
    "formula in a part of another case": (
        lambda: renamed(
            with_c('<c r="{r}"><f>1+1</f><v>2</v></c>'),
            "xl/worksheets/sheet1.xml",
            "xl/worksheets/Sheet1.xml",
        ),
        FORMULA,
    ),
    "formula in UTF-16": (
        lambda: changed(
            book(plain),
            sheet=sheet(HEAD, ("a", "b", third)).replace("UTF-8", "UTF-16").encode("utf-16"),
        ),
        Refusal("isn't in UTF-8"),
    ),
    "another encoding": (lambda: book(plain.replace("UTF-8", "latin-1")), Refusal("UTF-8")),
    "formula in a sheet that is left out": (
        lambda: book(plain, sheet(HEAD, ("x", "y", third))),
        Taken(TWO.rows, ["'S2' was left out"]),
    ),
    "a formula's result without the formula": (
        lambda: with_c('<c r="{r}"><v>2</v></c>'),
        TWO,
    ),
    "text that looks like a formula": (
        lambda: book(sheet(HEAD, ("=1+1", '<f>1</f> hidden="1" t="e"', 2))),
        Taken({2: ("=1+1", '<f>1</f> hidden="1" t="e"', 2)}),
    ),
    "a formula in a comment": (
        lambda: book(sheet(HEAD, ANN, BOB, after="<!-- <c><f>1</f></c> -->")),
        TWO,
    ),
    "error value": (lambda: with_c('<c r="{r}" t="e"><v>#REF!</v></c>'), ERROR),
    "error value, single quotes": (lambda: with_c("<c r='{r}' t='e'><v>#REF!</v></c>"), ERROR),
    "error value, spaces": (lambda: with_c('<c r="{r}" t = "e" ><v>#N/A</v></c>'), ERROR),
    "error value, attributes turned round": (
        lambda: with_c('<c t="e" r="{r}"><v>#N/A</v></c>'),
        ERROR,
    ),
    "error value, a character by its number": (
        lambda: with_c('<c r="{r}" t="&#101;"><v>#N/A</v></c>'),
        ERROR,
    ),
    "error value, an element without an end": (
        lambda: book(sheet(HEAD, ("ann", Raw('<c r="B2" t="e"/>'), 1))),
        Refusal("B2 is an error value", 2),
    ),
    "list validation of 2010": (
        lambda: extended(
            '<x14:dataValidations count="1"><x14:dataValidation type="list"><x14:formula1>'
            "<xm:f>S2!A1:A3</xm:f></x14:formula1><xm:sqref>C2</xm:sqref></x14:dataValidation>"
            "</x14:dataValidations>"
        ),
        TWO,
    ),
    "sparkline": (
        lambda: extended(
            "<x14:sparklineGroups><x14:sparklineGroup><x14:sparklines><x14:sparkline>"
            "<xm:f>S1!C2:C3</xm:f><xm:sqref>D2</xm:sqref></x14:sparkline></x14:sparklines>"
            "</x14:sparklineGroup></x14:sparklineGroups>"
        ),
        TWO,
    ),
    "data bar of 2010": (
        lambda: extended(
            "<x14:conditionalFormattings><x14:conditionalFormatting><x14:cfRule><x14:dataBar>"
            '<x14:cfvo type="formula"><xm:f>1</xm:f></x14:cfvo></x14:dataBar></x14:cfRule>'
            "</x14:conditionalFormatting></x14:conditionalFormattings>"
        ),
        TWO,
    ),
    "conditional format and validation": (
        lambda: book(
            sheet(
                HEAD,
                ANN,
                BOB,
                after='<conditionalFormatting sqref="C2"><cfRule type="expression">'
                "<formula>C2&gt;1</formula></cfRule></conditionalFormatting>"
                '<dataValidations><dataValidation sqref="C2"><formula1>1</formula1>'
                "</dataValidation></dataValidations>",
            )
        ),
        TWO,
    ),
    "a name that is defined by a formula": (
        lambda: book(
            plain,
            in_workbook='<definedNames><definedName name="n">S1!$A$1</definedName></definedNames>',
        ),
        TWO,
    ),
    # Where the parts are
    "part of another case": (
        lambda: renamed(book(plain), "xl/worksheets/sheet1.xml", "xl/worksheets/Sheet1.xml"),
        TWO,
    ),
    "workbook of another case": (
        lambda: renamed(book(plain), "xl/workbook.xml", "xl/Workbook.xml"),
        TWO,
    ),
    "all parts in capitals": (
        lambda: {
            name if name[0] == "[" else name.upper(): data for name, data in book(plain).items()
        },
        TWO,
    ),
    "absolute target": (lambda: book(plain, target="/xl/worksheets/sheet{}.xml"), TWO),
    "target that leads to xl/xl": (
        lambda: book(plain, target="xl/worksheets/sheet{}.xml"),
        CORRUPT,
    ),
    "two parts that differ in case": (
        lambda: {**book(plain), "xl/worksheets/SHEET1.xml": sheet(HEAD, ("x", "y", third))},
        Refusal("is there twice"),
    ),
    "no such part": (lambda: changed(book(plain), sheet=None), CORRUPT),
    "no relations": (lambda: changed(book(plain), rels=None), CORRUPT),
    "a relation that leads elsewhere": (
        lambda: book(plain, target="../../../etc/sheet{}.xml"),
        CORRUPT,
    ),
    "no content types": (
        lambda: {k: v for k, v in book(plain).items() if k[0] != "["},
        TWO,
    ),
    "prefixes for all names": (
        lambda: book(
            plain.replace("<", "<x:")
            .replace("<x:/", "</x:")
            .replace("<x:?", "<?")
            .replace("xmlns=", "xmlns:x=")
        ),
        TWO,
    ),
    # Headings, blanks, and where the table is
    "a value without a heading": (
        lambda: book(sheet(("recipient", "text"), ("ann", "Hello", 50))),
        Refusal("No heading over 50", 2, "C"),
    ),
    "a value under a heading of blanks": (
        lambda: book(sheet(("recipient", "text", f" {NBSP}"), ("ann", "Hello", 50))),
        Refusal("No heading over 50", 2, "C"),
    ),
    "a value without a heading, between": (
        lambda: book(sheet(("recipient", None, "text"), ("ann", "x", "Hello"))),
        Refusal("No heading over 'x'", 2, "B"),
    ),
    "a value without a heading, moved": (
        lambda: book(
            sheet(row(4, "recipient", "text", left=2), row(5, "ann", "Hello", "x", left=2))
        ),
        Refusal("No heading over 'x'", 5, "E"),
    ),
    "a column without heading or values": (
        lambda: book(sheet(("recipient", None, "text"), ("ann", " ", "Hello"))),
        Taken({2: ("ann", "Hello", 1)}),
    ),
    "a row of blanks": (
        lambda: book(sheet(HEAD, ANN, (" ", "\t", NBSP), BOB)),
        Taken({2: ANN, 4: BOB}),
    ),
    "a row of what has no width": (
        lambda: book(sheet(HEAD, ANN, (ZERO_WIDTH, BOM, "\u3000"), BOB)),
        Taken({2: ANN, 4: BOB}),
    ),
    "a text of blanks": (
        lambda: book(sheet(HEAD, ("ann", f" {ZERO_WIDTH}", 1))),
        Refusal("Empty", 2, "text"),
    ),
    "copies of blanks": (
        lambda: book(sheet(HEAD, ("ann", "Hello", " "))),
        Taken({2: ("ann", "Hello", 1)}),
    ),
    "rows left out between": (
        lambda: book(sheet(HEAD, row(5, *ANN), row(900, *BOB))),
        Taken({5: ANN, 900: BOB}),
    ),
    "blank rows before and after": (
        lambda: book(sheet((" ",), ("",), HEAD, ANN, ("", "", ""), (" ", None, None))),
        Taken({4: ANN}),
    ),
    "further down and to the right": (
        lambda: book(sheet(row(7, *HEAD, left=3), row(8, *ANN, left=3))),
        Taken({8: ANN}),
    ),
    "headings in capitals, with blanks": (
        lambda: book(sheet((f"{BOM}Recipient", f" TEXT{NBSP}", "Copies\n"), ANN)),
        Taken({2: ANN}),
    ),
    "columns in another order": (
        lambda: book(sheet(("copies", "text", "recipient"), (2, "Hello", "ann"))),
        Taken({2: ANN}),
    ),
    "a title above": (
        lambda: book(sheet(("Letters",), HEAD, ANN)),
        Refusal("Unknown column 'Letters'", 1),
    ),
    "a heading that is a number": (
        lambda: book(sheet((*HEAD, 7), ANN)),
        Refusal("Unknown column '7", 1),
    ),
    "a heading too many": (
        lambda: book(sheet((*HEAD, "colour"), ANN)),
        Refusal("Unknown column 'colour'", 1),
    ),
    "a heading twice": (lambda: book(sheet((*HEAD, "Text "), ANN)), Refusal("Two columns", 1)),
    "a heading missing": (lambda: book(sheet(HEAD[1:], ANN[1:])), Refusal("is missing", 1)),
    "only headings": (lambda: book(sheet(HEAD)), Refusal("no row under")),
    "nothing at all": (lambda: book(sheet()), Refusal("The sheet is empty")),
    "nothing but blanks": (lambda: book(sheet((" ", NBSP))), Refusal("The sheet is empty")),
    "a total at the end": (
        lambda: book(sheet(HEAD, ANN, (None, None, 2))),
        Refusal("Empty", 3, "recipient"),
    ),
    "rows and cells without references": (
        lambda: book(
            sheet(
                *("<row>" + "".join(cell(v, "") for v in r) + "</row>" for r in (HEAD, ANN, BOB))
            )
        ),
        TWO,
    ),
    "a row twice": (
        lambda: book(sheet(HEAD, row(2, *ANN), row(2, *BOB))),
        Refusal("not in order"),
    ),
    "rows out of order": (
        lambda: book(sheet(HEAD, row(3, *ANN), row(2, *BOB))),
        Refusal("not in order"),
    ),
    "it says it has all rows": (
        lambda: book(sheet(HEAD, ANN, BOB, before='<dimension ref="A1:XFD1048576"/>')),
        TWO,
    ),
    # What a cell holds
    "a fraction": (
        lambda: book(sheet(HEAD, ("a", "b", 1.5))),
        Refusal("a number, 1.5", 2, "copies"),
    ),
    "a number as text": (
        lambda: book(sheet(HEAD, ("a", "b", "2"))),
        Refusal("text, '2'", 2, "copies"),
    ),
    "yes or no": (
        lambda: book(sheet(HEAD, ("a", "b", True))),
        Refusal("yes or no", 2, "copies"),
    ),
    "none": (lambda: book(sheet(HEAD, ("a", "b", 0))), Refusal("greater", 2, "copies")),
    "too many": (lambda: book(sheet(HEAD, ("a", "b", "1e16"))), Refusal("1e16", 2, "copies")),
    "far too many": (
        lambda: with_c('<c r="{r}"><v>1e300</v></c>'),
        Refusal("less than", 2, "copies"),
    ),
    "a number for a text": (
        lambda: book(sheet(HEAD, (4912345, "b", 1))),
        Refusal("a number, 4912345", 2, "recipient"),
    ),
    "a date for a text": (
        lambda: book(sheet(HEAD, ("a", Raw('<c r="B2" s="1"><v>45000</v></c>'), 1)), styles=DATES),
        Refusal("a date or time", 2, "text"),
    ),
    "a style that isn't there": (
        lambda: with_c('<c r="{r}" s="99"><v>2</v></c>'),
        TWO,
    ),
    "not a number": (
        lambda: with_c('<c r="{r}"><v>two</v></c>'),
        Refusal("text, 'two'", 2, "copies"),
    ),
    "rich text": (
        lambda: book(
            sheet(HEAD, ("ann", Raw('<c r="B2" t="s"><v>0</v></c>'), 2)),
            sharedStrings=STRINGS.format(RICH),
        ),
        Taken({2: ANN}),
    ),
    "a string that isn't there": (
        lambda: book(
            sheet(HEAD, ("ann", Raw('<c r="B2" t="s"><v>7</v></c>'), 2)),
            sharedStrings=STRINGS.format(RICH),
        ),
        CORRUPT,
    ),
    "no strings": (
        lambda: book(sheet(HEAD, ("ann", Raw('<c r="B2" t="s"><v>0</v></c>'), 2))),
        CORRUPT,
    ),
    "a text too long": (
        lambda: book(sheet(HEAD, ("a", "b" * 10_001, 1))),
        Refusal("at most 10000", 2, "text"),
    ),
    "signs of all kinds": (
        lambda: book(sheet(HEAD, ("Grüße 🐰", "<b>&amp;", 1), ("ann", "two\nlines", 1))),
        Taken({2: ("Grüße 🐰", "<b>&amp;", 1), 3: ("ann", "two\nlines", 1)}),
    ),
    "each wrong row is told": (
        lambda: book(sheet(HEAD, ANN, ("a", "b", "two"), (None, "b", 1))),
        Refusal("two", 3, "copies"),
    ),
    # What is hidden, merged, or on another sheet
    "hidden row": (
        lambda: book(sheet(HEAD, row(2, *ANN, more=' hidden="1"'), BOB)),
        Taken({3: BOB}, ["Hidden rows were left out: 2."]),
    ),
    "hidden row, the other way to write it": (
        lambda: book(sheet(HEAD, row(2, *ANN, more=" hidden='true'"), BOB)),
        Taken({3: BOB}, ["left out: 2."]),
    ),
    "hidden row, and wrong": (
        lambda: book(sheet(HEAD, ANN, row(3, "x", "y", "z", more=' hidden="1"'))),
        Taken({2: ANN}, ["left out: 3."]),
    ),
    "row of no height": (
        lambda: book(sheet(HEAD, row(2, *ANN, more=' ht="0" customHeight="1"'), BOB)),
        Taken({3: BOB}, ["left out: 2."]),
    ),
    "row of some height": (
        lambda: book(sheet(HEAD, row(2, *ANN, more=' ht="0.75" hidden="0"'), BOB)),
        TWO,
    ),
    "filtered": (
        lambda: book(
            sheet(
                HEAD,
                row(2, *ANN, more=' hidden="1"'),
                row(3, *ANN, more=' hidden="1"'),
                row(4, *BOB),
                after='<autoFilter ref="A1:C4"><filterColumn colId="0"/></autoFilter>',
            )
        ),
        Taken({4: BOB}, ["left out: 2, 3."]),
    ),
    "all rows hidden": (
        lambda: book(sheet(HEAD, row(2, *ANN, more=' hidden="1"'))),
        Refusal("no row that can be seen"),
    ),
    "headings hidden": (
        lambda: book(sheet(row(1, *HEAD, more=' hidden="1"'), ANN)),
        Taken({2: ANN}),
    ),
    "unused rows hidden": (
        lambda: book(sheet(HEAD, ANN, BOB, before='<sheetFormatPr zeroHeight="1"/>')),
        TWO,
    ),
    "hidden blank row": (
        lambda: book(sheet(HEAD, ANN, BOB, row(4, " ", more=' hidden="1"'))),
        TWO,
    ),
    "hidden column": (
        lambda: book(sheet(HEAD, ANN, before=columns(3))),
        Refusal("'copies' is hidden", 1, "C"),
    ),
    "column of no width": (
        lambda: book(
            sheet(HEAD, ANN, before=columns(2).replace("9", "0", 1).replace("hidden", "x"))
        ),
        Refusal("'text' is hidden", 1, "B"),
    ),
    "hidden column of nothing": (lambda: book(sheet(HEAD, ANN, BOB, before=columns(4))), TWO),
    "hidden first sheet": (
        lambda: book(sheet(HEAD, ("x", "y", 9)), plain, states="hv"),
        Taken(TWO.rows, ["The hidden sheet 'S1' was left out."]),
    ),
    "very hidden first sheet": (
        lambda: book(sheet(HEAD, ("x", "y", 9)), plain, states="Hv"),
        Taken(TWO.rows, ["The hidden sheet 'S1' was left out."]),
    ),
    "second sheet": (
        lambda: book(plain, sheet(HEAD, ("x", "y", 9))),
        Taken(TWO.rows, ["The sheet 'S2' was left out."]),
    ),
    "second and third": (
        lambda: book(plain, sheet(("a note",)), sheet(("b",)), states="vvh"),
        Taken(TWO.rows, ["The sheet 'S2'", "The hidden sheet 'S3'"]),
    ),
    "empty sheets behind": (lambda: book(plain, sheet(), sheet()), TWO),
    "empty sheet before": (lambda: book(sheet(), plain), Refusal("The sheet is empty")),
    "a chart before": (lambda: book(chart, plain), TWO),
    "all sheets hidden": (lambda: book(plain, states="h"), Refusal("no sheet in it that can")),
    "no sheet": (lambda: book(), Refusal("no sheet in it that can")),
    "merged down": (
        lambda: book(
            sheet(HEAD, ("ann", "Hello", 50), ("bob", "Hi", None), after=merged("C2:C3"))
        ),
        Refusal("C2:C3 are merged", 3),
    ),
    "merged across": (
        lambda: book(sheet(HEAD, ("ann", "Hello", None), after=merged("B2:C2"))),
        Refusal("B2:C2 are merged", 2),
    ),
    "merged where nothing is": (
        lambda: book(sheet(HEAD, ANN, BOB, after=merged("A8:C9", "F1:H4"))),
        TWO,
    ),
    # Files
    "no bytes": (lambda: b"", Refusal("empty")),
    "a text": (lambda: b"recipient,text\nann,hello\n", Refusal("Not a spreadsheet")),
    "a page": (lambda: b"<html><table><tr><td>ann", Refusal("Not a spreadsheet")),
    "packed by gzip": (lambda: gzip.compress(zipped(book(plain))), Refusal("Not a spreadsheet")),
    "an old .xls": (lambda: bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), Refusal("old .xls")),
    "an .xlsb": (lambda: {"xl/workbook.bin": b"x"}, Refusal("An .xlsb file")),
    "an .ods": (lambda: {"mimetype": "x", "content.xml": "<x/>"}, Refusal("An .ods file")),
    "a zip of something": (lambda: {"a": "b"}, Refusal("no workbook")),
    "half of it": (lambda: zipped(book(plain))[: len(zipped(book(plain))) // 2], CORRUPT),
    "all but its end": (lambda: zipped(book(plain))[:-30], CORRUPT),
    "bytes flipped": (lambda: flipped(zipped(book(plain))), CORRUPT),
    "a password": (lambda: flagged(zipped(book(plain)), 6, 1), CORRUPT),
    "packed in an unknown way": (lambda: flagged(zipped(book(plain)), 8, 99), CORRUPT),
    "half a sheet": (lambda: changed(book(plain), sheet=plain[:-60]), CORRUPT),
    "half a workbook": (lambda: changed(book(plain), workbook="<workbook"), CORRUPT),
    "a document type": (
        lambda: book(plain.replace("<worksheet", "<!DOCTYPE x [<!ENTITY f 'y'>]><worksheet")),
        CORRUPT,
    ),
    "row 0": (lambda: book(sheet(row(0, *HEAD), row(1, *ANN))), CORRUPT),
    "a row far away": (lambda: book(sheet(HEAD, row(99_999_999_999, *ANN))), CORRUPT),
    "a column far away": (
        lambda: with_c('<c r="ZZZZZZZ2"><v>2</v></c>'),
        CORRUPT,
    ),
    "something before the archive": (lambda: b"MZ" + zipped(book(plain)), Refusal("Not a spread")),
}


def write(name: str, path: Path) -> Taken | Refusal:
    """Write one of them; what must be answered."""
    make, expected = CASES[name]
    made = make()
    path.write_bytes(made if isinstance(made, bytes) else zipped(made))
    return expected
