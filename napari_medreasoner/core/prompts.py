"""Prompt templates: what a reasoner is told around the user's question.

A template is a TOML file with the keys `name`, `user` and, optionally, `system`. In the
texts `$question`, `$width` and `$height` (pixels) are filled in; `$$` is a dollar sign. The
built-in ones lie in `templates/` and are read the same way as a user's file.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_medreasoner.core.errors import QuestionError, TemplateError

__all__ = ["BUILT_IN", "MAX_QUESTION", "Message", "PromptTemplate", "check_question"]

MAX_QUESTION: Final = 4000
"""Longest question, in characters: far beyond any real one, well within any context."""

_MAX_TEXT: Final = 20_000
_FIELDS: Final = {"question", "width", "height"}


class Message(BaseModel):
    """One chat message; the image goes before the text of the user's message."""

    model_config = ConfigDict(frozen=True)

    role: Literal["system", "user"]
    content: str


def check_question(question: str) -> str:
    """Return the question stripped.

    Raises
    ------
    QuestionError
        When nothing is left of it, or it is longer than `MAX_QUESTION`.
    """
    stripped = question.strip()
    if not stripped:
        raise QuestionError("The question is empty; type what you want to know about the image.")
    if len(stripped) > MAX_QUESTION:
        raise QuestionError(
            f"The question has {len(stripped)} characters; shorten it to {MAX_QUESTION}."
        )
    return stripped


class PromptTemplate(BaseModel):
    """A named pair of texts with placeholders.

    Attributes
    ----------
    name : str
        As shown to the user.
    user : str
        The user's message; must contain `$question`.
    system : str
        The system message; empty leaves it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    user: Annotated[str, Field(max_length=_MAX_TEXT)]
    system: Annotated[str, Field(max_length=_MAX_TEXT)] = ""

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        for text in (self.user, self.system):
            template = Template(text)
            if not template.is_valid():
                raise ValueError('a lone "$" must be written "$$"')
            if unknown := set(template.get_identifiers()) - _FIELDS:
                raise ValueError(f"unknown placeholder ${min(unknown)}")
        if "question" not in Template(self.user).get_identifiers():
            raise ValueError('"user" must contain $question')
        return self

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a template file.

        Raises
        ------
        TemplateError
            When the file is missing, not TOML, or not a template.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"The template {path} cannot be read; check the path.") from error
        except tomllib.TOMLDecodeError as error:
            raise TemplateError(f"The template {path} is not valid TOML: {error}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "file"
            raise TemplateError(
                f"The template {path} is wrong at {place}: {first['msg']}."
            ) from None

    def render(self, question: str, width: int, height: int) -> list[Message]:
        """Fill in the question and the image's size in pixels.

        The question is put in once and never expanded itself, so a `$` in it is harmless.

        Raises
        ------
        QuestionError
            See `check_question`.
        """
        fields = {"question": check_question(question), "width": width, "height": height}
        messages = [Message(role="user", content=Template(self.user).substitute(fields).strip())]
        if self.system.strip():
            system = Template(self.system).substitute(fields).strip()
            messages.insert(0, Message(role="system", content=system))
        return messages


def _built_in() -> dict[str, PromptTemplate]:
    folder = Path(str(files("napari_medreasoner.core") / "templates"))
    templates = (PromptTemplate.from_file(folder / f"{n}.toml") for n in ("reasoning", "direct"))
    return {template.name: template for template in templates}


BUILT_IN: Final = _built_in()
"""The templates that ship, by name; the first is the default."""
