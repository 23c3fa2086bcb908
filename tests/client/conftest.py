import numpy as np
import pytest

from napari_medreasoner.client.picture import Picture, UploadImage
from tests.fakes import install


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package")
def fake_engines(tmp_path_factory):
    """Makes child processes know the engines "fake", "noisy" and "broken"."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in install(tmp_path_factory.mktemp("dist") / "site").items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def picture() -> Picture:
    return Picture(UploadImage(np.arange(600, dtype=np.uint16).reshape(20, 30)))
