"""`medreasoner ask`: one question about one file, without a server."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from napari_medreasoner.cli.findings import FILES, Asked, Finding, save_finding
from napari_medreasoner.cli.inspect import WhichPart
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.errors import ImageError, SettingsError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.prompts import PromptTemplate, check_question
from napari_medreasoner.core.protocol import MODALITIES, AskRequest, SegmentRequest, ThinkEvent
from napari_medreasoner.engines.registry import create_reasoner, create_segmenter
from napari_medreasoner.imaging import Volume, read_sandboxed
from napari_medreasoner.server.workbench import Workbench

__all__ = ["ask"]


def _read(path: Path, part: int | None, modality: str) -> Volume:
    if modality and modality not in MODALITIES:
        raise SettingsError(
            f'There is no modality "{modality}"; use one of {", ".join(MODALITIES)}.'
        )
    volume = read_sandboxed(path, part=part)
    return replace(volume, modality=modality or volume.modality)


def _plane(volume: Volume, axis: int, index: int | None) -> SlicePlane | None:
    if not volume.is_volume:
        if index is not None:
            raise ImageError("The image is two-dimensional; leave out --slice.")
        return None
    plane = SlicePlane(axis=axis, index=volume.grid.shape[axis] // 2 if index is None else index)
    plane.selector(volume.grid.shape)
    return plane


def _answer(bench: Workbench, picture: Picture, request: AskRequest) -> Finding:
    """Answer the question, writing the trace to stdout as it comes."""
    finding = Finding()
    try:
        with closing(bench.ask(picture.image.array, request)) as events:
            for event in events:
                if isinstance(event, ThinkEvent):
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
                finding.add(event)
    finally:
        sys.stdout.write("\n")
    return finding


def _grow(bench: Workbench, picture: Picture, finding: Finding) -> NDArray[np.bool_] | None:
    """The mask of the whole volume, from the answer on its slice."""
    if finding.answer is None:
        return None
    prompts = Prompts(box=finding.answer.box, points=finding.answer.points)
    request = SegmentRequest(image=picture.ref, prompts=prompts, scope="volume")
    return bench.segment(picture.image.array, request).mask.unpack()


def ask(
    image: Annotated[Path, typer.Argument(help="Image file or DICOM folder.")],
    question: Annotated[str, typer.Argument(help="What you want to know, in your own words.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "out"
    ),
    slice_index: Annotated[
        int | None,
        typer.Option("--slice", min=0, help="Slice of a volume; the middle one if left out."),
    ] = None,
    part: WhichPart = None,
    axis: Annotated[int, typer.Option(min=0, max=2, help="0 axial, 1 coronal, 2 sagittal.")] = 0,
    modality: Annotated[str, typer.Option(help=f"Kind of image: {', '.join(MODALITIES)}.")] = "",
    window: Annotated[
        tuple[float, float] | None, typer.Option(help="Intensities shown as black and as white.")
    ] = None,
    template: Annotated[Path | None, typer.Option(help="Prompt template file (TOML).")] = None,
    grow: Annotated[bool, typer.Option("--grow", help="Grow the mask through the volume.")] = False,
    crm: Annotated[str, typer.Option(help="Reasoner.")] = "prior",
    asm: Annotated[str, typer.Option(help="Segmenter.")] = "classical",
) -> None:
    """Ask one question about one image; write trace, answer, mask and overlay."""
    check_question(question)
    volume = _read(image, part, modality)
    asked = Asked(volume, question, _plane(volume, axis, slice_index), window)
    picture = Picture(UploadImage(volume.array), asked.plane, asked.window, volume.grid.spacing)
    request = AskRequest(
        image=picture.ref,
        question=question,
        modality=volume.modality,
        template=PromptTemplate.from_file(template) if template else None,
    )
    bench = Workbench(create_reasoner(crm), create_segmenter(asm))
    finding = _answer(bench, picture, request)
    grown = _grow(bench, picture, finding) if grow else None
    save_finding(output, asked, finding, {"crm": crm, "asm": asm}, grown)
    sys.stdout.write(f"Wrote {', '.join(FILES)} to {output}. Research use only.\n")
