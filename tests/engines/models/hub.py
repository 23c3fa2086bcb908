"""A server on this machine that answers as the hub does, and can be told to fail."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """One repository.

    Attributes
    ----------
    files : dict
        Content by path.
    cut : set of str
        Files whose next transfer breaks off in the middle.
    lies : set of str
        Files whose content is not what the list says.
    status : int
        Of every answer.
    """

    files: dict[str, bytes]
    cut: set[str] = field(default_factory=set)
    lies: set[str] = field(default_factory=set)
    status: int = 200
    ranges: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    url: str = ""

    def listing(self) -> dict[str, object]:
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                },
            }
            for name, content in self.files.items()
        ]
        return {"id": "a/b", "modelId": "a/b", "sha": COMMIT, "siblings": siblings, "tags": []}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _answer(self, *, body: bool) -> None:
            path = urlsplit(self.path).path
            if hub.status != 200:
                self._send(hub.status, {}, b"")
            elif path.startswith("/api/models/"):
                text = json.dumps(hub.listing()).encode()
                self._send(200, {"Content-Type": "application/json"}, text)
            elif (name := path.rpartition(f"/resolve/{COMMIT}/")[2]) in hub.files:
                self._file(name, body=body)
            else:
                self._send(404, {}, b"")

        def _file(self, name: str, *, body: bool) -> None:
            content = hub.files[name]
            digest = hashlib.sha256(content).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
            if not body:
                self._send(200, {**headers, "Content-Length": str(len(content))}, b"")
                return
            hub.fetched.append(name)
            if name in hub.lies:
                content = bytes(len(content))
            start = 0
            if wanted := self.headers.get("Range"):
                hub.ranges.append(wanted)
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            rest = content[start:]
            if name in hub.cut:
                hub.cut.discard(name)
                headers["Content-Length"] = str(len(rest))
                self._send(206 if start else 200, headers, rest[: len(rest) // 2])
                self.close_connection = True
            else:
                self._send(206 if start else 200, headers, rest)

    return Handler


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
