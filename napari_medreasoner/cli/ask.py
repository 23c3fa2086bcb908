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

from napari_medreasoner.cli.engines import Device, Dtype, Endpoint, MaxNewTokens, Models, Quantise
from napari_medreasoner.cli.findings import FILES, Asked, Finding, Growth, save_finding
from napari_medreasoner.cli.inspect import WhichPart
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.core.errors import ImageError, SettingsError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.prompts import PromptTemplate, check_question
from napari_medreasoner.core.protocol import MODALITIES, AskRequest, PropagateRequest, ThinkEvent
from napari_medreasoner.engines.options import EngineOptions
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
    growth = Growth(picture.image.shape[:3], picture.plane.axis if picture.plane else 0)
    request = PropagateRequest(image=picture.ref, prompts=prompts)
    with closing(bench.propagate(picture.image.array, request)) as events:
        for event in events:
            growth.add(event)
    return growth.mask


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
    crm: Annotated[str, typer.Option(help="Name or folder of the reasoner.")] = CRM,
    asm: Annotated[str, typer.Option(help="Name or folder of the segmenter.")] = ASM,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantise: Quantise = None,
    models: Models = None,
    endpoint: Endpoint = "",
    max_new_tokens: MaxNewTokens = 2048,
    consent: Annotated[
        bool,
        typer.Option("--consent", help="The picture may be sent to a model on another machine."),
    ] = False,
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
        consent=consent,
    )
    options = EngineOptions(
        device=device,
        dtype=dtype,
        quantisation=quantise,
        models=models,
        endpoint=endpoint,
        max_new_tokens=max_new_tokens,
    )
    bench = Workbench(create_reasoner(crm, options), create_segmenter(asm, options))
    finding = _answer(bench, picture, request)
    grown = _grow(bench, picture, finding) if grow else None
    save_finding(output, asked, finding, {"crm": crm, "asm": asm}, grown)
    sys.stdout.write(f"Wrote {', '.join(FILES)} to {output}. Research use only.\n")
