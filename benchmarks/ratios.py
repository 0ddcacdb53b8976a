"""Ratios of costs, each with its target, and their table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One ratio: of what, to what, its largest allowed value, its quartiles, both figures in their unit."""

    what: str
    name: str
    base: str
    ratio: float
    target: float | None
    figures: str
    spread: str = ""

    @property
    def verdict(self) -> str:
        """Whether the ratio meets its target."""
        return "" if self.target is None else ("ok" if self.ratio <= self.target else "MISSED")


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| measured | of | over | ratio | quartiles | target | | figures |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        target = "" if row.target is None else f"{row.target:.2f}"
        lines.append(
            f"| {row.what} | {row.name} | {row.base} | {row.ratio:.3f} | {row.spread} | {target} | {row.verdict} "
            f"| {row.figures} |"
        )
    return "\n".join(lines)
