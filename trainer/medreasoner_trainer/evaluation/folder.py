"""The folder of a run: configuration, finished cases, problems; safe to kill and go on."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from medreasoner_trainer.data.record import Problem
from medreasoner_trainer.evaluation.case import Case
from medreasoner_trainer.evaluation.words import PromptMode
from napari_medreasoner.core.errors import ExportError, ReadError, SettingsError
from napari_medreasoner.imaging.writers.atomic import make_folder, write_text

__all__ = ["RunConfig", "RunFolder"]


class RunConfig(BaseModel):
    """What decides the outcome of a run; a run is only continued with the same.

    Attributes
    ----------
    version : str
        Of this package.
    crm, asm : str
        Engine names; `crm` may be `TRUE_PROMPTS`.
    data : str
        Absolute path of the data set.
    split : str
        Of the records.
    prompt : str
        "reasoning" or "direct".
    prompt_mode : PromptMode
        Which Dice the tables call Dice, and whose mask is kept.
    limit : int or None
        Records drawn at random; None takes all.
    seed : int
        Of that draw, of questions made from templates, and of the intervals.
    records : int
        How many are scored.
    records_sha256 : str
        Of those records.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    crm: str
    asm: str
    data: str
    split: str
    prompt: Literal["reasoning", "direct"]
    prompt_mode: PromptMode
    limit: int | None
    seed: int
    records: int
    records_sha256: str


class RunFolder:
    """Files of one run: `config.json`, `cases.jsonl`, `problems.jsonl` and what is made of them.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cases = path / "cases.jsonl"
        self._config = path / "config.json"
        self._problems = path / "problems.jsonl"

    def config(self) -> RunConfig:
        """Read the configuration.

        Raises
        ------
        ReadError
            When the folder holds no run.
        """
        try:
            return RunConfig.model_validate_json(self._config.read_bytes())
        except (OSError, ValidationError) as error:
            raise ReadError(
                f"{self.path} holds no evaluation (no usable config.json); give the folder that "
                "medreasoner-train eval wrote."
            ) from error

    def cases(self) -> list[Case]:
        """Read the finished cases, sorted by id; a torn last line is left out.

        Raises
        ------
        ReadError
            When a line is damaged, or an id occurs twice.
        """
        data = self._cases.read_bytes() if self._cases.exists() else b""
        cases: dict[str, Case] = {}
        for number, line in enumerate(data[: _whole(data)].splitlines(), start=1):
            try:
                case = Case.model_validate_json(line)
            except ValidationError as error:
                raise ReadError(
                    f"Line {number} of {self._cases} is damaged; delete that line and evaluate "
                    "again to make good for it."
                ) from error
            if case.id in cases:
                raise ReadError(f"Line {number} of {self._cases} repeats {case.id}; delete it.")
            cases[case.id] = case
        return [cases[id_] for id_ in sorted(cases)]

    def problems(self) -> list[Problem]:
        """Read what was left out; nothing where the run did not come to its end.

        Raises
        ------
        ReadError
            When the file is damaged.
        """
        try:
            lines = self._problems.read_bytes().splitlines() if self._problems.exists() else []
            return [Problem(**_Problem.model_validate_json(line).model_dump()) for line in lines]
        except (OSError, ValidationError) as error:
            raise ReadError(f"{self._problems} is damaged; delete it.") from error

    @contextmanager
    def opened(self, config: RunConfig) -> Iterator[CaseWriter]:
        """Begin the run, or go on with it; nobody else may write to it meanwhile.

        Raises
        ------
        SettingsError
            When the folder holds a run of another configuration, or another process has it.
        ExportError
            When it cannot be written.
        """
        make_folder(self.path)
        try:
            file = self._cases.open("a+b", buffering=0)
        except OSError as error:
            raise ExportError(
                f"{self._cases} cannot be written ({error.strerror}); choose another folder."
            ) from error
        with file:
            self._lock(file)
            self._agree(config)
            file.seek(0)
            file.truncate(_whole(file.read()))
            yield CaseWriter(file)

    def _lock(self, file: FileIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"Another process is evaluating into {self.path}; wait for it, or choose another "
                "folder."
            ) from error

    def _agree(self, config: RunConfig) -> None:
        if not self._config.exists():
            write_text(self._config, config.model_dump_json(indent=2) + "\n")
            return
        old, new = self.config().model_dump(), config.model_dump()
        for name, value in old.items():
            if new[name] != value:
                raise SettingsError(
                    f"{self.path} holds a run with {name} = {value!r}, not {new[name]!r}; choose "
                    "another folder, or delete this one."
                )

    def write_problems(self, problems: Iterable[Problem]) -> None:
        """Write what was left out, one line each, in place of what was written before."""
        lines = [_Problem(**problem._asdict()).model_dump_json() + "\n" for problem in problems]
        write_text(self._problems, "".join(lines))


class CaseWriter:
    """Appends cases; one that was written survives a kill of this process."""

    def __init__(self, file: FileIO) -> None:
        self._file = file

    def add(self, case: Case) -> None:
        """Append one line.

        Raises
        ------
        ExportError
            When the disk is full.
        """
        rest = memoryview(case.model_dump_json().encode() + b"\n")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise ExportError(
                f"A case could not be written ({error.strerror}); make room and run the same "
                "command again, it goes on from there."
            ) from error


class _Problem(BaseModel):
    """A line of `problems.jsonl`."""

    file: str
    line: int
    reason: str


def _whole(data: bytes) -> int:
    """Length of the whole lines: what follows the last end of line was torn off."""
    return data.rfind(b"\n") + 1
