"""Every error a user of this project can meet, in one tree.

::

    MedReasonerError              exit 1, HTTP 500
    ├── InputError                exit 2, HTTP 422   the caller gave something unusable
    │   ├── ReadError                                a file that cannot be read
    │   ├── ImageError                               an image no engine can work on
    │   ├── PromptError                              a box or point that cannot be used
    │   ├── QuestionError                            an empty or oversized question
    │   ├── TemplateError                            a prompt template file that is wrong
    │   ├── SettingsError                            a wrong option, token file or port
    │   ├── WeightsError                             a model's files are missing or damaged
    │   └── ConsentError          HTTP 403           pictures would leave the machine unasked
    ├── AnswerError               exit 1             the model's text holds no usable answer
    ├── EngineError               exit 1             a reasoner or segmenter failed
    │   ├── MissingEngineError    exit 2, HTTP 422   unknown name, or its extra is not installed
    │   └── MemoryShortageError   HTTP 503           the GPU or machine has too little memory
    ├── ExportError               exit 1             a result could not be written
    └── BackendError              exit 1             the backend process or its wire
        ├── UnreachableError                         it does not answer, or died while answering
        ├── UnauthorizedError     HTTP 401           wrong or missing token
        ├── ForbiddenError        HTTP 403           foreign Host or Origin
        ├── UnknownImageError     HTTP 404           the image was never uploaded, or was evicted
        ├── TooLargeError         HTTP 413           the request is larger than the server takes
        ├── BusyError             HTTP 429           too many requests are waiting
        ├── SupersededError       HTTP 409           the same client has asked for something newer
        ├── ShuttingDownError     HTTP 503           the server is ending
        └── ProtocolError         HTTP 400           client and server do not speak the same version

The text of each is one sentence for the user: what happened, where, what to do.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AnswerError",
    "BackendError",
    "BusyError",
    "ConsentError",
    "EngineError",
    "ExportError",
    "ForbiddenError",
    "ImageError",
    "InputError",
    "MedReasonerError",
    "MemoryShortageError",
    "MissingEngineError",
    "PromptError",
    "ProtocolError",
    "QuestionError",
    "ReadError",
    "SettingsError",
    "ShuttingDownError",
    "SupersededError",
    "TemplateError",
    "TooLargeError",
    "UnauthorizedError",
    "UnknownImageError",
    "UnreachableError",
    "WeightsError",
    "error_from_code",
]


class MedReasonerError(Exception):
    """Root of the tree.

    Attributes
    ----------
    code : str
        Stable name of the error on the wire.
    exit_code : int
        Process exit code of the command line: 2 bad usage or input, 1 failure.
    http_status : int
        Status of the reply in which a server reports it.
    """

    code: ClassVar[str] = "failure"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500


class InputError(MedReasonerError):
    """The caller gave something that cannot be used."""

    code = "bad_input"
    exit_code = 2
    http_status = 422


class ReadError(InputError):
    """A file is missing, damaged, or of a kind that cannot be read."""

    code = "unreadable"


class ImageError(InputError):
    """An image has a shape, type or content that no engine can work on."""

    code = "bad_image"


class PromptError(InputError):
    """A box or point lies outside the image, or no prompt was given at all."""

    code = "bad_prompt"


class QuestionError(InputError):
    """The question is empty or too long."""

    code = "bad_question"


class TemplateError(InputError):
    """A prompt template file is malformed."""

    code = "bad_template"


class SettingsError(InputError):
    """An option, an environment variable, a token file or a port is wrong."""

    code = "bad_settings"


class WeightsError(InputError):
    """A model's files are missing, damaged, of another kind, or not safe to load."""

    code = "bad_weights"


class ConsentError(InputError):
    """An engine would send pictures to another machine, and the user has not agreed."""

    code = "no_consent"
    http_status = 403


class AnswerError(MedReasonerError):
    """The model's text holds no usable answer.

    Parameters
    ----------
    message : str
        One sentence for the user.
    fault : str
        A member of `napari_medreasoner.core.grounding.AnswerFault`.
    """

    code = "no_answer"
    http_status = 502

    def __init__(self, message: str, fault: str = "no_answer") -> None:
        super().__init__(message)
        self.fault = fault


class EngineError(MedReasonerError):
    """A reasoner or segmenter failed while working."""

    code = "engine_failed"


class MissingEngineError(EngineError):
    """No engine has this name, or the extra it needs is not installed."""

    code = "missing_engine"
    exit_code = 2
    http_status = 422


class MemoryShortageError(EngineError):
    """An engine ran out of memory, and again after everything it could free was freed."""

    code = "out_of_memory"
    http_status = 503


class ExportError(MedReasonerError):
    """A result could not be written; whatever was there before is untouched."""

    code = "export_failed"


class BackendError(MedReasonerError):
    """The backend process, or the wire to it, failed."""

    code = "backend"
    http_status = 503


class UnreachableError(BackendError):
    """The backend does not answer, or went away in the middle of an answer."""

    code = "unreachable"


class UnauthorizedError(BackendError):
    """The token is missing or wrong."""

    code = "unauthorized"
    http_status = 401


class ForbiddenError(BackendError):
    """The request came with a foreign Host or Origin header."""

    code = "forbidden"
    http_status = 403


class UnknownImageError(BackendError):
    """The server holds no image with this content hash."""

    code = "unknown_image"
    http_status = 404


class TooLargeError(BackendError):
    """The request body is larger than the server accepts."""

    code = "too_large"
    http_status = 413


class BusyError(BackendError):
    """The server has as many requests waiting as it takes."""

    code = "busy"
    http_status = 429


class SupersededError(BackendError):
    """The same client has asked for something newer of the same kind."""

    code = "superseded"
    http_status = 409


class ShuttingDownError(BackendError):
    """The server is ending, and what was under way ends with it."""

    code = "shutting_down"


class ProtocolError(BackendError):
    """Client and server do not understand each other."""

    code = "protocol"
    http_status = 400


def _subclasses(root: type[MedReasonerError]) -> list[type[MedReasonerError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _subclasses(child))]


def error_from_code(code: str, message: str) -> MedReasonerError:
    """Rebuild an error that travelled over the wire.

    Parameters
    ----------
    code : str
        The `code` of the error class; an unknown one gives a plain `MedReasonerError`.
    message : str
        The sentence for the user.

    Returns
    -------
    MedReasonerError
        Not raised, so that the caller can chain it.
    """
    by_code = {error.code: error for error in _subclasses(MedReasonerError)}
    return by_code.get(code, MedReasonerError)(message)
