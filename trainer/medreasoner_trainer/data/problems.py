"""Bad records: noted and left out, or an error at the first one."""

from __future__ import annotations

from pydantic import ValidationError

from medreasoner_trainer.data.record import Problem
from napari_medreasoner.core.errors import ReadError

__all__ = ["Problems", "reason_of"]


class Problems:
    """The records a loader leaves out.

    Parameters
    ----------
    strict : bool
        Raise at the first problem instead of noting it.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._found: list[Problem] = []

    def add(self, file: str, line: int, error: Exception) -> None:
        """Note why a record is left out.

        Raises
        ------
        ReadError
            When strict.
        """
        problem = Problem(file, line, reason_of(error))
        if self._strict:
            raise ReadError(
                f"Record {line} of {file} cannot be used ({problem.reason}); repair it."
            ) from error
        self._found.append(problem)

    @property
    def found(self) -> tuple[Problem, ...]:
        """All so far."""
        return tuple(self._found)


def reason_of(error: Exception) -> str:
    """Say in a few words what an error says; of several wrong fields, the first."""
    if not isinstance(error, ValidationError):
        return str(error).rstrip(".")
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
