"""What a loader collects: records, where each of them is, and what had to be left out."""

from __future__ import annotations

from medreasoner_trainer.data.loaded import Key, Loaded, Origin, Pictures
from medreasoner_trainer.data.problems import Problems
from medreasoner_trainer.data.record import Record
from napari_medreasoner.core.errors import ReadError

__all__ = ["Gathering"]


class Gathering:
    """Records in the order in which a loader comes upon them.

    Parameters
    ----------
    strict : bool
        Raise at the first bad record instead of leaving it out.
    """

    def __init__(self, *, strict: bool) -> None:
        self._records: list[Record] = []
        self._origins: dict[Key, Origin] = {}
        self._known: dict[tuple[str, str], Origin] = {}
        self._problems = Problems(strict=strict)

    def add(self, file: str, line: int, record: Record) -> None:
        """Take a record.

        Raises
        ------
        ReadError
            When another record of its split has its id.
        """
        known = self._known.setdefault((record.split, record.id), (file, line))
        if known != (file, line):
            raise ReadError(f"its id {record.id} is that of {known[0]}, line {known[1]}, too")
        self._origins.setdefault((record.id, record.mask), (file, line))
        self._records.append(record)

    def leave_out(self, file: str, line: int, error: Exception) -> None:
        """Note a bad record, or when strict raise `ReadError`."""
        self._problems.add(file, line, error)

    def loaded(self, pictures: Pictures) -> Loaded:
        """The data set."""
        return Loaded(tuple(self._records), self._problems.found, pictures, self._origins)
