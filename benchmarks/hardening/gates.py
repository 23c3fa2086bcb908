"""Every route against no token, wrong tokens, foreign hosts and origins."""

from __future__ import annotations

import random
import re
import string
from typing import Final

import httpx
from backend import Backend
from counting import Counted

_HASH: Final = "0" * 64
_HOSTS: Final = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example:80",
    "",
    "127.1",
    "0.0.0.0",  # noqa: S104 - a header, nothing is bound
    "169.254.169.254",
    "127.0.0.1@evil.example",
    "localhost:80:80",
    "[::]",
    "localhost:port",
)
_ORIGINS: Final = (
    "null",
    "",
    "http://evil.example",
    "https://evil.example:8443",
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://127.0.0.1",
    "http://localhost",
    "file://",
    "chrome-extension://abcdefghijklmnop",
)
_BESIDE: Final = (("GET", "/"), ("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json"))


def routes(http: httpx.Client) -> list[tuple[str, str]]:
    """Method and path of every route, by the server's own description, and some beside."""
    paths = http.get("/openapi.json").json()["paths"]
    listed = [
        (method.upper(), re.sub(r"\{\w+\}", _HASH, path))
        for path, operations in paths.items()
        for method in operations
    ]
    return [*listed, *_BESIDE]


def _wrong_tokens(token: str) -> list[list[tuple[str, str]]]:
    chance = random.Random(0)  # noqa: S311 - no secret
    other = "".join(chance.choices(string.ascii_letters, k=len(token)))
    wrong = ["", "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", f"Bearer {other}", token]
    wrong += [f"Basic {token}", f"bearer  {token}"]
    return [[("Authorization", value)] for value in wrong]


def gates() -> list[Counted]:
    """Count refusals."""
    with Backend() as backend, backend.http() as http:
        table = routes(http)
        right = ("Authorization", f"Bearer {backend.token}")
        kinds = {
            "no token": ([[]], 401),
            "wrong token": (_wrong_tokens(backend.token), 401),
            "foreign host": ([[right, ("Host", host)] for host in _HOSTS], 403),
            "any origin": ([[right, ("Origin", origin)] for origin in _ORIGINS], 403),
        }
        results = []
        for kind, (variants, status) in kinds.items():
            refused = total = 0
            for headers in variants:
                for method, path in table:
                    with httpx.Client(base_url=backend.url, trust_env=False) as bare:
                        reply = bare.request(method, path, headers=headers)
                    total += 1
                    refused += reply.status_code == status
            what = f"{len(table)} routes, {kind} ({len(variants)} forms): refused"
            results.append(Counted(what, f"{refused} of {total}", refused == total))
    return results
