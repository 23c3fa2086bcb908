import asyncio
import json
import logging
import threading
import time
from math import nan

import httpx
import numpy as np
import pytest

from napari_medreasoner.core.errors import MemoryShortageError
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.core.protocol import (
    ASK,
    CAPABILITIES,
    CLIENT_HEADER,
    HEALTH,
    IMAGES,
    METRICS,
    PROPAGATE,
    PROTOCOL_VERSION,
    SEGMENT,
    EventAdapter,
    content_hash,
)
from tests.fakes import BOX, FakeReasoner, FakeSegmenter
from tests.server.conftest import AUTH, Server

PROMPTS = {"box": {"x1": 2, "y1": 3, "x2": 8, "y2": 9}}


def ref(image, **more):
    return {"sha256": content_hash(image), **more}


def events_of(reply):
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in reply.text.split("\n\n") if "data:" in block]
    events = []
    for name, data in blocks:
        event = EventAdapter.validate_json(data.removeprefix("data: "))
        assert name == f"event: {event.type}"
        events.append(event)
    return events


def ask(server, image, question="where?", **more):
    return server.http.post(ASK, json={"image": ref(image, **more), "question": question})


def segment(server, image, prompts=PROMPTS, **more):
    return server.http.post(SEGMENT, json={"image": ref(image, **more), "prompts": prompts})


def propagate(server, image, prompts=PROMPTS, *, span=None, mask=None, **more):
    body = {"image": ref(image, **more), "prompts": prompts, "span": span, "mask": mask}
    return server.http.post(PROPAGATE, json=body)


def test_health_and_capabilities(server):
    assert server.http.get(HEALTH).json()["protocol"] == PROTOCOL_VERSION
    found = server.http.get(CAPABILITIES).json()
    assert found["crm"]["name"] == "fake-crm"
    assert found["max_body_bytes"] == 100_000
    assert "Reasoning" in found["templates"]


def test_the_api_is_described_and_the_web_pages_are_off(server):
    assert ASK in server.http.get("/openapi.json").json()["paths"]
    assert server.http.get("/docs").status_code == 404
    assert server.http.get("/redoc").status_code == 404


def test_unknown_routes_and_methods_are_errors_of_ours(server):
    for reply, status in ((server.http.get("/x"), 404), (server.http.delete(ASK), 405)):
        assert reply.status_code == status
        assert reply.json()["code"] == "protocol"


def test_an_image_is_kept_after_its_upload(server, picture):
    path = f"{IMAGES}/{content_hash(picture)}"
    assert server.http.head(path).status_code == 404
    assert server.put(picture).status_code == 204
    assert server.http.head(path).status_code == 204


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64"},
        {"dtype": "object"},
        {"dtype": "uint8"},
        {"dtype": ">u2"},
        {"shape": [30, 30]},
        {"shape": [600]},
        {"shape": [20, 30, 1, 1]},
        {"shape": [1, 20, 30, 1]},
        {"shape": [0, 30]},
        {"shape": [-20, -30]},
        {"shape": [65536, 1]},
        {"shape": ["a", "b"]},
        {"shape": [30, 20]},
        {"sha256": "0" * 64},
        {"body": b""},
        {"body": bytes(1199)},
        {"body": bytes(1201)},
        {"extra": 1},
    ],
)
def test_an_upload_that_does_not_fit_its_header_is_refused(server, picture, change):
    reply = server.put(picture, **change)
    assert reply.status_code == 422
    assert reply.json()["code"] in ("bad_input", "bad_image")
    assert server.http.head(f"{IMAGES}/{content_hash(picture)}").status_code == 404


def test_a_header_that_promises_too_much_is_refused_before_the_body(server, picture):
    reply = server.put(picture, shape=[65535, 65535], body=b"")
    assert reply.status_code == 413


def test_asking_streams_every_event_in_order(server, picture):
    server.put(picture)
    events = events_of(ask(server, picture))

    kinds = [event.type for event in events]
    assert kinds[:2] == ["status", "status"]
    assert [event.stage for event in events[:2]] == ["waiting", "reasoning"]
    assert kinds[-4:] == ["answer", "status", "mask", "done"]
    assert events[-4].box == BOX
    assert "".join(e.text for e in events if e.type == "think") == "word 0 word 1 word 2 "
    assert events[-2].mask.unpack()[BOX.slices].all()


def test_the_reasoner_sees_the_window_and_the_template(server, picture):
    server.put(picture)
    body = {
        "image": ref(picture, window=[0, 599]),
        "question": "where is $question?",
        "modality": "CT",
        "template": {"name": "mine", "user": "Q: $question ($width x $height)"},
    }
    server.http.post(ASK, json=body)
    given = server.reasoner.inputs[-1]

    assert given.image.shape == (20, 30, 3)
    assert (given.image[0, 0] == 0).all()
    assert (given.image[-1, -1] == 255).all()
    assert given.modality == "CT"
    assert given.messages[-1].content == "Q: where is $question? (30 x 20)"


@pytest.mark.parametrize(
    ("question", "code"),
    [(" ", "bad_question"), ("x" * 4001, "bad_question"), ("crash", "engine_failed")],
)
def test_faults_while_asking_are_the_last_event(server, picture, question, code, caplog):
    server.put(picture)
    last = events_of(ask(server, picture, question))[-1]
    assert (last.type, last.code) == ("error", code)


def test_an_unknown_image_is_said_before_the_stream(server, picture):
    for reply in (ask(server, picture), segment(server, picture)):
        assert reply.status_code == 404
        assert reply.json()["code"] == "unknown_image"


def test_prompts_become_a_mask(server, picture):
    server.put(picture)
    reply = segment(server, picture).json()
    mask = PackedMask.model_validate(reply["mask"]).unpack()

    assert mask.shape == picture.shape
    assert mask.sum() == BOX.area
    assert reply["score"] == 0.75
    assert reply["milliseconds"] >= 0


def test_an_embedding_is_made_once_per_slice_and_window(server, picture):
    server.put(picture)
    before = server.segmenter.calls.count("set_image")
    for window in (None, None, [0, 10], [0, 10], [0, 20]):
        segment(server, picture, window=window)
    ask(server, picture)

    assert server.segmenter.calls.count("set_image") == before + 3


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"box": {"x1": 5, "y1": 5, "x2": 5, "y2": 9}},
        {"box": {"x1": 40, "y1": 40, "x2": 50, "y2": 50}},
        {"points": [{"x": 30, "y": 0}]},
        {"points": [{"x": 1, "y": 1, "positive": False}]},
        {"points": [{"x": 2**40, "y": 1}]},
        {"points": [{"x": 1.5, "y": 1}]},
    ],
)
def test_prompts_that_cannot_be_used_are_one_sentence(server, picture, prompts):
    server.put(picture)
    reply = segment(server, picture, prompts)
    assert reply.status_code == 422
    assert reply.json()["message"].endswith(".")


VOLUME = np.arange(4 * 20 * 30, dtype=np.int16).reshape(4, 20, 30)
PLANE = {"axis": 0, "index": 1}


@pytest.mark.parametrize(("axis", "shape"), [(0, (20, 30)), (1, (4, 30)), (2, (4, 20))])
def test_a_slice_of_a_volume_is_segmented(server, axis, shape):
    server.put(VOLUME)
    prompts = {"points": [{"x": 0, "y": 0}]}
    reply = segment(server, VOLUME, prompts, plane={"axis": axis, "index": 2})
    assert tuple(reply.json()["mask"]["shape"]) == shape


@pytest.mark.parametrize(
    ("image", "plane"),
    [
        (VOLUME, None),
        (VOLUME, {"axis": 0, "index": 4}),
        (np.zeros((20, 30), np.uint8), {"axis": 0, "index": 0}),
        (np.zeros((20, 30, 3), np.uint8), {"axis": 0, "index": 0}),
    ],
)
def test_a_slice_that_does_not_fit_the_image_is_refused(server, image, plane):
    server.put(image)
    assert segment(server, image, plane=plane).json()["code"] == "bad_image"
    assert events_of(ask(server, image, plane=plane))[-1].code == "bad_image"
    assert events_of(propagate(server, image, plane=plane))[-1].code == "bad_image"


def test_a_volume_is_followed_slice_by_slice_through_one_window(server):
    server.put(VOLUME)
    events = events_of(propagate(server, VOLUME, plane=PLANE, window=[600, 1199]))

    assert [event.type for event in events] == ["status", "status", "slice", "propagated"]
    assert events[2].index == 1
    assert events[2].mask.unpack().sum() == BOX.area
    assert events[3].slices == 1
    assert (server.segmenter.volume[0] == 0).all()
    assert (server.segmenter.volume[2:] == 255).all()


def test_a_corrected_mask_and_a_range_reach_the_segmenter(server):
    server.put(VOLUME)
    drawn = np.zeros((20, 30), np.bool_)
    drawn[3, 4] = True
    mask = PackedMask.pack(drawn).model_dump()
    propagate(server, VOLUME, {}, plane=PLANE, mask=mask, span=[1, 9])
    given = server.segmenter.requests[-1]
    assert given.span == range(1, 4)
    assert np.array_equal(given.mask, drawn)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"span": [2, 3]}, "do not hold the prompted slice 1"),
        ({"mask": PackedMask.pack(np.ones((3, 3), np.bool_)).model_dump()}, "shape"),
        ({"mask": PackedMask.pack(np.zeros((20, 30), np.bool_)).model_dump()}, "empty"),
        ({"prompts": {}}, "no box"),
    ],
)
def test_growth_that_cannot_begin_is_one_sentence(server, more, words):
    server.put(VOLUME)
    last = events_of(propagate(server, VOLUME, plane=PLANE, **more))[-1]
    assert last.type == "error"
    assert words in last.message


def test_volumes_need_a_segmenter_that_takes_them_and_an_image_that_is_one(server, picture):
    server.put(picture)
    assert events_of(propagate(server, picture))[-1].code == "bad_input"
    with (plain := Server(segmenter=FakeSegmenter())).http:
        plain.put(VOLUME)
        last = events_of(propagate(plain, VOLUME, plane=PLANE))[-1]
    assert last.code == "bad_input"
    assert "fake-asm" in last.message


ODD = {
    "one pixel": np.zeros((1, 1), np.uint8),
    "one float pixel": np.full((1, 1), 0.5, np.float32),
    "one row": np.zeros((1, 50), np.int16),
    "flat": np.full((9, 9), 7, np.uint16),
    "all NaN": np.full((9, 9), nan, np.float32),
    "some NaN": np.where(np.eye(9, dtype=np.bool_), nan, 1).astype(np.float32),
    "infinite": np.full((9, 9), np.inf, np.float32),
    "rgb": np.zeros((9, 9, 3), np.uint8),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_give_a_result_or_one_clear_error(server, name):
    server.put(ODD[name])
    prompts = {"points": [{"x": 0, "y": 0}]}
    reply = segment(server, ODD[name], prompts)
    last = events_of(ask(server, ODD[name]))[-1]

    assert reply.status_code == (422 if name in ("all NaN", "infinite") else 200)
    assert last.type == "done" or last.code in ("bad_image", "no_answer")


@pytest.mark.parametrize("literal", ["[NaN, 1]", "[0, Infinity]", "[1]", '"wide"'])
def test_a_window_that_is_not_two_numbers_is_refused(server, picture, literal):
    server.put(picture)
    body = json.dumps({"image": ref(picture, window="W"), "prompts": PROMPTS})
    reply = server.http.post(
        SEGMENT,
        content=body.replace('"W"', literal),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 422


def test_a_faulty_request_is_not_repeated_in_the_reply(server, picture):
    reply = server.http.post(ASK, json={"image": 1, "question": {"patient": "canary-name"}})
    assert reply.status_code == 422
    assert "canary-name" not in reply.text


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b""])
def test_a_body_that_is_not_json_is_refused(server, body):
    reply = server.http.post(ASK, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422)
    assert reply.json()["code"] in ("bad_input", "protocol")


def test_a_failing_segmenter_is_an_engine_error_and_its_traceback_stays(server, picture, caplog):
    server.put(picture)
    server.segmenter.fault = RuntimeError("canary-detail")
    reply = segment(server, picture)
    server.segmenter.fault = None

    assert reply.status_code == 500
    assert reply.json()["code"] == "engine_failed"
    assert "canary-detail" not in reply.text
    assert "canary-detail" in caplog.text
    assert segment(server, picture).status_code == 200


def test_a_bug_of_ours_is_a_failure_without_a_traceback(server, monkeypatch):
    monkeypatch.setattr(type(server.app.state.backend.images), "get", lambda *_: 1 // 0)
    reply = server.http.head(f"{IMAGES}/{'0' * 64}")
    assert reply.status_code == 500
    reply = segment(server, np.zeros((2, 2), np.uint8))
    assert reply.json()["code"] == "failure"
    assert "Zero" not in reply.text


def test_all_engine_calls_are_on_one_thread(server, picture):
    server.put(picture)
    jobs = [threading.Thread(target=task, args=(server, picture)) for task in (ask, segment, ask)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()

    assert len(server.segmenter.threads | server.reasoner.threads) == 1
    assert threading.get_ident() not in server.segmenter.threads


def test_the_segmenter_is_warmed_up_before_the_first_request(server):
    assert server.segmenter.calls == ["set_image", "segment"]


@pytest.mark.anyio
async def test_health_answers_while_the_engine_works(server, wire, picture):
    server.put(picture)
    server.segmenter.gate.clear()
    body = {"image": ref(picture), "prompts": PROMPTS}
    busy = asyncio.ensure_future(wire.post(SEGMENT, json=body))
    await asyncio.sleep(0.05)

    async with asyncio.timeout(1):
        assert (await wire.get(HEALTH)).status_code == 200
    server.segmenter.gate.set()
    assert (await busy).status_code == 200


def test_a_quiet_stream_is_kept_alive(server, picture, monkeypatch):
    monkeypatch.setattr("napari_medreasoner.server.streams.KEEP_ALIVE_SECONDS", 0.005)
    server.put(picture)
    assert ": ping\n\n" in ask(server, picture, "slow 1").text


def test_nothing_of_a_request_is_logged(server, picture, caplog):
    caplog.set_level(logging.DEBUG)
    server.put(picture)
    ask(server, picture, "canary-question")
    assert "canary" not in caplog.text


def test_what_was_done_is_counted_for_prometheus(server, picture):
    server.put(picture)
    segment(server, picture)
    ask(server, picture, "canary-question")
    text = server.http.get(METRICS).text
    assert f'medreasoner_requests_total{{method="POST",route="{SEGMENT}",status="200"}} 1.0' in text
    assert 'medreasoner_engine_seconds_count{stage="segment"} 1.0' in text
    assert "medreasoner_image_bytes 1200.0" in text
    assert "canary" not in text


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_neighbours_are_encoded_when_nothing_else_is_to_be_done(server):
    server.put(VOLUME)
    before = server.segmenter.calls.count("set_image")
    segment(server, VOLUME, plane=PLANE, window=[0, 2400])
    until(lambda: server.segmenter.calls.count("set_image") == before + 4)
    segment(server, VOLUME, plane={"axis": 0, "index": 2}, window=[0, 2400])
    assert server.segmenter.calls.count("set_image") == before + 4


def test_clicks_that_were_added_refine_the_last_mask_of_the_same_client(server, picture):
    server.put(picture)
    body = {"image": ref(picture), "prompts": PROMPTS}
    mine, theirs = ({CLIENT_HEADER: digit * 32} for digit in "ab")
    for headers, refine in ((mine, False), (mine, True), (theirs, True), (mine, True), ({}, True)):
        server.http.post(SEGMENT, json={**body, "refine": refine}, headers=headers)
    first = server.segmenter.previous.index(None) + 1  # the warm-up was one
    assert server.segmenter.previous[first:] == [None, 2, None, 3, None]


def test_when_memory_runs_out_embeddings_are_dropped_and_the_work_is_done_again(server, picture):
    server.put(picture)
    segment(server, picture)
    short = [MemoryShortageError("The GPU is full; close something.")]
    original = server.segmenter.segment

    def once(*given):
        if short:
            raise short.pop()
        return original(*given)

    server.segmenter.segment = once
    assert segment(server, picture).status_code == 200
    assert "medreasoner_memory_shortages_total 1.0" in server.http.get(METRICS).text
    server.segmenter.fault = MemoryShortageError("The GPU is full; close something.")
    server.segmenter.segment = original
    reply = segment(server, picture)
    assert (reply.status_code, reply.json()["code"]) == (503, "out_of_memory")
    server.segmenter.fault = None
    assert segment(server, picture).status_code == 200


def test_pictures_leave_the_machine_by_consent_only(picture):
    reasoner = FakeReasoner()
    reasoner.info = reasoner.info.model_copy(update={"leaves_machine": True})
    with (server := Server(reasoner)).http:
        server.put(picture)
        last = events_of(ask(server, picture))[-1]
        assert (last.type, last.code) == ("error", "no_consent")
        assert reasoner.inputs == []
        body = {"image": ref(picture), "question": "where?", "consent": True}
        assert events_of(server.http.post(ASK, json=body))[-1].type == "done"


@pytest.mark.anyio
async def test_too_many_requests_are_told_when_to_come_again(picture):
    server = Server(most_waiting=2)
    with server.http:
        server.put(picture)
        server.segmenter.gate.clear()
        body = {"image": ref(picture), "prompts": PROMPTS}
        transport = httpx.ASGITransport(server.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=AUTH
        ) as http:
            worker, waiting = server.app.state.backend.worker, []
            for expected in (0, 1, 2):  # the first runs
                waiting.append(asyncio.ensure_future(http.post(SEGMENT, json=body)))
                while not (worker.busy and worker.waiting == expected):
                    await asyncio.sleep(0.01)
            for path, asked in ((SEGMENT, body), (ASK, {"image": ref(picture), "question": "?"})):
                reply = await http.post(path, json=asked)
                assert (reply.status_code, reply.json()["code"]) == (429, "busy")
                assert int(reply.headers["Retry-After"]) > 0
            server.segmenter.gate.set()
            assert [reply.status_code for reply in await asyncio.gather(*waiting)] == [200] * 3
