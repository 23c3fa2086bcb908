"""MedSAM2 as the engine runs it against the bare `sam2` package: `python benchmarks/segmenters.py`.

Both have the same weights and take turns in one run. The weights are random, as time does not
depend on them; `--weights MedSAM2_latest.pt` takes real ones. `--device cuda` measures a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import sam2.sam2_video_predictor as video
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from napari_medreasoner.core.geometry import Box, Point, Prompts
from napari_medreasoner.engines.base import VolumeInput
from napari_medreasoner.engines.device import arithmetic, device_of, dtype_of
from napari_medreasoner.engines.options import EngineOptions
from napari_medreasoner.engines.registry import create_segmenter
from napari_medreasoner.engines.segmenters.common import authors_tensors
from napari_medreasoner.engines.segmenters.sam2 import SIDE
from napari_medreasoner.engines.segmenters.sam2_input import prepared
from napari_medreasoner.engines.segmenters.sam2_reference import build

NAME = "medsam2"
FILE = "MedSAM2_latest.pt"
SIZE = 256
BOX = (80, 80, 176, 176)
PROMPTS = Prompts(
    box=Box.from_corners(*BOX), points=(Point(x=128, y=128), Point(x=60, y=60, positive=False))
)


def ball(depth: int) -> list[Any]:
    """Slices through a bright ball on noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    slices = []
    for index in range(depth):
        radius = 40 * (1 - (2 * index / depth - 1) ** 2 / 2)
        grey = 60 + 120 * (np.hypot(rows, columns) < radius) + generator.normal(0, 8, rows.shape)
        slices.append(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return slices


def random_weights(path: Path) -> None:
    """A checkpoint whose object is always there, so that it is followed to the end."""
    torch.manual_seed(1)
    model = build(SIDE)
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(4.0)
    torch.save({"model": model.state_dict()}, path)


def by_turns(repeats: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each work, called in turn, without the first time."""
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, mine in zip(works, seconds, strict=True):
            start = perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                mine.append(perf_counter() - start)
    return seconds


def report(title: str, ours: list[float], bare: list[float]) -> None:
    """Median and quartiles of both, and how many times faster ours is."""

    def told(seconds: list[float]) -> str:
        low, middle, high = statistics.quantiles(seconds, n=4)
        return f"{middle * 1000:9.1f} [{low * 1000:8.1f} ..{high * 1000:8.1f}]"

    ratio = statistics.median(bare) / statistics.median(ours)
    print(f"  {title:<28}{told(ours)}   {told(bare)}   {ratio:6.2f}x")


class Bare:
    """The package's own predictors, without anything of ours round them."""

    def __init__(self, path: Path, options: EngineOptions, slices: list[Any]) -> None:
        self.device = device_of(options)
        self.dtype = dtype_of(options, self.device)
        self.model = build(SIDE)
        self.model.load_state_dict(authors_tensors(path))
        self.model.to(self.device)
        self.image = SAM2ImagePredictor(self.model)
        self.image._bb_feat_sizes = [(SIDE // stride,) * 2 for stride in (4, 8, 16)]
        frames = torch.stack([prepared(shown, SIDE) for shown in slices]).to(self.device)
        # The package reads folders of JPEG files only.
        video.load_video_frames = lambda **_: (frames, SIZE, SIZE)
        video.tqdm = lambda steps, **_: steps

    @contextmanager
    def working(self) -> Iterator[None]:
        """Gradients off, precision as ours."""
        with arithmetic(self.device, self.dtype):
            yield

    def set_image(self, picture: Any) -> None:
        """Encode a picture."""
        with self.working():
            self.image.set_image(picture)

    def predict(self) -> None:
        """Decode box and points."""
        with self.working():
            self.image.predict(
                point_coords=np.array([(point.x, point.y) for point in PROMPTS.points]),
                point_labels=np.array([int(point.positive) for point in PROMPTS.points]),
                box=np.array(BOX),
                multimask_output=False,
            )

    def follow(self, index: int, slices: int) -> None:
        """Follow a box upwards from a slice, through so many slices."""
        with self.working():
            state = self.model.init_state("")
            self.model.add_new_points_or_box(state, index, 0, box=np.array(BOX, np.float32))
            for number, _ in enumerate(
                self.model.propagate_in_video(state, start_frame_idx=index), start=1
            ):
                if number == slices:
                    return


def main() -> None:
    """Measure pictures, prompts and a volume."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--slices", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME / FILE
        path.parent.mkdir()
        shutil.copy(given.weights, path) if given.weights else random_weights(path)
        options = EngineOptions(device=given.device, models=Path(folder))
        measure(path, options, given.repeats, ball(given.slices))


def measure(path: Path, options: EngineOptions, repeats: int, slices: list[Any]) -> None:
    """Print one line for each kind of work."""
    ours: Any = create_segmenter(NAME, options)
    bare = Bare(path, options, slices)
    print(
        f"torch {torch.__version__}, {bare.device}, {bare.dtype}, {torch.get_num_threads()} threads"
    )
    print(f"  {'ms, median [quartiles]':<28}{'engine':>31}   {'bare sam2':>31}   faster")
    picture = slices[len(slices) // 2]
    report(
        "encode a picture",
        *by_turns(repeats, lambda: ours.set_image(picture), lambda: bare.set_image(picture)),
    )
    embedding = ours.set_image(picture)
    report(
        "decode box and points",
        *by_turns(4 * repeats, lambda: ours.segment(embedding, PROMPTS), bare.predict),
    )
    request = VolumeInput(slices, 0, Prompts(box=PROMPTS.box), 1.0, (1.0, 1.0), range(len(slices)))
    followed = len(list(ours.propagate(request)))
    report(
        f"follow through {followed} slices",
        *by_turns(
            max(repeats // 2, 2),
            lambda: list(ours.propagate(request)),
            lambda: bare.follow(0, followed),
        ),
    )


if __name__ == "__main__":
    main()
