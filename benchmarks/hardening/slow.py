"""Clients that send or read slowly, and one that behaves, at the same time."""

from __future__ import annotations

import json
import socket
import time
from typing import Final

from backend import Backend, numbered_picture
from counting import Counted, percentile

from napari_medreasoner.core.protocol import ASK, HEALTH, IMAGES

_EACH: Final = {"slow headers": 100, "slow bodies": 50, "events not read": 20}
_LIMIT: Final = 30.0
_PATIENCE: Final = 45.0


def _connect(backend: Backend) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", backend.port))
    made.setblocking(False)
    return made


def _begun(backend: Backend, kind: str, sha256: str) -> bytes:
    """First bytes of a request that will never end, or never be read."""
    line = {
        "slow headers": f"GET {HEALTH} HTTP/1.1",
        "slow bodies": f"PUT {IMAGES}/{'0' * 64}?dtype=uint8&shape=1000&shape=1000 HTTP/1.1",
        "events not read": f"POST {ASK} HTTP/1.1",
    }[kind]
    text = f"{line}\r\nHost: 127.0.0.1\r\n"
    if kind == "slow headers":
        return text.encode()
    text += f"Authorization: Bearer {backend.token}\r\n"
    if kind == "slow bodies":
        return f"{text}Content-Length: 1000000\r\n\r\n".encode()
    image = {"sha256": sha256, "window": [0, 255]}
    body = json.dumps({"image": image, "question": "flood"})
    text += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return text.encode()


def _trickle(sockets: dict[socket.socket, str], closed: dict[socket.socket, float]) -> None:
    """Send one more byte on each connection that is not to be left unread."""
    for made, kind in sockets.items():
        if made in closed or kind == "events not read":
            continue
        try:
            made.send(b"x" if kind == "slow bodies" else b"X-A: b\r\n")
            if made.recv(4096) == b"":
                closed[made] = time.monotonic()
        except BlockingIOError:
            continue
        except OSError:
            closed[made] = time.monotonic()


def _local_ports(backend: Backend) -> set[int]:
    listed = backend.inner.net_connections("tcp")
    return {one.raddr.port for one in listed if one.raddr and one.status == "ESTABLISHED"}


def _upload(backend: Backend) -> str:
    """Put an image there without a client's name, so that no lease ends with it."""
    image = numbered_picture(1).image
    path = f"{IMAGES}/{image.sha256}"
    with backend.http() as http:
        query = {"dtype": image.header.dtype, "shape": list(image.shape)}
        http.put(path, params=query, content=image.array.tobytes()).raise_for_status()
    return image.sha256


def _healthy(backend: Backend, seconds: float) -> list[float]:
    """Times of health requests for a while."""
    times = []
    with backend.http() as http:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            http.get(HEALTH).raise_for_status()
            times.append(time.perf_counter() - start)
            time.sleep(0.02)
    return times


def slow() -> list[Counted]:
    """Count slow clients that are closed in time."""
    with Backend() as backend:
        sha256 = _upload(backend)
        before = percentile(_healthy(backend, 5), 0.95)
        start = time.monotonic()
        sockets = {_connect(backend): kind for kind, n in _EACH.items() for _ in range(n)}
        for made, kind in sockets.items():
            made.send(_begun(backend, kind, sha256))
        ports = {made: made.getsockname()[1] for made in sockets}
        closed: dict[socket.socket, float] = {}
        during: list[float] = []
        while len(closed) < len(sockets) and time.monotonic() < start + _PATIENCE:
            _trickle(sockets, closed)
            during += _healthy(backend, 1)
            alive = _local_ports(backend)
            for made, port in ports.items():
                if port not in alive:
                    closed.setdefault(made, time.monotonic())
        for made in sockets:
            made.close()
    results = []
    for kind, count in _EACH.items():
        ages = [at - start for made, at in closed.items() if sockets[made] == kind]
        in_time = sum(age <= _LIMIT for age in ages)
        oldest = f"last after {max(ages):.0f} s" if ages else "none closed"
        results.append(
            Counted(
                f"{kind}: closed within 30 s", f"{in_time} of {count} ({oldest})", in_time == count
            )
        )
    after = percentile(during, 0.95)
    figure = f"{before * 1000:.1f} ms before, {after * 1000:.1f} ms during"
    return [*results, Counted("health route, 95th percentile", figure, after < 0.1)]
