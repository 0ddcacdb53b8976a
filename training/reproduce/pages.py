"""The pages of the studies: tables between two marks of a Markdown file, plots beside it."""

import pathlib

from training.reproduce import summary
from training.reproduce.figures import save
from training.reproduce.runs import records_of
from training.reproduce.studies import STUDIES
from training.reproduce.study import Study
from training.reproduce.trial import Record

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
        save(summary.draw(found), pages / "summary.svg")
    return written


def _write(name: str, study: Study, records: list[Record], pages: pathlib.Path) -> pathlib.Path:
    page = pages / f"{name}.md"
    tables = study.tables(records)
    plots = study.plots(records)
    for plot, figure in plots.items():
        save(figure, pages / f"{plot}.svg")
    text = page.read_text() if page.exists() else _bare(study.claim, [*plots], [*tables])
    for place, table in tables.items():
        before, _, rest = text.partition(_BEGIN.format(place))
        text = before + _BEGIN.format(place) + table + _END.format(place) + rest.partition(_END.format(place))[2]
    page.write_text(text)
    return page


def _bare(claim: str, plots: list[str], tables: list[str]) -> str:
    images = "".join(f"![{plot}]({plot}.svg)\n\n" for plot in plots)
    return f"# {claim}\n\n{images}" + "\n\n".join(_BEGIN.format(each) + _END.format(each) for each in tables) + "\n"
