import asyncio
import gc
import socket
import struct
import weakref

import pytest
import uvicorn
from uvicorn.server import ServerState

from napari_medreasoner.core.protocol import HEALTH
from napari_medreasoner.server.deadlines import DeadlineProtocol
from tests.server.conftest import TOKEN

REQUEST = f"GET {HEALTH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # linger for no time: what is unread or unsent is thrown away


async def _answered(port) -> asyncio.StreamWriter:
    """A connection that has had its answer and may be used again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST.encode())
    assert b" 200 " in await reader.readline()
    return writer


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.anyio
@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("broken", [False, True])
async def test_a_connection_that_ended_is_freed_at_once(server, broken):
    config = uvicorn.Config(server.app, ws="none", log_config=None, timeout_keep_alive=75)
    state = ServerState()
    listening = await asyncio.get_running_loop().create_server(
        lambda: DeadlineProtocol(config, state, {}), "127.0.0.1", 0
    )
    async with listening:
        writer = await _answered(listening.sockets[0].getsockname()[1])
        [connection] = map(weakref.ref, state.connections)
        if broken:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.close()
        async with asyncio.timeout(5):
            while connection() is not None:
                await asyncio.sleep(0.01)
