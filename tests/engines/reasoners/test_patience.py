import threading
import time
from collections.abc import Generator
from contextlib import closing

import pytest

from napari_medreasoner.engines.reasoners.patience import with_pauses


def test_pieces_come_in_order_with_empty_ones_in_the_pauses() -> None:
    def slow() -> Generator[str]:
        yield "a"
        time.sleep(0.6)
        yield "b"

    found = list(with_pauses(slow()))
    assert [piece for piece in found if piece] == ["a", "b"]
    assert found[1] == ""


def test_an_error_reaches_the_reader() -> None:
    def failing() -> Generator[str]:
        yield "a"
        raise LookupError("gone")

    pieces = with_pauses(failing())
    assert next(pieces) == "a"
    with pytest.raises(LookupError):
        next(pieces)


def test_a_reader_that_leaves_in_a_silence_leaves_at_once() -> None:
    silence, closed = threading.Event(), threading.Event()

    def silent() -> Generator[str]:
        try:
            yield "a"
            silence.wait(10)
            yield "b"
        finally:
            closed.set()

    with closing(with_pauses(silent())) as pieces:
        assert next(pieces) == "a"
        assert next(pieces) == ""
    assert not closed.is_set()
    silence.set()
    assert closed.wait(10)
