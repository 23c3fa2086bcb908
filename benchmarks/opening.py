"""What opening a file in a process of its own costs, against the bare library in the same run.

Generates a volume of 512 x 512 x 300 int16 as .nii, as .nii.gz and as 300 DICOM files, and opens
each as the plugin does: with a new child, with one that waited, and by nibabel or pydicom in this
process. Every voxel is read in the end, but in the row "mapped", where nibabel has read none yet.
Prints medians, the spread and how much this process grew; run it on a machine that rests.
Run: `python benchmarks/opening.py`.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from napari_medreasoner.imaging import read_sandboxed, warm_up
from napari_medreasoner.imaging.sandbox.spare import SPARE

_REPEATS = 5
_SHAPE = (512, 512, 300)
_SECONDS_TO_WARM = 4.0


def _voxels() -> NDArray[np.int16]:
    """A smooth body with noise, so that it compresses as a scan does."""
    rng = np.random.default_rng(0)
    i, j, k = (np.linspace(-1, 1, size, dtype=np.float32) for size in _SHAPE)
    body = i[:, None, None] ** 2 + j[None, :, None] ** 2 < 0.7 - 0.2 * k[None, None, :] ** 2
    noise = rng.normal(40, 12, _SHAPE).astype(np.int16)
    return np.asfortranarray(np.where(body, noise, np.int16(-1000)))


def _write_dicom(folder: Path, voxels: NDArray[np.int16]) -> None:
    """One file a slice, with the attributes that a CT has."""
    folder.mkdir()
    series, frame = generate_uid(), generate_uid()
    for number in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.FrameOfReferenceUID = series, frame
        ds.Modality, ds.InstanceNumber = "CT", number + 1
        ds.Columns, ds.Rows = voxels.shape[:2]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.8, 0.8], 1
        ds.PixelData = (voxels[:, :, number].T + np.int16(1024)).tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)


def _mapped(path: Path) -> Any:
    return np.asanyarray(nib.load(path).dataobj)


def _touched(path: Path) -> Any:
    return np.array(_mapped(path))


def _by_pydicom(folder: Path) -> Any:
    return np.stack([dcmread(path).pixel_array for path in sorted(folder.iterdir())])


def _sandboxed(path: Path) -> Any:
    array = read_sandboxed(path).array
    array.max()
    return array


def _cold(path: Path) -> Any:
    SPARE.cool_down()
    return _sandboxed(path)


def _grown() -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def _clock(opened: Callable[[Path], Any], path: Path, *, waits: bool) -> tuple[list[float], int]:
    """Seconds of each call but the first, and the most this process grew by in one."""
    seconds, grown = [], 0
    for _ in range(_REPEATS + 1):
        if waits:
            warm_up()
            time.sleep(_SECONDS_TO_WARM)
        gc.collect()
        before, start = _grown(), time.perf_counter()
        image = opened(path)
        seconds.append(time.perf_counter() - start)
        grown = max(grown, _grown() - before)
        del image
    SPARE.cool_down()
    return seconds[1:], grown


def _table(path: Path, bare: dict[str, Callable[[Path], Any]]) -> None:
    print(f"\n{path.name} ({_REPEATS} times)")
    print(f"  {'':<28}{'median':>10}{'lowest':>10}{'highest':>10}{'grown':>12}   ratio")
    rows = [(name, opened, False) for name, opened in bare.items()]
    rows += [("sandbox, new child", _cold, False), ("sandbox, child waited", _sandboxed, True)]
    reference = 0.0
    for name, opened, waits in rows:
        seconds, grown = _clock(opened, path, waits=waits)
        median = statistics.median(seconds)
        if name in bare:
            reference = median  # the last of them
        numbers = "".join(
            f"{value * 1000:7.0f} ms" for value in (median, min(seconds), max(seconds))
        )
        print(f"  {name:<28}{numbers}{grown / 2**20:8.0f} MiB{median / reference:8.2f}")
        sys.stdout.flush()


def main() -> None:
    """Print a table a format."""
    voxels = _voxels()
    size = " x ".join(map(str, _SHAPE))
    print(f"{size} int16 is {voxels.nbytes / 2**20:.0f} MiB; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("volume.nii", "volume.nii.gz"):
            nib.save(nib.Nifti1Image(voxels, np.diag([0.8, 0.8, 1, 1])), folder / file)
        _write_dicom(folder / "series", voxels)
        del voxels
        nibabel = {"nibabel, mapped": _mapped, "nibabel, touched": _touched}
        _table(folder / "volume.nii", nibabel)
        _table(folder / "volume.nii.gz", nibabel)
        _table(folder / "series", {"pydicom": _by_pydicom})


if __name__ == "__main__":
    main()
