"""The files of a run that grow line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from napari_medreasoner.core.errors import ExportError, ReadError
from napari_medreasoner.imaging.writers.atomic import write_text

__all__ = ["Evaluations", "History", "Score"]

_STEP: Final = "step"

Line = dict[str, Any]


class History:
    """JSON lines with a step each.

    Parameters
    ----------
    path : Path
        May not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[Line]:
        """All lines; a last one that was cut off does not count.

        Raises
        ------
        ReadError
            When the file is damaged otherwise.
        """
        if not self._path.is_file():
            return []
        text = self._path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ReadError(f"{self._path} is damaged; remove it.") from error

    def add(self, step: int, values: Line) -> None:
        """Append a line.

        Raises
        ------
        ExportError
            When it cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({_STEP: step, **values}) + "\n")
        except OSError as error:
            raise ExportError(f"{self._path} cannot be written ({error.strerror}).") from error

    def cut(self, step: int) -> None:
        """Drop what was written after a step, when a run goes on from there."""
        kept = [json.dumps(line) + "\n" for line in self.lines() if line[_STEP] <= step]
        if self._path.is_file():
            write_text(self._path, "".join(kept))


class Score(NamedTuple):
    """A metric and the step it was reached at."""

    step: int
    value: float


class Evaluations(History):
    """What the validation split said, one line an evaluation.

    Parameters
    ----------
    path : Path
        Of the file.
    metric : str
        What the best is chosen by.
    """

    def __init__(self, path: Path, metric: str) -> None:
        super().__init__(path)
        self._metric = metric

    def best(self) -> Score | None:
        """The best trained one, the earliest of equals; step 0 is not trained."""
        scores = [Score(line[_STEP], line[self._metric]) for line in self.lines() if line[_STEP]]
        return max(scores, key=lambda score: (score.value, -score.step), default=None)
