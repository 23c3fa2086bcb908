"""What it costs to bring a volume to the server: `python benchmarks/uploading.py`.

A CT-like volume goes to a server process over the loopback, raw as to this machine and with zstd
as to another; the reference is the hash that both sides must take, on the same array.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.picture import UploadImage
from napari_medreasoner.client.upload import compressed
from napari_medreasoner.core.protocol import content_hash

MIB = 2**20


def volume(depth: int) -> NDArray[np.int16]:
    """Smooth structures with noise of 12 HU, of shape (depth, 512, 512)."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512] / 80
    smooth = 300 * np.sin(rows) * np.cos(columns)
    noise = generator.normal(0, 12, (depth, 512, 512)).astype(np.float32)
    return (smooth + noise).astype(np.int16)


async def _upload(array: NDArray[np.int16], rounds: int) -> None:
    packed = sum([len(piece) async for piece in compressed(array)])
    print(f"{array.nbytes / MIB:.0f} MiB, {packed / MIB:.0f} MiB with zstd; {rounds} times")
    seconds: dict[str, list[float]] = {"hash alone": [], "raw": [], "zstd": []}
    async with LocalServer() as server:
        for turn in range(rounds):
            array[0, 0, 0] = turn
            start = perf_counter()
            content_hash(array)
            seconds["hash alone"].append(perf_counter() - start)
            for name in ("raw", "zstd"):
                async with server.client() as client:
                    client._compress = name == "zstd"
                    image = UploadImage(array)
                    start = perf_counter()
                    await client._upload(image)
                    seconds[name].append(perf_counter() - start)
    for name, found in seconds.items():
        ratio = statistics.median(found) / statistics.median(seconds["hash alone"])
        spread = f"{min(found):.2f} to {max(found):.2f}"
        print(f"  {name:<12}{statistics.median(found):8.2f} s   {spread}   ratio {ratio:5.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(_upload(volume(given.slices), given.rounds))
