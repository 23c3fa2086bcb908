"""`medreasoner demo`: the whole path on real images, through a real backend process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from napari_medreasoner.cli.findings import Asked, Finding, Growth, save_finding
from napari_medreasoner.cli.system import install_packages, missing_packages, screen_command
from napari_medreasoner.client.client import Client
from napari_medreasoner.client.launcher import LocalServer
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.defaults import ASM, CRM
from napari_medreasoner.core.errors import MedReasonerError, SettingsError
from napari_medreasoner.core.geometry import Prompts, SlicePlane
from napari_medreasoner.core.metrics import dice
from napari_medreasoner.core.protocol import AnswerEvent
from napari_medreasoner.imaging.samples import SampleCase, sample_cases

__all__ = ["demo"]

_SCREENSHOT_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the table: milliseconds seen by the client, and overlap with the mask."""

    case: SampleCase
    first_text_ms: float
    mask_ms: float
    correction_ms: float
    dice_slice: float
    dice_volume: float | None


async def _answer(client: Client, asked: Asked, picture: Picture) -> tuple[Finding, float, float]:
    """Ask; return the finding and the milliseconds to the first text and to the end."""
    finding = Finding()
    start = perf_counter()
    first_ms = 0.0
    modality = asked.volume.modality
    async with aclosing(client.ask(picture, asked.question, modality=modality)) as events:
        async for event in events:
            finding.add(event)
            if finding.trace and not first_ms:
                first_ms = (perf_counter() - start) * 1000
    return finding, first_ms, (perf_counter() - start) * 1000


async def _correct(client: Client, picture: Picture, answer: AnswerEvent) -> float:
    """Nudge the box by a pixel, as a user's drag does; milliseconds to the new mask."""
    box = answer.box.padded(1).clipped(picture.width, picture.height)
    start = perf_counter()
    await client.segment(picture, Prompts(box=box, points=answer.points))
    return (perf_counter() - start) * 1000


async def _run_case(client: Client, case: SampleCase, folder: Path) -> _Row:
    """Ask the case's question, correct the answer once, grow it, write it, compare it."""
    volume = case.load()
    truth = case.load_mask().array > 0
    plane = None if case.slice_index is None else SlicePlane(axis=0, index=case.slice_index)
    asked = Asked(volume, case.question, plane)
    picture = Picture(UploadImage(volume.array), plane, asked.window, volume.grid.spacing)
    finding, first_ms, total_ms = await _answer(client, asked, picture)
    if finding.answer is None or finding.mask is None:
        raise MedReasonerError(f"The case {case.id} ended without a mask; see the backend's log.")
    prompts = Prompts(box=finding.answer.box, points=finding.answer.points)
    grown: NDArray[np.bool_] | None = None
    if plane is not None:
        growth = Growth(volume.grid.shape, plane.axis)
        async with aclosing(client.propagate(picture, prompts)) as slices:
            async for event in slices:
                growth.add(event)
        grown = growth.mask
    correction_ms = await _correct(client, picture, finding.answer)
    save_finding(folder, asked, finding, {"crm": CRM, "asm": ASM}, grown)
    return _Row(
        case,
        first_ms,
        total_ms,
        correction_ms,
        dice(finding.mask.mask.unpack(), plane.cut(truth) if plane else truth),
        None if grown is None else dice(grown, truth),
    )


async def _run_all(cases: tuple[SampleCase, ...], output: Path) -> list[_Row]:
    async with LocalServer(CRM, ASM) as server, server.client() as client:
        return [await _run_case(client, case, output / case.id) for case in cases]


def _table(rows: list[_Row]) -> Table:
    table = Table(title=f"CRM {CRM}, ASM {ASM}; milliseconds seen by the client")
    for name in ("case", "target"):
        table.add_column(name, no_wrap=True)
    for name in ("first text", "mask", "edit", "Dice slice", "Dice volume"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.case.id,
            row.case.target,
            f"{row.first_text_ms:.0f}",
            f"{row.mask_ms:.0f}",
            f"{row.correction_ms:.0f}",
            f"{row.dice_slice:.2f}",
            "-" if row.dice_volume is None else f"{row.dice_volume:.2f}",
        )
    return table


def _window(case: SampleCase, screenshot: Path | None) -> None:
    """Open napari on a case in a process of its own; with a path, photograph it and close."""
    prefix: list[str] = []
    options: list[str] = []
    if screenshot is not None:
        prefix = screen_command()
        if prefix:
            install_packages(missing_packages())
        options = ["--screenshot", str(screenshot)]
    done = subprocess.run(  # noqa: S603 - our own module
        [*prefix, sys.executable, "-m", "napari_medreasoner.gui.app", "--case", case.id, *options],
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        timeout=_SCREENSHOT_TIMEOUT_S if screenshot else None,
    )
    if done.returncode != 0 or (screenshot is not None and not screenshot.exists()):
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise SettingsError(f"napari could not be shown ({last}); run: medreasoner doctor")


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "out/demo"
    ),
    headless: Annotated[
        bool, typer.Option("--headless", help="Write a screenshot instead of opening napari.")
    ] = False,
) -> None:
    """Run the bundled cases through a real backend, then show the last one in napari."""
    console = Console()
    cases = sample_cases()
    rows = asyncio.run(_run_all(cases, output))
    console.print(_table(rows))
    console.print(f"Trace, answer, mask and overlay of each case are in {output}.")
    if not headless and not screen_command():
        _window(cases[-1], None)
        return
    screenshot = output / "screenshot.png"
    try:
        _window(cases[-1], screenshot)
    except (MedReasonerError, subprocess.TimeoutExpired) as error:
        console.print(f"No screenshot of the plugin, the overlays stand alone: {error}")
    else:
        console.print(f"A screenshot of the plugin is in {screenshot}. Research use only.")
