"""`medreasoner serve --ray` as a process with two replicas over fake engines."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest

from napari_medreasoner.client.client import Client
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.protocol import HEALTH, METRICS, DoneEvent
from napari_medreasoner.server.settings import ENVIRONMENT_VARIABLE
from tests.fakes import BOX, install
from tests.server.conftest import AUTH, TOKEN


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    site = tmp_path_factory.mktemp("ray") / "site"
    options = ["--crm", "fake", "--asm", "fake", "--ray", "--replicas", "2", "--gpus", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_medreasoner.cli", "serve", *options],
        env={**os.environ, **install(site), ENVIRONMENT_VARIABLE: TOKEN, "RAY_DEDUP_LOGS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


async def _use(url: str, number: int) -> str:
    """Ask and correct, as one client; the metrics of the replica that answered it."""
    picture = Picture(UploadImage(np.full((20, 30), number, np.uint8)))
    async with Client(url, TOKEN) as client:
        events = [event async for event in client.ask(picture, "where?")]
        assert isinstance(events[-1], DoneEvent)
        for _ in range(5):
            assert (await client.segment(picture, Prompts(box=BOX))).score == 0.75
        return (await client._request("GET", METRICS)).text


UPLOADS = re.compile(r'requests_total\{method="PUT".*status="204"\} (\d+)')


def test_each_client_is_answered_by_one_replica_and_all_by_both(url):
    async def all_of_them():
        return await asyncio.gather(*(_use(url, number) for number in range(12)))

    found = asyncio.run(all_of_them())
    # Each image was uploaded once: no correction came to a replica that did not have it.
    for text in found:
        assert 'route="/v1/segment",status="404"' not in text
    # And no replica took them all.
    assert max(int(UPLOADS.search(text)[1]) for text in found) < 12


def test_the_doors_are_as_well_guarded(url):
    with httpx.Client(base_url=url, trust_env=False) as http:
        assert http.get(HEALTH).status_code == 401
        assert http.get(HEALTH, headers={**AUTH, "Host": "evil.example"}).status_code == 403
        assert http.get(HEALTH, headers={**AUTH, "Origin": "null"}).status_code == 403
        assert http.get(HEALTH, headers=AUTH).status_code == 200
