import numpy as np
import pytest

from napari_medreasoner.core.errors import TooLargeError, UnknownImageError
from napari_medreasoner.server.store import ImageStore, RecentCache


def test_the_least_recently_used_image_is_forgotten_first():
    store = ImageStore(max_bytes=25)
    for name in "ab":
        store.put(name, np.zeros(10, np.uint8))
    store.get("a")
    store.put("c", np.zeros(10, np.uint8))

    assert [name in store for name in "abc"] == [True, False, True]
    with pytest.raises(UnknownImageError):
        store.get("b")


def test_putting_an_image_twice_counts_it_once():
    store = ImageStore(max_bytes=25)
    for _ in range(5):
        store.put("a", np.zeros(10, np.uint8))
    store.put("b", np.zeros(10, np.uint8))

    assert "a" in store
    assert "b" in store


def test_an_image_larger_than_the_store_is_refused_and_the_rest_stays():
    store = ImageStore(max_bytes=25)
    store.put("a", np.zeros(10, np.uint8))
    with pytest.raises(TooLargeError):
        store.put("b", np.zeros(26, np.uint8))

    assert "a" in store


def test_images_are_read_only():
    store = ImageStore(max_bytes=25)
    store.put("a", np.zeros(10, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        store.get("a")[0] = 1


def test_a_cache_makes_each_value_once_while_it_is_recent():
    made = []

    def value(key):
        made.append(key)
        return np.zeros(10, np.uint8)

    cache = RecentCache(max_bytes=25)
    for key in (1, 2, 1, 3, 1, 2):
        cache.get(key, lambda key=key: value(key))
    assert made == [1, 2, 3, 2]
    assert cache.nbytes == 20
    cache.drop(lambda key: key == 1)
    assert (1 in cache, 2 in cache, cache.nbytes) == (False, True, 10)


def test_a_value_larger_than_the_cache_is_kept_until_the_next():
    cache = RecentCache(max_bytes=5)
    assert cache.get(1, lambda: np.zeros(10, np.uint8)).size == 10
    cache.get(2, lambda: np.zeros(3, np.uint8))
    assert (1 in cache, cache.nbytes) == (False, 3)
