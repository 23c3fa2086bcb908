"""Bad records: noted and left out, or an error at the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from medreasoner_trainer.data.record import Problem
from napari_medreasoner.core.errors import ImageError, ReadError

__all__ = ["Problems", "error_of", "reason_of"]


class Problems:
    """The records that are left out.

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
            raise error_of(problem) from error
        self._found.append(problem)

    @contextmanager
    def noted(self, file: str, line: int) -> Iterator[None]:
        """Leave out the record whose pixels cannot be read in this block; errors as `add`."""
        try:
            yield
        except (ReadError, ImageError) as error:
            self.add(file, line, error)

    @property
    def found(self) -> tuple[Problem, ...]:
        """All so far."""
        return tuple(self._found)


def error_of(problem: Problem) -> ReadError:
    """The error that a problem is where no record may be left out."""
    what = f"Record {problem.line} of {problem.file}" if problem.line else problem.file
    return ReadError(f"{what} cannot be used ({problem.reason}); repair it.")


def reason_of(error: Exception) -> str:
    """Say in a few words what an error says; of several wrong fields, the first."""
    if not isinstance(error, ValidationError):
        return str(error).rstrip(".")
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
