"""Tables of plain text."""

from collections.abc import Sequence

from tabulate import tabulate


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligns rows under a header.

    Columns of numbers are right-aligned, those of words left-aligned. Floats are rounded to three significant digits;
    NaN and None are shown as a dash.

    Args:
        header: The name of each column.
        rows: One cell per column.

    Returns:
        Lines without trailing spaces, the header first.

    Examples:
        >>> print(text_table(["layer", "gain"], [["conv1", 0.51234], ["fc", float("nan")]]))
        layer   gain
        conv1  0.512
        fc         -
    """
    numbers = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    lines = [header, *([_cell(value) for value in row] for row in rows)]  # as headers, tabulate would pad them further
    align = ["right" if number else "left" for number in numbers]
    table = tabulate(lines, tablefmt="plain", disable_numparse=True, colalign=align)
    return "\n".join(map(str.rstrip, table.splitlines()))


def _cell(value: object) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
