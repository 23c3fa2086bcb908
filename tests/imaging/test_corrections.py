"""The correction log: whole lines, old ones kept, torn ones closed."""

import numpy as np
import pytest

from napari_medreasoner.core.corrections import CORRECTIONS, Correction
from napari_medreasoner.core.errors import ExportError
from napari_medreasoner.core.geometry import Prompts
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.imaging.writers.corrections import append_correction

MASK = PackedMask.pack(np.ones((2, 3), np.bool_))


def correction(name):
    return Correction(id=name, image=f"{name}.png", question="where?", final=Prompts(), mask=MASK)


def test_lines_are_added_and_a_torn_one_is_closed(tmp_path):
    log = tmp_path / "log"
    append_correction(log, correction("a"), b"png a")
    with (log / CORRECTIONS).open("ab") as file:
        file.write(b'{"torn')
    append_correction(log, correction("b"), b"png b")
    lines = (log / CORRECTIONS).read_text().splitlines()
    assert [lines[1], len(lines)] == ['{"torn', 3]
    assert [Correction.model_validate_json(lines[n]).id for n in (0, 2)] == ["a", "b"]
    assert (log / "b.png").read_bytes() == b"png b"


def test_a_folder_that_takes_nothing_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be made"):
        append_correction(tmp_path / "file", correction("a"), b"png")
    (tmp_path / "log" / CORRECTIONS).mkdir(parents=True)
    with pytest.raises(ExportError, match="cannot be written"):
        append_correction(tmp_path / "log", correction("a"), b"png")
