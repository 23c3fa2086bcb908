import json

import pytest

from napari_medreasoner.core.protocol import (
    ASK,
    CAPABILITIES,
    HEALTH,
    IMAGES,
    LEASE,
    METRICS,
    PROPAGATE,
    SEGMENT,
)
from tests.server.conftest import AUTH, TOKEN, Server

HASH = "0" * 64
ROUTES = [
    ("GET", HEALTH),
    ("GET", CAPABILITIES),
    ("HEAD", f"{IMAGES}/{HASH}"),
    ("PUT", f"{IMAGES}/{HASH}?dtype=uint8&shape=1&shape=1"),
    ("POST", ASK),
    ("POST", SEGMENT),
    ("POST", PROPAGATE),
    ("PUT", LEASE),
    ("DELETE", LEASE),
    ("GET", METRICS),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/redoc"),
    ("GET", "/"),
    ("DELETE", "/v1/unknown"),
]


def test_the_table_lists_every_route_of_the_application(server):
    listed = {(method, path.split("?")[0]) for method, path in ROUTES}
    for path, operations in server.http.get("/openapi.json").json()["paths"].items():
        for method in operations:
            assert (method.upper(), path.replace("{sha256}", HASH)) in listed


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN],
)
def test_every_route_needs_the_token(server, authorization):
    for method, path in ROUTES:
        reply = server.http.request(method, path, headers={"Authorization": authorization})
        assert reply.status_code == 401
        assert method == "HEAD" or reply.json()["code"] == "unauthorized"


def test_no_token_or_two_are_none(server):
    for headers in ([], [*AUTH.items(), ("Authorization", "Bearer x")]):
        for method, path in ROUTES:
            assert server.http.request(method, path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
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
    ],
)
def test_a_foreign_host_is_refused_before_the_token_is_looked_at(server, host):
    for method, path in ROUTES:
        reply = server.http.request(method, path, headers={"Host": host, "Authorization": ""})
        assert reply.status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]", "[::1]:65535"]
)
def test_this_machine_is_served(server, host):
    assert server.http.get(HEALTH, headers={"Host": host}).status_code == 200


def test_a_name_of_this_machine_is_served_only_when_it_was_given(tmp_path):
    (pem := tmp_path / "tls.pem").touch()
    outside = {"host": "0.0.0.0", "names": ("gpu.example",), "certificate": pem, "key": pem}  # noqa: S104
    with (served := Server(**outside)).http:
        for host, status in (
            ("gpu.example:8765", 200),
            ("gpuxexample", 403),
            ("evil.example", 403),
        ):
            assert served.http.get(HEALTH, headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://127.0.0.1.evil.example", "http://127.0.0.1"],
)
def test_any_origin_is_refused(server, origin):
    for method, path in ROUTES:
        reply = server.http.request(method, path, headers={"Origin": origin})
        assert reply.status_code == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_preflight_is_refused(server):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    assert server.http.options(ASK, headers=headers).status_code == 403


async def chunks(total, size=50_000):
    for start in range(0, total, size):
        yield b"x" * min(size, total - start)


@pytest.mark.parametrize(("method", "path"), ROUTES[3:7])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_cap_is_refused(server, method, path, declared):
    limit = 100_000 if method == "PUT" else 4 * 2**20
    body = b"x" * (limit + 1) if declared else chunks(limit + 1)
    reply = server.http.request(
        method, path, content=body, headers={"Content-Type": "application/json"}
    )
    # An undeclared image is cut off even earlier: at what its shape and type promise.
    early = method == "PUT" and not declared
    assert reply.status_code == (422 if early else 413)
    assert reply.json()["code"] == ("bad_image" if early else "too_large")


@pytest.mark.parametrize("path", [ASK, SEGMENT])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_only_json_is_read_as_json(server, path, kind):
    image = {"sha256": HASH}
    body = {"image": image, "question": "x"} if path == ASK else {"image": image, "prompts": {}}
    headers = {} if kind is None else {"Content-Type": kind}
    sent = server.http.post(path, content=json.dumps(body), headers=headers)

    assert sent.status_code == 422
    assert sent.json()["code"] == "bad_input"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f" * 3 + "x",
        "%00",
        "0" * 63,
        "0" * 65,
        "A" * 64,
        "0" * 63 + "g",
        "0" * 64 + "%0a",
        "~root",
        "\\\\host\\share",
        "/etc/passwd",
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "PUT"])
def test_only_a_hash_names_an_image(server, method, name):
    reply = server.http.request(method, f"{IMAGES}/{name}?dtype=uint8&shape=1&shape=1")
    assert reply.status_code in (404, 405, 422)
