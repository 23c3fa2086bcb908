"""The client against an application over fakes, and against servers that misbehave."""

import asyncio
import hashlib
from contextlib import aclosing

import httpx
import numpy as np
import pytest
import zstandard
from httpx_sse import SSEError

from napari_medreasoner.client.client import Client
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.client.wire import wire_errors
from napari_medreasoner.core.errors import (
    EngineError,
    MedReasonerError,
    PromptError,
    ProtocolError,
    QuestionError,
    SettingsError,
    TooLargeError,
    UnauthorizedError,
    UnknownImageError,
    UnreachableError,
)
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.protocol import (
    ASK,
    IMAGES,
    SEGMENT,
    DoneEvent,
    MaskEvent,
    PropagatedEvent,
    SliceEvent,
    StatusEvent,
    ThinkEvent,
)
from napari_medreasoner.server.app import create_app
from napari_medreasoner.server.settings import Settings
from tests.fakes import BOX, FakeReasoner, FakeVolumeSegmenter

pytestmark = pytest.mark.anyio

TOKEN = "canary-token-0123456789"
URL = "http://127.0.0.1"
PROMPTS = Prompts(box=BOX)


class Backend(httpx.AsyncBaseTransport):
    """An application over fakes as a transport; counts requests."""

    def __init__(self, **settings) -> None:
        self.app = create_app(
            Settings(token=TOKEN, **settings), FakeReasoner(), FakeVolumeSegmenter()
        )
        self.seen = []
        self._transport = httpx.ASGITransport(self.app)

    async def handle_async_request(self, request):
        self.seen.append((request.method, request.url.path.split("/")[2]))
        return await self._transport.handle_async_request(request)

    def client(self, token=TOKEN) -> Client:
        return Client(URL, token, transport=self)


@pytest.fixture
def backend():
    return Backend()


def answering(*replies) -> Client:
    """Client of a server that gives these replies, whatever is asked."""
    left = list(replies)
    return Client(URL, TOKEN, transport=httpx.MockTransport(lambda _: left.pop(0)))


def stream(*events, tail="") -> httpx.Response:
    text = "".join(f"event: {e.type}\ndata: {e.model_dump_json()}\n\n" for e in events)
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, text=text + tail, headers=headers)


def done(trace: str) -> DoneEvent:
    sha256 = hashlib.sha256(trace.encode()).hexdigest()
    return DoneEvent(trace_sha256=sha256, reason_ms=1, segment_ms=1, first_token_ms=1)


async def collect(client, picture, question="where?"):
    """Events, and the error that ended them."""
    events = []
    try:
        async for event in client.ask(picture, question):
            events.append(event)
    except MedReasonerError as error:
        return events, error
    return events, None


async def test_health_and_capabilities(backend):
    async with backend.client() as client:
        assert (await client.health()).status == "ok"
        assert (await client.capabilities()).asm.name == "fake-asm"


async def test_asking_uploads_the_image_once(backend, picture):
    async with backend.client() as client:
        for _ in range(2):
            events, error = await collect(client, picture)
            assert error is None
            assert isinstance(events[-1], DoneEvent)
            assert events[-2].mask.unpack().shape == (20, 30)

    assert backend.seen == [
        ("POST", "ask"),
        ("PUT", "images"),
        ("POST", "ask"),
        ("POST", "ask"),
        ("DELETE", "lease"),
    ]


async def test_segmenting_uploads_the_image_once(backend):
    volume = Picture(UploadImage(np.zeros((4, 20, 30), np.int16)), SlicePlane(index=1))
    async with backend.client() as client:
        result = await client.segment(volume, PROMPTS)
        grown = [event async for event in client.propagate(volume, PROMPTS)]

    assert result.mask.shape == (20, 30)
    assert result.score == 0.75
    assert int(result.mask.sum()) == BOX.area
    assert isinstance(grown[-1], PropagatedEvent)
    (found,) = (event for event in grown if isinstance(event, SliceEvent))
    assert (found.index, int(found.mask.unpack().sum())) == (1, BOX.area)
    assert backend.seen[:3] == [("POST", "segment"), ("PUT", "images"), ("POST", "segment")]
    assert backend.seen[3:] == [("POST", "propagate"), ("DELETE", "lease")]


async def test_a_lease_ends_with_the_client_and_its_images_with_it(backend, picture):
    async with backend.client() as client, backend.client() as other:
        await client.segment(picture, PROMPTS)
        await other.segment(picture, PROMPTS)
        await client.renew_lease()
        await client.end_lease()
        assert picture.image.sha256 in backend.app.state.backend.images
        await other.end_lease()
        assert picture.image.sha256 not in backend.app.state.backend.images
        assert (await client.segment(picture, PROMPTS)).score == 0.75


async def test_images_travel_compressed_to_another_machine(picture):
    volume = np.random.default_rng(0).integers(0, 9, (9, 300, 700), np.uint16)
    seen = []

    async def keep(request):
        seen.append((dict(request.headers), await request.aread()))
        return httpx.Response(204)

    client = Client("http://gpu.example:1", TOKEN, transport=httpx.MockTransport(keep))
    await client._upload(UploadImage(volume))
    headers, body = seen[0]
    assert headers["content-encoding"] == "zstd"
    assert len(body) < volume.nbytes / 2
    assert zstandard.ZstdDecompressor().decompressobj().decompress(body) == volume.tobytes()


async def test_a_large_image_arrives_whole(backend):
    volume = np.random.default_rng(0).integers(0, 2**16, (9, 300, 700), np.uint16)
    picture = Picture(UploadImage(volume), SlicePlane(axis=1, index=7))
    async with backend.client() as client:
        await client.segment(picture, PROMPTS)
        kept = backend.app.state.backend.images.get(picture.image.sha256)

    np.testing.assert_array_equal(kept, volume)


async def test_a_forgotten_image_is_uploaded_again():
    backend = Backend(image_cache_bytes=1500)
    pictures = [Picture(UploadImage(np.full((20, 30), n, np.uint16))) for n in (1, 2)]
    async with backend.client() as client:
        for picture in (*pictures, *pictures):
            await client.segment(picture, PROMPTS)

    assert backend.seen.count(("PUT", "images")) == 4


async def test_an_image_the_server_never_keeps_is_uploaded_once_only(picture):
    unknown = httpx.Response(404, json={"code": "unknown_image", "message": "No."})
    client = answering(unknown, httpx.Response(204), unknown)
    with pytest.raises(UnknownImageError):
        await client.segment(picture, PROMPTS)


@pytest.mark.parametrize("question", ["", " \n", "x" * 4001])
async def test_a_question_is_checked_before_anything_is_sent(backend, picture, question):
    async with backend.client() as client:
        _, error = await collect(client, picture, question)
    assert isinstance(error, QuestionError)
    assert not backend.seen


async def test_errors_of_the_server_come_back_as_themselves(backend, picture):
    async with backend.client() as client:
        events, error = await collect(client, picture, "crash")
        assert isinstance(error, EngineError)
        assert isinstance(events[-1], StatusEvent)
        with pytest.raises(PromptError, match="no positive point"):
            await client.segment(picture, Prompts())
    async with backend.client(token="wrong") as client:
        with pytest.raises(UnauthorizedError):
            await client.health()
        _, error = await collect(client, picture)
        assert isinstance(error, UnauthorizedError)
    async with Backend(max_body_bytes=100).client() as client:
        with pytest.raises(TooLargeError):
            await client.segment(picture, PROMPTS)


WORDS = ThinkEvent(text="ein “Wort”\u2028 und\r\nnoch eins")


MASK = MaskEvent(mask=PackedMask.pack(np.ones((30, 20), np.bool_)), score=1)


async def test_a_stream_is_read_letter_by_letter(picture):
    events, error = await collect(answering(stream(WORDS, done(WORDS.text))), picture)
    assert error is None
    assert events[0] == WORDS


@pytest.mark.parametrize(
    ("reply", "kept", "kind"),
    [
        (stream(), 0, UnreachableError),
        (stream(WORDS), 1, UnreachableError),
        (stream(WORDS, tail='event: done\ndata: {"type": "do'), 1, UnreachableError),
        (stream(WORDS, done("another")), 1, UnreachableError),
        (stream(WORDS, MASK, done(WORDS.text)), 1, ProtocolError),
        (stream(WORDS, tail="data: {}\n\n"), 1, ProtocolError),
        (stream(WORDS, tail="data: text\n\n"), 1, ProtocolError),
        (httpx.Response(200, text="<html>"), 0, ProtocolError),
        (httpx.Response(500, text="<html>"), 0, ProtocolError),
        (httpx.Response(503, json={"code": "odd", "message": "No."}), 0, MedReasonerError),
    ],
)
async def test_a_stream_that_is_not_whole_is_no_answer_but_its_events_are_kept(
    picture, reply, kept, kind
):
    events, error = await collect(answering(reply), picture)
    assert len(events) == kept
    assert isinstance(error, kind)


async def test_events_after_done_are_not_read(picture):
    events, error = await collect(answering(stream(WORDS, done(WORDS.text), WORDS)), picture)
    assert error is None
    assert len(events) == 2


def segmented(mask) -> httpx.Response:
    return httpx.Response(200, json={"mask": mask, "score": 1, "milliseconds": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"data": "!!!"},
        {"data": "AAAA"},
        {"data": PackedMask.pack(np.zeros((2, 2), np.bool_)).data},
        {"shape": [30, 20]},
        {"shape": [20, 30, 1]},
        {"shape": [2**20, 2**20]},
        {"shape": "x"},
    ],
)
async def test_a_damaged_mask_is_a_protocol_error(picture, change):
    good = PackedMask.pack(np.ones((20, 30), np.bool_)).model_dump(mode="json")
    assert (await answering(segmented(good)).segment(picture, PROMPTS)).mask.all()
    with pytest.raises(ProtocolError):
        await answering(segmented(good | change)).segment(picture, PROMPTS)


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, json={"protocol": 1, "version": "9"}),
        httpx.Response(200, json={"protocol": 2, "version": "9", "news": 1}),
        httpx.Response(200, text="hello"),
        httpx.Response(404, text="not found"),
        httpx.Response(302, headers={"Location": "http://evil.example"}),
    ],
)
async def test_another_server_is_told_apart(reply):
    with pytest.raises(ProtocolError):
        await answering(reply).health()


def subclasses(kind):
    return {kind, *(leaf for child in kind.__subclasses__() for leaf in subclasses(child))}


@pytest.mark.parametrize("kind", sorted(subclasses(httpx.TransportError) - {SSEError}, key=str))
@pytest.mark.parametrize("path", [ASK, SEGMENT, IMAGES])
async def test_every_transport_error_is_one_of_ours(picture, kind, path):
    unknown = httpx.Response(404, json={"code": "unknown_image", "message": "No."})

    def fail(request):
        if path == IMAGES and request.method == "POST":
            return unknown
        raise kind("boom")

    client = Client(URL, TOKEN, transport=httpx.MockTransport(fail))
    with pytest.raises(UnreachableError, match=r"^[A-Z][^.]*( [^.]*)*\.$") as caught:
        await (anext(client.ask(picture, "?")) if path == ASK else client.segment(picture, PROMPTS))
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("kind", sorted(subclasses(httpx.RequestError), key=str))
def test_no_request_error_of_httpx_gets_through(kind):
    with pytest.raises(MedReasonerError), wire_errors():
        raise kind("boom")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:80", "", "http://"])
async def test_an_address_that_is_none_is_one_of_our_errors(url):
    with pytest.raises(MedReasonerError):
        await Client(url, TOKEN).health()


@pytest.mark.parametrize(("url", "token"), [("http://127.0.0.1:port", TOKEN), (URL, "schlüssel")])
def test_an_address_or_token_that_cannot_be_sent_is_refused(url, token):
    with pytest.raises(SettingsError):
        Client(url, token)


async def test_nothing_listens(picture):
    async with Client("http://127.0.0.1:9", TOKEN) as client:
        with pytest.raises(UnreachableError, match="start it"):
            await client.health()


async def test_closing_the_iterator_ends_quietly(backend, picture):
    async with backend.client() as client:
        async with aclosing(client.ask(picture, "slow 5")) as events:
            await anext(events)
        await asyncio.sleep(0)
        assert (await client.health()).status == "ok"
