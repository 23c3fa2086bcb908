import asyncio

import pytest

from napari_medreasoner.server.leases import LEASE_SECONDS, Leases
from napari_medreasoner.server.newest import Newest


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_images_go_with_the_last_client_that_holds_them():
    forgotten, clock = [], Clock()
    leases = Leases(forgotten.append, clock)
    leases.renew("a", "shared")
    leases.renew("a", "own")
    leases.renew("b", "shared")
    clock.now += LEASE_SECONDS / 2
    leases.renew("b")
    clock.now += LEASE_SECONDS / 2 + 1
    leases.reap()
    assert forgotten == [{"own"}]
    assert len(leases) == 1
    leases.end("b")
    leases.end("b")
    assert forgotten == [{"own"}, {"shared"}]


def test_a_client_without_a_name_holds_no_lease():
    leases = Leases(pytest.fail)
    leases.renew(None, "image")
    assert len(leases) == 0


@pytest.mark.anyio
async def test_only_the_newest_of_a_client_and_kind_holds_its_claim():
    newest = Newest()
    with (
        newest.claim("a", "ask") as first,
        newest.claim("b", "ask") as foreign,
        newest.claim("a", "segment") as other,
        newest.claim("a", "ask") as second,
    ):
        assert first.done()
        assert not any(claim.done() for claim in (foreign, other, second))
    with newest.claim("a", "ask") as third, newest.claim(None, "ask") as nameless:
        assert not third.done()
        assert not nameless.done()
    await asyncio.sleep(0)
    assert not newest._newest
