"""One page that shows how a run went; it opens from disk and asks the network for nothing."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from medreasoner_trainer.data import DataSet, Record, open_data
from medreasoner_trainer.evaluation.case import Case
from medreasoner_trainer.evaluation.folder import RunConfig, RunFolder
from medreasoner_trainer.evaluation.overlay import PREDICTED, TRUE, draw_case
from medreasoner_trainer.evaluation.run import choose, fingerprint
from medreasoner_trainer.evaluation.statistics import summary_of
from medreasoner_trainer.evaluation.tables import TITLES, given, interval, name_of
from medreasoner_trainer.evaluation.words import TRUE_PROMPTS, PromptMode
from napari_medreasoner.core.errors import ReadError
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["write_report"]

_FAILURES: Final = 24
"""Failures that are shown with their picture; all are counted."""


@dataclass(frozen=True)
class _Card:
    """One case with its picture, as the template shows it."""

    case: Case
    record: Record
    picture: str
    """A data URI."""


class _Pictures:
    """The data set of a run, opened again.

    Raises
    ------
    ReadError
        When it is not there, or not the one that was evaluated.
    """

    def __init__(self, config: RunConfig, moved_to: Path | None) -> None:
        path = moved_to or Path(config.data)
        self._data: DataSet = open_data(path, config.split)
        records = choose(self._data.records, config.limit, config.seed)
        if fingerprint(records) != config.records_sha256:
            raise ReadError(
                f"{path} is not the data set that was evaluated, or was changed since; name "
                "where it is with --data, or evaluate again."
            )
        self._records = {record.id: record for record in records}

    def cards(self, cases: Sequence[Case]) -> list[_Card]:
        """Draw some cases."""
        return [self._card(case) for case in cases]

    def _card(self, case: Case) -> _Card:
        record = self._records[case.id]
        drawn = draw_case(self._data.image(record), self._data.mask(record), record, case)
        return _Card(case, record, f"data:image/jpeg;base64,{base64.b64encode(drawn).decode()}")


def _extremes(
    cases: Sequence[Case], mode: PromptMode, picks: int
) -> dict[str, tuple[list[Case], list[Case]]]:
    """The best and the worst of those with an answer, by super-category; none is in both."""
    found: defaultdict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.parsed:
            found[case.supercategory or "no super-category"].append(case)
    result: dict[str, tuple[list[Case], list[Case]]] = {}
    for name in sorted(found):
        ranked = sorted(found[name], key=lambda case: (-case.dice(mode), -case.iou))
        result[name] = (ranked[:picks], ranked[picks:][::-1][:picks])
    return result


def _to_show(failures: Sequence[Case]) -> list[Case]:
    """What broke first, then refusals taken evenly from all of them."""
    broken = [case for case in failures if not case.refused][:_FAILURES]
    refused = [case for case in failures if case.refused]
    room = _FAILURES - len(broken)
    return broken + (refused[:: -(-len(refused) // room) or 1] if room else [])


def write_report(folder: RunFolder, data: Path | None = None, picks: int = 3) -> Path:
    """Write `report.html` into a run's folder.

    Parameters
    ----------
    folder : RunFolder
        The run; it need not be finished.
    data : Path or None
        Where the data set is, if not where it was.
    picks : int
        Best and worst cases of each super-category.

    Returns
    -------
    Path
        The page. Images are embedded, so the licences of the data set apply to it.

    Raises
    ------
    ReadError
        When the folder holds no run, or the data set is not the one evaluated.
    InputError
        When the run has no case.
    """
    summary, cases = summary_of(folder), folder.cases()
    config = summary.configuration
    pictures = _Pictures(config, data)
    failures = [case for case in cases if case.fault]
    extremes = {
        name: (pictures.cards(best), pictures.cards(worst))
        for name, (best, worst) in _extremes(cases, config.prompt_mode, picks).items()
    }
    environment = Environment(
        loader=PackageLoader("medreasoner_trainer.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        name=name_of(config),
        summary=summary,
        modalities={"all": summary.overall, **summary.modality},
        titles=TITLES,
        given={measure: given(summary, measure) for measure in TITLES},
        true_prompts=config.crm == TRUE_PROMPTS,
        interval=interval,
        extremes=extremes,
        faults=Counter(case.fault for case in failures).most_common(),
        failures=pictures.cards(_to_show(failures)),
        problems=folder.problems(),
        true_colour=f"rgb{TRUE}",
        predicted_colour=f"rgb{PREDICTED}",
    )
    path = folder.path / "report.html"
    write_text(path, page)
    return path
