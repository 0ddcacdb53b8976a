"""The pages of the studies: tables between two marks of a Markdown file, plots beside it."""

import pathlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from training.reproduce import summary
from training.reproduce.runs import records_of
from training.reproduce.studies import STUDIES
from training.reproduce.study import Study
from training.reproduce.trial import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEGIN, _END = "<!-- {}: written by `reproduce report` -->\n", "<!-- end of {} -->"


def write_pages(workdir: pathlib.Path, pages: pathlib.Path) -> list[pathlib.Path]:
    """Writes the tables and plots of every study that has records.

    Args:
        workdir: Holds the records, `*.jsonl`.
        pages: Holds `<study>.md`, whose text between the tables' marks is replaced; a page that is missing is made, of
            tables and plots alone.

    Returns:
        The pages.
    """
    found = {name: records_of(study, workdir) for name, study in STUDIES.items()}
    written = [_write(name, STUDIES[name], records, pages) for name, records in found.items() if records]
    if all(map(found.get, summary.STUDIES)):
        for name, style in summary.STYLES.items():
            with _look(name, **style):
                _save(summary.draw(found, name), pages / f"{name}.svg")
    return written


def _look(name: str, **style: str) -> AbstractContextManager[None]:
    """The look of a study's plots: files differ only where the plots do, and text stays text."""
    import matplotlib as mpl

    fixed = {"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}
    return mpl.rc_context({**fixed, "grid.color": "#DDDDDD", **style})


def _save(figure: "Figure", path: pathlib.Path) -> None:
    figure.savefig(path, metadata={"Date": None})


def _write(name: str, study: Study, records: list[Record], pages: pathlib.Path) -> pathlib.Path:
    page = pages / f"{name}.md"
    tables = study.tables(records)
    with _look(name):
        plots = study.plots(records)
        for plot, figure in plots.items():
            _save(figure, pages / f"{plot}.svg")
    text = page.read_text() if page.exists() else _bare(study.claim, [*plots], [*tables])
    for place, table in tables.items():
        before, _, rest = text.partition(_BEGIN.format(place))
        text = before + _BEGIN.format(place) + table + _END.format(place) + rest.partition(_END.format(place))[2]
    page.write_text(text)
    return page


def _bare(claim: str, plots: list[str], tables: list[str]) -> str:
    images = "".join(f"![{plot}]({plot}.svg)\n\n" for plot in plots)
    return f"# {claim}\n\n{images}" + "\n\n".join(_BEGIN.format(each) + _END.format(each) for each in tables) + "\n"
