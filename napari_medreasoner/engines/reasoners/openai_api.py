"""Vision-language models behind an OpenAI-compatible service: vLLM, GPT-4o, Gemini and others."""

from __future__ import annotations

import base64
import io
import ipaddress
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
from numpy.typing import NDArray
from PIL import Image

from napari_medreasoner.core.errors import (
    BusyError,
    EngineError,
    MissingEngineError,
    SettingsError,
    UnreachableError,
)
from napari_medreasoner.core.protocol import EngineInfo
from napari_medreasoner.engines.base import ReasonerInput
from napari_medreasoner.engines.models.card import ModelCard
from napari_medreasoner.engines.options import MANAGED, EngineOptions
from napari_medreasoner.engines.reasoners.coordinates import (
    DESCRIPTIONS,
    INSTRUCTIONS,
    Space,
    sides_in_patches,
    space_of,
)
from napari_medreasoner.engines.reasoners.patience import with_pauses
from napari_medreasoner.engines.reasoners.rewriting import AnswerRewriter
from napari_medreasoner.engines.reasoners.vllm_server import VllmServer

__all__ = ["ApiReasoner", "load"]

_SERVICES: Final[Mapping[str, tuple[str, str]]] = {
    "gpt-4o": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "gemini-2.5-flash": (
        "https://generativelanguage.googleapis.com/v1beta/openai/",
        "GEMINI_API_KEY",
    ),
}
"""Address, and environment variable of the key, of the services that the catalogue names."""

_ENDPOINT_KEY: Final = "MEDREASONER_ENDPOINT_KEY"
"""Environment variable of the key of a server that the user names: the key of a service is for
that service alone."""

_TIMEOUT: Final = openai.Timeout(120.0, connect=10.0)
"""Seconds of silence, before the first token too, after which a service counts as lost."""


def load(card: ModelCard, folder: Path, options: EngineOptions) -> ApiReasoner:
    """Reach a model by its card.

    Raises
    ------
    SettingsError
        When the key, or for a model that no service offers the endpoint, is missing, or the
        endpoint is no address that pictures may be sent to.
    MissingEngineError, UnreachableError, EngineError
        When the service does not know the model, or cannot be reached.
    """
    if options.endpoint == MANAGED:
        server = VllmServer(folder, options)
        return ApiReasoner(card, server.client(), str(folder), options.max_new_tokens, server)
    client = _client(card, options)
    try:
        model = card.repository if card.family == "openai" else _served(client, card, folder)
    except BaseException:
        client.close()
        raise
    return ApiReasoner(card, client, model, options.max_new_tokens)


def _client(card: ModelCard, options: EngineOptions) -> openai.OpenAI:
    address, variable = _SERVICES.get(card.name, ("", _ENDPOINT_KEY))
    if options.endpoint:
        address, variable = options.endpoint, _ENDPOINT_KEY
    url = _checked(address, card.name)
    here = _is_loopback(url.host)
    key = os.environ.get(variable) or ("none" if here else "")
    if not key:
        raise SettingsError(f"The service at {url.host} needs a key; set {variable}.")
    client = openai.OpenAI(
        base_url=url,
        api_key=key,
        # The user is told at once and asks again: a retry waits on the thread of all engines.
        max_retries=0,
        timeout=_TIMEOUT,
        # A redirect would take picture and key where nobody agreed to.
        http_client=openai.DefaultHttpxClient(
            timeout=_TIMEOUT, trust_env=not here, follow_redirects=False
        ),
    )
    if variable == _ENDPOINT_KEY:  # the environment's account at OpenAI is not for others
        client.organization = client.project = None
    return client


def _checked(address: str, model: str) -> httpx2.URL:
    """An address that pictures may be sent to: on this machine, or encrypted on the way."""
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(
            f'The model "{model}" is reached by an address; give --endpoint, as in '
            "http://127.0.0.1:8000/v1."
        )
    if url.scheme == "http" and not _is_loopback(url.host):
        raise SettingsError(
            f"Pictures would travel to {url.host} for all to read; use its https address, or a "
            "tunnel to it."
        )
    return url


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine; the near end of a tunnel looks so too."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _served(client: openai.OpenAI, card: ModelCard, folder: Path) -> str:
    """The name under which a server offers the model of a card."""
    known = [name for name in (card.name, card.repository, str(folder), folder.name) if name]
    with _faults(client, card.name):
        try:
            offered = [model.id for model in client.models.list()]
        except openai.InternalServerError:  # `transformers serve` without a hub cache
            offered = []
    for name in known:
        if name in offered:
            return name
    if len(offered) == 1:
        return offered[0]
    if folder.is_dir():  # a server on this machine may load it by its path
        return str(folder)
    raise MissingEngineError(
        f'The server at {client.base_url.host} does not offer "{card.name}" but '
        f"{', '.join(offered) or 'nothing'}; start it with that model, or choose one of these."
    )


class ApiReasoner:
    """A vision-language model that is asked over HTTP and streams its text.

    Parameters
    ----------
    card : ModelCard
        What is known of the model.
    client : openai.OpenAI
        Of its service.
    model : str
        Its name there.
    max_new_tokens : int
        Where an answer is cut off.
    server : VllmServer, optional
        The service, when it is our own: it is watched, and ends with this object.
    """

    def __init__(
        self,
        card: ModelCard,
        client: openai.OpenAI,
        model: str,
        max_new_tokens: int,
        server: VllmServer | None = None,
    ) -> None:
        self._card = card
        self._client = client
        self._model = model
        self._max_new_tokens = max_new_tokens
        self._server = server
        host = client.base_url.host
        self.info = EngineInfo(
            name=card.name,
            title=card.title,
            description=card.description,
            licence=card.licence,
            coordinates=DESCRIPTIONS[card.coordinates],
            input_window="as displayed",
            leaves_machine=not _is_loopback(host),
            weights=f"{model} at {host}",
            device=host,
        )

    def frame(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture as this model counts them, for prompts."""
        across, down = self._space(width, height).size
        return (width, height) if min(across, down) <= 1 else (round(across), round(down))

    def stream(self, request: ReasonerInput) -> Generator[str]:
        """Yield the text piece by piece; see `Reasoner.stream`.

        Closing it closes the connection at the next piece, by which services learn to stop. Empty
        pieces come while the service is silent or the answer is held back.

        Raises
        ------
        SettingsError, MissingEngineError, BusyError, UnreachableError, EngineError
            When the service refuses, does not know the model, is busy, goes away in the middle
            of the answer, or fails.
        """
        height, width = request.image.shape[:2]
        rewriter = AnswerRewriter(self._space(width, height), self._card.answers)
        with closing(with_pauses(self._pieces(request))) as pieces:
            for piece in pieces:
                yield rewriter.feed(piece)
                if rewriter.finished:
                    return
        if shown := rewriter.finish():
            yield shown

    def _pieces(self, request: ReasonerInput) -> Generator[str]:
        if self._server is not None:
            self._server.require_alive()
        ended = False
        text = _WithThinking()
        with _faults(self._client, self._card.name):
            chunks = self._client.chat.completions.create(
                model=self._model,
                messages=self._messages(request),
                stream=True,
                temperature=0.0,
                max_tokens=self._max_new_tokens,
            )
            with chunks:
                for chunk in chunks:
                    for choice in chunk.choices[:1]:
                        ended = ended or choice.finish_reason is not None
                        self._require_unfiltered(choice.finish_reason)
                        if piece := text.of(choice.delta):
                            yield piece
        if not ended:
            raise UnreachableError(
                f"The service at {self._client.base_url.host} broke off in the middle of its "
                "answer; ask again."
            )

    def _require_unfiltered(self, reason: str | None) -> None:
        if reason == "content_filter":
            raise EngineError(
                f"A content filter of the service at {self._client.base_url.host} stopped the "
                "answer; ask in other words, or another model."
            )

    def _messages(self, request: ReasonerInput) -> Any:
        texts = [message.content for message in request.messages]
        if instruction := INSTRUCTIONS.get(self._card.coordinates, ""):
            texts[-1] = f"{texts[-1]}\n{instruction}"
        messages: list[dict[str, Any]] = []
        for message, text in zip(request.messages, texts, strict=True):
            content: list[dict[str, Any]] = [{"type": "text", "text": text}]
            if message.role == "user":
                height, width = request.image.shape[:2]
                size = self._sent_size(width, height)
                picture = {"url": _data_uri(request.image, size)}
                content.insert(0, {"type": "image_url", "image_url": picture})
            messages.append({"role": message.role, "content": content})
        return messages

    def _sent_size(self, width: int, height: int) -> tuple[int, int]:
        """A picture is sent at the size that the model would make of it, and so stays as it is."""
        if self._card.coordinates == "resized pixels":
            return sides_in_patches(width, height)
        return width, height

    def _space(self, width: int, height: int) -> Space:
        return space_of(self._card.coordinates, (width, height), self._sent_size(width, height))


class _WithThinking:
    """Puts the tags back that services take away when they send the reasoning apart."""

    def __init__(self) -> None:
        self._inside = False

    def of(self, delta: Any) -> str:
        """The text of one piece of a stream."""
        # vLLM's reasoning parsers, and `transformers serve`; newer ones say "reasoning".
        thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        text = ""
        if thought:
            text += thought if self._inside else f"<think>{thought}"
            self._inside = True
        if delta.content:
            text += f"</think>{delta.content}" if self._inside else delta.content
            self._inside = False
        return text


def _data_uri(image: NDArray[Any], size: tuple[int, int]) -> str:
    picture = Image.fromarray(image)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


@contextmanager
def _faults(client: openai.OpenAI, model: str) -> Iterator[None]:
    """Errors of the service as ours; its own words are left out, as they may repeat the prompt."""
    host = client.base_url.host
    try:
        yield
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise SettingsError(f"The service at {host} refused the key; check it.") from error
    except openai.NotFoundError as error:
        raise MissingEngineError(
            f'The service at {host} does not know the model "{model}" or is no OpenAI-compatible '
            "one; check name and address."
        ) from error
    except openai.RateLimitError as error:
        raise BusyError(f"The service at {host} takes no more questions now; wait.") from error
    except openai.APIStatusError as error:
        raise EngineError(
            f"The service at {host} failed (HTTP {error.status_code}); its own log says why."
        ) from error
    except (openai.APIConnectionError, httpx2.TransportError) as error:
        late = isinstance(error, openai.APITimeoutError | httpx2.TimeoutException)
        raise UnreachableError(
            f"The service at {host} {'is silent' if late else 'cannot be reached'}; see whether "
            "it runs, and ask again."
        ) from error
    except (openai.APIError, ValueError) as error:
        raise EngineError(
            f"The service at {host} sent what is no answer ({type(error).__name__}); check the "
            "address."
        ) from error
