import numpy as np
import pytest
import zstandard

from napari_medreasoner.core.protocol import IMAGES, content_hash

ZSTD = {"Content-Encoding": "zstd"}


def put(server, image, body, headers=ZSTD):
    query = {"dtype": image.dtype.name, "shape": list(image.shape)}
    path = f"{IMAGES}/{content_hash(image)}"
    return server.http.put(path, params=query, content=body, headers=headers)


def test_a_compressed_image_arrives_as_it_was(server, picture):
    packed = zstandard.ZstdCompressor().compress(picture.tobytes())
    assert put(server, picture, packed).status_code == 204
    (kept,) = server.app.state.backend.images._images.values()
    np.testing.assert_array_equal(kept, picture)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no zstd at all",
        zstandard.ZstdCompressor().compress(bytes(1199)),
        zstandard.ZstdCompressor().compress(bytes(1201)),
        zstandard.ZstdCompressor().compress(bytes(10**9)),
        zstandard.ZstdCompressor().compress(bytes(1200))[:-3],
    ],
    ids=["empty", "other", "short", "long", "bomb", "cut"],
)
def test_a_compressed_body_that_does_not_fit_is_refused(server, picture, body):
    reply = put(server, picture, body)
    assert reply.status_code == 422
    assert reply.json()["code"] == "bad_image"


def test_an_unknown_encoding_is_refused(server, picture):
    reply = put(server, picture, picture.tobytes(), {"Content-Encoding": "gzip"})
    assert reply.status_code == 422
    assert "gzip" in reply.json()["message"]
