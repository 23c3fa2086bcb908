import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.sr._concepts_dict import concepts

from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.core.geometry import Box, Grid, Point, Prompts, SlicePlane
from napari_medreasoner.imaging import Segment, Volume, read_image, write_image, write_segments
from napari_medreasoner.imaging.orientation import displayed
from napari_medreasoner.imaging.volume import SourceFrame, plain_grid
from napari_medreasoner.imaging.writers.overlay import draw_overlay, write_overlay
from napari_medreasoner.imaging.writers.report import Report, write_report
from napari_medreasoner.imaging.writers.segment import TISSUE
from napari_medreasoner.imaging.writers.terms import TERMS

SHAPE = (3, 4, 5)
VOLUME = Volume(np.zeros(SHAPE, np.int16), plain_grid(SHAPE), "x")
LABEL_MAPS = (".nii", ".nii.gz", ".nrrd")


def marked(*index: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[index] = True
    return mask


@pytest.mark.parametrize("suffix", LABEL_MAPS)
def test_large_and_gapped_labels_keep_their_values(tmp_path: Path, suffix: str) -> None:
    values = (2, 255, 256, 70000)
    segments = [Segment(marked(0, 0, n), value) for n, value in enumerate(values)]
    write_segments(tmp_path / f"m{suffix}", segments, VOLUME)
    back = read_image(tmp_path / f"m{suffix}").array
    assert back[0, 0, :4].tolist() == list(values)
    assert np.count_nonzero(back) == 4


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([], "no finding"),
        ([Segment(np.zeros(SHAPE, bool), label="Cyst")], '"Cyst" is empty: nothing was segmented'),
        ([Segment(marked(0)), Segment(marked(0, 1), 2, "Cyst")], '"Cyst" overlaps'),
        ([Segment(marked(0)), Segment(marked(1))], "share a label value"),
        ([Segment(marked(0), 0)], "share a label value"),
        ([Segment(np.ones((4, 5), bool), label="Cyst")], 'mask of "Cyst" has the shape'),
        ([Segment(np.ones((3, 4), bool), label="Cyst")], 'mask of "Cyst" has the shape'),
    ],
)
def test_what_a_label_map_cannot_hold_is_refused(
    tmp_path: Path, segments: list[Segment], reason: str
) -> None:
    for suffix in LABEL_MAPS:
        with pytest.raises(ExportError, match=reason):
            write_segments(tmp_path / f"m{suffix}", segments, VOLUME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "picture",
    [
        np.arange(60, dtype=np.uint8).reshape(6, 10),
        np.arange(180, dtype=np.uint8).reshape(6, 10, 3),
        (np.arange(60, dtype=np.uint16) * 1111).reshape(6, 10),
    ],
    ids=["grey", "colour", "16 bit"],
)
def test_a_picture_is_exact_as_png(tmp_path: Path, picture: np.ndarray) -> None:
    write_image(tmp_path / "x.PNG", Volume(picture, plain_grid((6, 10)), "x"))
    with Image.open(tmp_path / "x.PNG") as back:
        assert np.array_equal(np.asarray(back), picture)


@pytest.mark.parametrize("kind", ["int16", "float32", "uint8"])
def test_what_png_would_change_is_refused(tmp_path: Path, kind: str) -> None:
    shape = SHAPE if kind == "uint8" else (6, 10)
    with pytest.raises(ExportError, match=r"without changing it; save it as \.nii\.gz"):
        write_image(tmp_path / "x.png", Volume(np.zeros(shape, kind), plain_grid(shape), "x"))
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_is_the_picture_drawn(tmp_path: Path) -> None:
    picture, box = np.zeros((40, 50, 3), np.uint8), Box.from_corners(5, 5, 20, 30)
    points = (Point(x=7, y=9), Point(x=30, y=9, positive=False))
    mask = np.zeros((40, 50), bool)
    mask[10:20, 8:18] = True
    write_overlay(tmp_path / "o.png", picture, box, points, mask)
    assert (tmp_path / "o.png").read_bytes() == draw_overlay(picture, box, points, mask)
    with Image.open(tmp_path / "o.png") as drawn:
        assert drawn.size[0] >= 640
    with pytest.raises(ExportError, match="choose another folder"):
        write_overlay(tmp_path / "none" / "o.png", picture, box, points, mask)


def test_every_term_is_one_of_the_standard_s() -> None:
    assert TERMS["tissue"].kind == TISSUE
    for coded in TERMS.values():
        for term in filter(None, coded):
            meanings = {
                codes[term.value][0]
                for codes in concepts[term.scheme].values()
                if term.value in codes
            }
            assert term.meaning in meanings, term
    assert TERMS["left kidney"].side != TERMS["right kidney"].side
    assert TERMS["left kidney"].kind == TERMS["kidney"].kind
    assert {"liver", "optic disc", "neoplasm", "colonic polyp", "right lung"} <= TERMS.keys()


def _report(**more: object) -> dict[str, object]:
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    placed = displayed(np.zeros(SHAPE[::-1], np.int16), affine, code=1, name="Doe_Jane")
    volume = replace(
        placed,
        modality="CT",
        warnings=("Doe_Jane.nii.gz is odd.", "Doe 7.dcm asks for a curve."),
        frames=tuple(SourceFrame(Path(f"/home/Doe/Doe {n}.dcm"), 0) for n in (7, 8, 9)),
    )
    segment = Segment(marked(1), label="Liver", kind=TERMS["liver"].kind, algorithm="a 1")
    report = Report.of(volume, "Where?", [segment], **more)
    return json.loads(report.model_dump_json(by_alias=True))


def test_a_report_says_what_was_measured_and_where() -> None:
    box, points = Box.from_corners(1, 2, 4, 4), (Point(x=1, y=2), Point(x=3, y=3, positive=False))
    fields = _report(
        answer=(box, points),
        prompts=Prompts(box=box, points=points),
        plane=SlicePlane(index=1),
        window=(-160, 240),
        engines={"crm": "prior"},
        timings_ms={"reason_ms": 1.5},
    )
    assert fields["schema_version"] == 1
    assert fields["slice"] == {"axis": 0, "index": 1}
    assert fields["bbox"] == [1, 2, 4, 4]
    assert fields["points"] == [[1, 2], [3, 3]]
    assert fields["prompts"]["points"][1] == {"x": 3, "y": 3, "positive": False}
    geometry = fields["geometry"]
    assert geometry["spacing_mm"] == [4, 3, 2]
    assert geometry["file_axes"] == "LPS"
    assert np.allclose(np.diag(geometry["affine_ras"]), (-2, -3, 4, 1))
    assert np.allclose(np.diag(geometry["affine_lps"]), (2, 3, 4, 1))
    (finding,) = fields["findings"]
    assert finding["label"] == "Liver"
    assert finding["kind"] == ["10200004", "SCT", "Liver"]
    assert finding["measures"]["voxels"] == 20
    assert finding["measures"]["volume_ml"] == pytest.approx(20 * 24 / 1000)
    assert len(finding["mask_sha256"]) == len(fields["image_sha256"]) == 64


def test_a_report_names_no_patient_unless_asked(tmp_path: Path) -> None:
    assert "Doe" not in json.dumps(_report())
    assert _report()["warnings"] == ["The file is odd.", "The file asks for a curve."]
    assert _report(source="Doe, first visit")["source"] == "Doe, first visit"
    write_report(tmp_path / "r.json", Report.of(VOLUME, "Where?"))
    again = Report.model_validate_json((tmp_path / "r.json").read_text())
    assert again == Report.of(VOLUME, "Where?")


def test_64_bit_images_are_written(tmp_path: Path) -> None:
    array = np.full(SHAPE, 2**40, np.int64)
    for name in ("x.nii", "x.nrrd"):
        write_image(tmp_path / name, Volume(array, Grid(SHAPE, np.eye(4)), "x"))
        assert np.array_equal(read_image(tmp_path / name).array, array)
    assert nib.load(tmp_path / "x.nii").get_data_dtype() == np.int64


def test_an_axis_too_long_for_nifti_1_is_written_and_read(tmp_path: Path) -> None:
    picture = np.arange(40_000 * 2, dtype=np.uint16).reshape(2, 40_000)
    write_image(tmp_path / "a.nii", Volume(picture, plain_grid(picture.shape), "x"))
    assert isinstance(nib.load(tmp_path / "a.nii"), nib.Nifti2Image)
    assert np.array_equal(read_image(tmp_path / "a.nii").array, picture)
