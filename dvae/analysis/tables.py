"""Tables of results in GitHub Markdown."""

import math
import numbers
import re
from collections.abc import Iterable, Sequence

__all__ = ["format_value", "markdown"]

# A number, perhaps with thousands separators, an error or a percent sign: "4.61 ± 0.02", "12%".
_NUMBER = re.compile(r"[-+]?(\d[\d,]*\.?\d*(e[-+]?\d+)?|nan|inf)( ± \S+)?%?", re.IGNORECASE)
# Cells that stand for a missing number.
_BLANKS = ("", "-", "—")


def format_value(value: float, std: float | None = None) -> str:
    """Formats a number to four digits or more, or as precisely as its error allows.

    Integers stay exact, and so does the integral part of other numbers. With an error, both are
    rounded to the second significant digit of the error: 4.6134 and 0.0212 give "4.613 ± 0.021".

    Args:
        value: the number.
        std: its standard deviation or standard error, not negative; None for none.

    Returns:
        The text; without an error, in scientific notation below 1e-4 and from 1e7.

    Raises:
        ValueError: if `std` is negative.
    """
    if std is None:
        if isinstance(value, numbers.Integral):
            return str(value)
        if value != 0 and math.isfinite(value) and not 1e-4 <= abs(value) < 1e7:
            return f"{value:.3e}"
        return f"{value:.{_decimals(value, 4)}f}"
    if std < 0:
        raise ValueError(f"std must not be negative, got {std}")
    if std == 0 or not math.isfinite(std):
        return f"{format_value(value)} ± {std:.0f}"
    decimals = _decimals(std, 2)
    return f"{value:.{decimals}f} ± {std:.{decimals}f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lays out an aligned GitHub Markdown table.

    Columns that hold only numbers (or text from `format_value`, or blanks) are flush right.

    Args:
        header: one title a column.
        rows: one sequence of cells a row; floats go through `format_value`, all else through `str`.

    Returns:
        The table, with a newline after each line.

    Raises:
        ValueError: if a row has another number of cells than the header.
    """
    body = [[_cell(cell) for cell in row] for row in rows]
    for row in body:
        if len(row) != len(header):
            raise ValueError(
                f"each row must have {len(header)} cells, as the header {tuple(header)}, got {row}"
            )
    titles = [_cell(title) for title in header]
    columns = [list(column) for column in zip(titles, *body, strict=True)]
    widths = [max(3, *map(len, column)) for column in columns]
    flush_right = [_is_numeric(column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, flush_right, strict=True)
        ]
        return f"| {' | '.join(aligned)} |\n"

    rule = [
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, flush_right, strict=True)
    ]
    return "".join(line(cells) for cells in (titles, rule, *body))


def _cell(value: object) -> str:
    """Formats one cell; a bar or a newline in it would break the table."""
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return format_value(float(value))
    return str(value).replace("|", r"\|").replace("\n", " ")


def _is_numeric(cells: Sequence[str]) -> bool:
    """Tells whether a column holds numbers and blanks only, and at least one number."""
    filled = [cell for cell in cells if cell not in _BLANKS]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)


def _decimals(value: float, digits: int) -> int:
    """Counts the decimals that show `digits` significant digits."""
    if value == 0 or not math.isfinite(value):
        return digits - 1
    # Through the rounded number: 0.0996 to two digits is 0.10, with two decimals.
    exponent = int(f"{abs(value):.{digits - 1}e}".split("e")[1])
    return max(0, digits - 1 - exponent)
