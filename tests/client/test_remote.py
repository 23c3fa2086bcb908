"""A server that was started by somebody else."""

import asyncio

import numpy as np
import pytest

from napari_medreasoner.client import remote
from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.client.remote import RemoteServer
from napari_medreasoner.core.errors import UnauthorizedError, UnreachableError
from napari_medreasoner.core.geometry import Prompts
from tests.fakes import BOX

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("fake_engines")]


async def test_it_is_reached_used_and_left_running():
    async with LocalServer("fake", "fake") as running:
        server = RemoteServer(running._url, running._token)
        await server.start()
        async with server.client() as client:
            picture = Picture(UploadImage(np.zeros((20, 30), np.uint8)))
            assert (await client.segment(picture, Prompts(box=BOX))).score == 0.75
        await server.stop()
        assert running.running
        with pytest.raises(UnauthorizedError):
            await RemoteServer(running._url, "x" * 32).start()


async def test_its_end_is_noticed(monkeypatch):
    monkeypatch.setattr(remote, "_LOOK_SECONDS", 0.05)
    async with LocalServer("fake", "fake") as running:
        server = RemoteServer(running._url, running._token)
        await server.start()
        watch = asyncio.ensure_future(server.watch())
        await asyncio.sleep(0.2)
        assert not watch.done()
    await asyncio.wait_for(watch, 10)
    assert not server.running
    with pytest.raises(UnreachableError):
        await server.start()
