"""Tables of plain text."""

import math
from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligns rows under a header.

    Columns of numbers stand to the right, those of words to the left. Floats are rounded to three significant digits;
    NaN and None show as a dash.

    Args:
        header: The name of each column.
        rows: A cell for each column.

    Returns:
        Lines without trailing spaces, the header first.

    Example:
        >>> print(text_table(["layer", "gain"], [["conv1", 0.51234], ["fc", float("nan")]]))
        layer   gain
        conv1  0.512
        fc         -
    """
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    lines = []
    for line in [list(header), *cells]:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
