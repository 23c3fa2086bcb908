"""Pictures preprocessed once: a rollout asks for each of them once a completion, and again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Final

import torch
from PIL.Image import Image
from transformers import BatchFeature

__all__ = ["Preprocessed", "keep_preprocessed"]

_BYTES: Final = 2**30

Patches = tuple[torch.Tensor, torch.Tensor]
"""`pixel_values` of shape (patch, values) and `image_grid_thw` of shape (1, 3)."""


class Preprocessed:
    """What an image processor made, by the SHA-256 of the picture and the options.

    Parameters
    ----------
    limit : int
        Bytes that are kept; the least recently used go first.

    Attributes
    ----------
    seconds : float
        Spent so far.
    made, found : int
        Pictures that were preprocessed, and that were there already.
    """

    def __init__(self, limit: int = _BYTES) -> None:
        self._limit = limit
        self._kept: OrderedDict[bytes, Patches] = OrderedDict()
        self._size = 0
        self.seconds = 0.0
        self.made = self.found = 0

    def batch(
        self, images: Any, options: dict[str, Any], make: Callable[[Image], BatchFeature]
    ) -> BatchFeature:
        """Features of pictures, in a list or in lists; `make` preprocesses one."""
        start = perf_counter()
        settings = repr(sorted((key, str(value)) for key, value in options.items())).encode()
        pictures = list(_flat(images))
        # The copies of a rollout are mostly one object: hash it once.
        keys = {id(picture): _key(picture, settings) for picture in _distinct(pictures)}
        parts = [self._one(picture, keys[id(picture)], make) for picture in pictures]
        self._forget()
        self.seconds += perf_counter() - start
        return BatchFeature(
            {
                "pixel_values": torch.cat([pixels for pixels, _ in parts]),
                "image_grid_thw": torch.cat([grid for _, grid in parts]),
            }
        )

    def _one(self, picture: Image, key: bytes, make: Callable[[Image], BatchFeature]) -> Patches:
        if key in self._kept:
            self.found += 1
            self._kept.move_to_end(key)
        else:
            self.made += 1
            features = make(picture)
            self._kept[key] = features["pixel_values"], features["image_grid_thw"]
            self._size += features["pixel_values"].nbytes
        return self._kept[key]

    def _forget(self) -> None:
        while self._size > self._limit:
            _, (pixels, _) = self._kept.popitem(last=False)
            self._size -= pixels.nbytes


def _flat(images: Any) -> Iterator[Image]:
    if isinstance(images, Image):
        yield images
        return
    for item in images:
        yield from _flat(item)


def _distinct(pictures: list[Image]) -> Iterator[Image]:
    yield from {id(picture): picture for picture in pictures}.values()


def _key(picture: Image, settings: bytes) -> bytes:
    digest = hashlib.sha256(picture.tobytes())
    digest.update(f"{picture.mode} {picture.size}".encode() + settings)
    return digest.digest()


def keep_preprocessed(image_processor: Any, limit: int = _BYTES) -> Preprocessed:
    """Let an image processor keep what it makes; return where it keeps it.

    Its class is replaced by a subclass of the same name, so that it is saved and recognised as
    what it was.

    Parameters
    ----------
    image_processor : image processor of transformers
        Of a family that gives `pixel_values` in patches and `image_grid_thw`.
    limit : int
        Bytes.
    """
    original = type(image_processor)
    kept = Preprocessed(limit)

    def call(self: Any, images: Any, *args: Any, **options: Any) -> BatchFeature:
        def make(picture: Image) -> BatchFeature:
            wanted = options | {"return_tensors": "pt"}
            made: BatchFeature = original.__call__(self, [picture], *args, **wanted)
            return made

        return kept.batch(images, options, make)

    image_processor.__class__ = type(original.__name__, (original,), {"__call__": call})
    return kept
