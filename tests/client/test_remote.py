"""A server that was started by somebody else."""

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

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


def _certificate(folder):
    """A certificate for localhost that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "chain.pem").write_bytes(made.public_bytes(Encoding.PEM))
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(plain)


async def test_over_tls_only_a_server_that_the_system_trusts_is_spoken_to(tmp_path, monkeypatch):
    _certificate(tmp_path)
    options = ("--certificate", str(tmp_path / "chain.pem"), "--key", str(tmp_path / "key.pem"))
    running = LocalServer("fake", "fake", (*options, "--name", "localhost"))
    await running.start()
    try:
        assert running._url.startswith("https://localhost:")
        with pytest.raises(UnreachableError):
            await RemoteServer(running._url, running._token).start()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "chain.pem"))
        await RemoteServer(running._url, running._token).start()
    finally:
        await running.stop()
