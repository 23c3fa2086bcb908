"""A token and a patient that must not be found anywhere: logs, command lines, caches, requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import psutil
import pydicom
from backend import Backend
from counting import Counted
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from napari_medreasoner.client.client import Client
from napari_medreasoner.client.picture import Picture, UploadImage
from napari_medreasoner.core.errors import MedReasonerError
from napari_medreasoner.imaging import read_sandboxed

PATIENT: Final = "Zzcanary^Patient"
QUESTION: Final = "zzquestion"

_TEXT: Final = {"PN": PATIENT, "LO": PATIENT, "SH": "Zzcanary^Pat", "LT": PATIENT, "ST": PATIENT}
_KEPT: Final = {"PhotometricInterpretation", "Modality", "SpecificCharacterSet"}


def _marked(dataset: Dataset) -> Dataset:
    """Put the patient into every text of a data set, and into a private block."""
    for element in dataset.iterall():
        if element.VR in _TEXT and element.keyword not in _KEPT:
            element.value = _TEXT[element.VR]
    for name in ("PatientName", "PatientID", "InstitutionName", "StudyDescription"):
        setattr(dataset, name, PATIENT)
    dataset.private_block(0x0099, PATIENT[:16], create=True).add_new(0x01, "LO", PATIENT)
    return dataset


class _Recording(httpx.AsyncHTTPTransport):
    """The usual way to the server, with a copy of all that is sent."""

    def __init__(self, sent: list[bytes]) -> None:
        super().__init__()
        self._sent = sent

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Keep line, headers and body."""
        body = await request.aread()
        self._sent.append(f"{request.url} {request.headers}".encode() + body)
        request.stream = httpx.ByteStream(body)
        return await super().handle_async_request(request)


async def _use(backend: Backend, path: Path) -> list[bytes]:
    """Ask about the patient's picture, once well and once so that an engine fails."""
    volume = read_sandboxed(path)
    sent: list[bytes] = []
    picture = Picture(UploadImage(volume.array), window=volume.window)
    async with Client(backend.url, backend.token, transport=_Recording(sent)) as client:
        for question in (QUESTION, f"slow {QUESTION}"):
            with suppress(MedReasonerError):
                async for _ in client.ask(picture, question, modality=volume.modality):
                    pass
    return sent


def _command_lines() -> list[bytes]:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()).encode())
        except psutil.Error:  # it ended meanwhile, or is another user's
            continue
    return lines


def _files(folder: Path) -> list[bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path.read_bytes() + str(path).encode() for path in found]


def canaries() -> list[Counted]:
    """Count where token, patient and question turn up."""
    with Backend() as backend:
        path = backend.folder / f"{PATIENT}.dcm"
        _marked(pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))).save_as(path)
        sent = asyncio.run(_use(backend, path))
        lines = _command_lines()
        backend.process.terminate()
        backend.process.wait(30)
        places = {
            "the log": [backend.log.read_bytes()],
            "command lines": lines,
            "the home folder": _files(backend.home),
        }
        patient = PATIENT.split("^", maxsplit=1)[0]
        results = [
            _counted(f"{what} in {name}", canary, found)
            for what, canary in (
                ("token", backend.token),
                ("patient", patient),
                ("question", QUESTION),
            )
            for name, found in places.items()
        ]
    found = sum(QUESTION.encode() in one for one in sent)
    return [
        *results,
        Counted("question in requests, to prove the search", f"{found} times", found > 0),
        _counted("patient in requests", patient, sent),
    ]


def _counted(what: str, canary: str, places: list[bytes]) -> Counted:
    hits = sum(place.lower().count(canary.lower().encode()) for place in places)
    return Counted(what, f"{hits} times in {len(places)}", hits == 0)
