"""How quick the engines that ship are, each pair in a server of its own, one run.

For every sample image: the first mask (picture prepared), the median of corrections by a moved
box, the first text of a trace, the whole answer; then the server's memory. At the end the U-Net
in ONNX Runtime against the same network in torch. Run: `python benchmarks/speed.py`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from medreasoner_trainer.embedded.segmenter.network import PromptUNet
from napari_medreasoner.client.client import Client
from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.geometry import Box, Prompts, SlicePlane
from napari_medreasoner.core.protocol import ThinkEvent
from napari_medreasoner.engines.embedded.graphs import SHIPPED, open_graph, read_weights
from napari_medreasoner.engines.embedded.window import CHANNELS, SIDE
from napari_medreasoner.imaging.samples import SampleCase, sample_cases
from napari_medreasoner.imaging.window import default_window

PAIRS = (("small-qwen", "unet"), ("prior", "unet"), ("prior", "classical"))
GOALS = {"first mask": 250, "correction": 60, "first text": 500, "whole answer": 4000}
REPEATS = 20
MIB = 2**20


@dataclass
class Times:
    """Milliseconds by what was done."""

    found: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in GOALS})

    def add(self, name: str, start: float) -> None:
        """Note what has been done since `start`."""
        self.found[name].append((time.perf_counter() - start) * 1000)


def picture_of(case: SampleCase) -> tuple[Picture, Box]:
    """A sample's picture, and a box over its middle third."""
    volume = case.load()
    plane = None if case.slice_index is None else SlicePlane(axis=0, index=case.slice_index)
    shown = plane.cut(volume.array) if plane else volume.array
    height, width = shown.shape[:2]
    box = Box.from_corners(width // 3, height // 3, width * 2 // 3, height * 2 // 3)
    picture = Picture(UploadImage(volume.array), plane, default_window(volume), volume.grid.spacing)
    return picture, box


async def measure(client: Client, case: SampleCase, times: Times) -> None:
    """Segment, correct and ask."""
    picture, box = picture_of(case)
    start = time.perf_counter()
    await client.segment(picture, Prompts(box=box))
    times.add("first mask", start)
    for turn in range(REPEATS):
        moved = Box.from_corners(box.x1 + turn % 8, box.y1, box.x2 + turn % 8, box.y2)
        start = time.perf_counter()
        await client.segment(picture, Prompts(box=moved))
        times.add("correction", start)
    for _ in range(3):
        start, spoken = time.perf_counter(), False
        async for event in client.ask(picture, case.question, modality=case.modality):
            if isinstance(event, ThinkEvent) and not spoken:
                times.add("first text", start)
                spoken = True
        times.add("whole answer", start)


async def pair(crm: str, asm: str) -> None:
    """Print a table for one server."""
    times = Times()
    async with LocalServer(crm, asm) as server, server.client() as client:
        for case in sample_cases():
            await measure(client, case, times)
        memory = psutil.Process(server.pid).memory_info().rss / MIB
    print(f"\n{crm} x {asm}\n  {'':<16}{'median':>10}{'highest':>10}{'goal':>10}")
    for name, found in times.found.items():
        print(
            f"  {name:<16}{statistics.median(found):7.0f} ms{max(found):7.0f} ms"
            f"{GOALS[name]:7.0f} ms"
        )
    print(f"  {'memory':<16}{memory:6.0f} MiB{'':>10}{1536:6.0f} MiB")


def network() -> None:
    """Print what the U-Net takes, here and in torch."""
    weights = read_weights(SHIPPED / "unet.safetensors")
    session = open_graph(SHIPPED / "unet.onnx", weights)
    other = PromptUNet()
    other.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    other = other.eval().to(memory_format=torch.channels_last)
    torch.set_num_threads(2)
    planes = np.random.default_rng(0).normal(size=(2, CHANNELS, SIDE, SIDE)).astype(np.float32)
    tensor = torch.from_numpy(planes).to(memory_format=torch.channels_last)
    print(f"\nU-Net, two windows ({REPEATS} times)")
    with torch.inference_mode():
        for name, work in (
            ("ONNX Runtime", lambda: session.run(None, {"planes": planes})[0]),
            ("torch", lambda: other(tensor).numpy()),
        ):
            found = []
            for _ in range(REPEATS + 1):
                start = time.perf_counter()
                result = work()
                found.append((time.perf_counter() - start) * 1000)
            print(f"  {name:<16}{statistics.median(found[1:]):7.1f} ms  {float(result.sum()):.3f}")


def main() -> None:
    """Print all tables."""
    for crm, asm in PAIRS:
        asyncio.run(pair(crm, asm))
    network()


if __name__ == "__main__":
    main()
