"""The controller against a view, client and server without anything behind them; no Qt."""

import asyncio
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from napari_medreasoner.core.corrections import CORRECTIONS, Correction
from napari_medreasoner.core.errors import AnswerError, EngineError, ImageError, UnreachableError
from napari_medreasoner.core.geometry import Point, Prompts, SlicePlane
from napari_medreasoner.core.protocol import StatusEvent, ThinkEvent
from napari_medreasoner.gui.backend import LOST
from napari_medreasoner.gui.controller import Controller
from napari_medreasoner.gui.exporting import Naming
from napari_medreasoner.gui.session import Session
from napari_medreasoner.gui.target import ImageSource
from tests.gui.doubles import (
    ANSWERED,
    BOX,
    POINTS,
    FakeServer,
    FakeView,
    ManualRunner,
    answer_script,
    filled,
    prompts,
)

SHAPE = (12, 16)
VOLUME = (5, 12, 16)
A, B, C = prompts(1, 1, 5, 5), prompts(2, 1, 6, 5), prompts(3, 1, 7, 5)


class Bench:
    """Controller and doubles, ready."""

    def __init__(self, shape, plane=None):
        self.runner = ManualRunner()
        self.source = ImageSource("picture", np.arange(np.prod(shape)).reshape(shape), rgb=False)
        self.view = FakeView(self.source, plane)
        self.server = FakeServer()
        self.client = self.server.fake
        self.session = Session()
        self.controller = Controller(self.session, self.view, self.runner, self.server)

    @property
    def document(self):
        return self.session.document

    @property
    def mask(self):
        return self.document.mask.compose()

    def correct(self, wanted, plane=None, *, final=True):
        self.controller.correct(self.source, wanted, plane, final=final)

    def settle(self):
        self.runner.settle()

    def ask(self, question="where?"):
        self.controller.ask(question, "CT")
        self.settle()


@pytest.fixture
def bench():
    bench = Bench(SHAPE)
    yield bench
    bench.runner.close()


@pytest.fixture
def volume():
    bench = Bench(VOLUME, SlicePlane(axis=0, index=2))
    yield bench
    bench.runner.close()


def test_an_answer_becomes_trace_prompts_and_mask(bench):
    bench.ask("  where? ")
    assert bench.client.asked == [("where?", "CT")]
    assert bench.document.trace == "I see."
    assert bench.view.prompts == (ANSWERED, None)
    assert np.array_equal(bench.mask, filled(SHAPE, ANSWERED))
    assert np.array_equal(bench.view.pixels, bench.mask)
    assert bench.document.score == 0.9
    assert bench.session.latency_ms == 25
    assert bench.session.error == ""
    assert not bench.session.asking


def test_the_trace_streams(bench):
    gate = asyncio.Event()
    bench.client.script = [ThinkEvent(text="one "), gate, *answer_script(SHAPE, "two")]
    bench.ask()
    assert bench.document.trace == "one "
    assert bench.session.asking
    gate.set()
    bench.settle()
    assert bench.document.trace == "one two"


@pytest.mark.parametrize(("question", "fault"), [("  ", None), ("where?", "There is no image.")])
def test_what_cannot_be_asked_is_said_and_nothing_starts(bench, question, fault):
    bench.view.fault = ImageError(fault) if fault else None
    bench.controller.ask(question)
    assert bench.session.error == (fault or bench.session.error)
    assert bench.session.error.endswith(".")
    bench.settle()
    assert bench.server.starts == 0


def test_stop_keeps_the_partial_trace(bench):
    bench.client.script = [ThinkEvent(text="half "), asyncio.Event()]
    bench.ask()
    bench.controller.stop()
    assert not bench.session.asking
    assert (bench.document.trace, bench.document.ending) == ("half ", "stopped")
    bench.settle()
    assert bench.session.status == "Stopped."


def test_a_refusal_is_told_and_the_old_prompts_stay(bench):
    bench.ask()
    bench.client.script = [ThinkEvent(text="Hm. "), AnswerError("I cannot see a heart.")]
    bench.ask("heart?")
    assert bench.session.error == "I cannot see a heart."
    assert bench.document.prompts == ANSWERED
    assert bench.mask.any()
    assert bench.document.ending == "no answer"


def test_a_drag_segments_live_and_is_one_step(bench):
    bench.ask()
    for step in (A, B):
        bench.correct(step, final=False)
        bench.settle()
        assert np.array_equal(bench.view.pixels, filled(SHAPE, step))
    bench.correct(C)
    bench.settle()
    bench.controller.undo()
    bench.settle()
    assert bench.document.prompts == ANSWERED
    assert np.array_equal(bench.view.pixels, filled(SHAPE, ANSWERED))


def test_the_newest_correction_wins(bench):
    bench.client.held = True
    bench.correct(A, final=False)
    bench.settle()
    for step in (B, B, C):
        bench.correct(step, final=step is C)
    bench.settle()
    assert [wanted for wanted, _ in bench.client.wanted] == [A]
    bench.client.release()
    bench.settle()
    assert [wanted for wanted, _ in bench.client.wanted] == [A, C]
    assert bench.document.stale
    assert bench.document.prompts == C
    bench.client.release()
    bench.settle()
    assert not bench.document.stale
    assert np.array_equal(bench.mask, filled(SHAPE, C))
    assert not bench.session.segmenting


def test_a_reply_later_than_an_undo_is_dropped(bench):
    bench.ask()
    bench.client.held = True
    bench.correct(A)
    bench.settle()
    bench.controller.undo()
    bench.client.release()
    bench.settle()
    assert bench.document.prompts == ANSWERED
    assert np.array_equal(bench.view.pixels, filled(SHAPE, ANSWERED))


def test_redo_of_a_correction_without_its_mask_segments_again(bench):
    bench.ask()
    bench.client.held = True
    bench.correct(A)
    bench.settle()
    bench.controller.undo()
    bench.client.held = False
    bench.controller.redo()
    bench.settle()
    assert np.array_equal(bench.view.pixels, filled(SHAPE, A))
    assert not bench.document.stale


def test_a_correction_ends_the_question_under_way(bench):
    gate = asyncio.Event()
    bench.client.script = [ThinkEvent(text="half "), gate, *answer_script(SHAPE, "rest")]
    bench.ask()
    bench.correct(A)
    gate.set()
    bench.settle()
    assert bench.document.prompts == A
    assert bench.document.ending == "stopped"


def test_deleting_the_last_prompt_empties_the_mask(bench):
    bench.ask()
    bench.correct(Prompts())
    bench.settle()
    assert not bench.mask.any()
    assert not bench.view.pixels.any()


def test_negative_points_alone_are_said_and_change_no_mask(bench):
    bench.ask()
    bench.correct(Prompts(points=(Point(x=1, y=1, positive=False),)))
    bench.settle()
    assert "no positive point" in bench.session.error
    assert bench.mask.any()


def test_a_failing_correction_keeps_prompts_and_mask(bench):
    bench.ask()
    bench.client.fault = ValueError("bug")
    bench.correct(A)
    bench.settle()
    assert "ValueError" in bench.session.error
    assert bench.document.prompts == A
    assert bench.document.stale
    assert np.array_equal(bench.mask, filled(SHAPE, ANSWERED))


def test_a_brush_stroke_is_kept_against_a_late_reply_and_undone(bench):
    bench.ask()
    bench.client.held = True
    bench.correct(A)
    bench.settle()
    bench.controller.painting(bench.source)
    bench.view.pixels[0, 15] = 1
    bench.controller.painted(bench.source, None)
    bench.client.release()
    bench.settle()
    assert bench.mask[0, 15]
    assert bench.view.pixels[0, 15]
    bench.controller.undo()
    bench.settle()
    assert not bench.view.pixels[0, 15]
    bench.controller.redo()
    bench.settle()
    assert bench.view.pixels[0, 15]


def slices_with_mask(bench):
    return np.flatnonzero(bench.view.pixels.any(axis=(1, 2))).tolist()


def test_growing_fills_the_volume_and_is_one_step(volume):
    volume.ask()
    before = volume.document
    volume.controller.grow()
    volume.settle()
    here = SlicePlane(axis=0, index=2)
    area = filled(SHAPE, ANSWERED).sum()
    assert volume.client.grown == [(ANSWERED, here, (0, 4), area)]
    assert volume.view.pixels.all(axis=0).any()
    assert np.array_equal(volume.view.pixels, volume.mask)
    assert volume.session.status == "Done: 5 slices."
    volume.controller.undo()
    volume.settle()
    assert volume.document == before
    assert slices_with_mask(volume) == [2]


def test_slices_are_drawn_as_they_come_and_stay_when_growth_is_stopped(volume):
    volume.ask()
    volume.client.held = True
    volume.controller.grow()
    volume.settle()
    assert slices_with_mask(volume) == [1, 2]
    assert volume.session.segmenting
    volume.controller.stop()
    volume.settle()
    assert not volume.session.segmenting
    assert slices_with_mask(volume) == [1, 2]
    assert np.array_equal(volume.view.pixels, volume.mask)


def test_growth_keeps_to_its_range_and_empties_what_the_structure_does_not_reach(volume):
    volume.ask()
    volume.controller.grow()
    volume.settle()
    volume.client.ended = {3}
    volume.controller.grow(range(1, 4))
    volume.settle()
    assert volume.client.grown[-1][2] == (1, 3)
    assert slices_with_mask(volume) == [0, 1, 2, 4]
    assert np.array_equal(volume.view.pixels, volume.mask)


def test_growth_starts_from_the_slice_that_was_painted_on(volume):
    volume.ask()
    here = SlicePlane(axis=0, index=1)
    volume.controller.painting(volume.source)
    volume.controller._cases.of(volume.source).canvas.pixels[1, 0, :5] = 1
    volume.controller.painted(volume.source, here)
    volume.settle()
    volume.controller.grow()
    volume.settle()
    assert volume.client.grown == [(Prompts(), here, (0, 4), 5)]
    assert volume.view.pixels[3, 0, :5].all()
    volume.correct(A, SlicePlane(axis=0, index=3))
    volume.settle()
    volume.controller.grow()
    volume.settle()
    assert volume.client.grown[-1][:2] == (A, SlicePlane(axis=0, index=3))


def test_doubtful_slices_are_named_until_the_next_answer(volume):
    volume.ask()
    volume.client.unsure = {0}
    volume.controller.grow()
    volume.settle()
    assert volume.document.doubtful == (SlicePlane(axis=0, index=0),)
    assert "check 1 doubtful" in volume.session.status
    volume.ask()
    assert volume.document.doubtful == ()


def test_growth_that_fails_says_so_and_keeps_what_came(volume):
    volume.ask()
    volume.client.fault = EngineError("The segmenter failed.")
    volume.controller.grow()
    volume.settle()
    assert volume.session.error == "The segmenter failed."
    assert volume.session.status.startswith("Growth ended early")
    assert slices_with_mask(volume) == [2]


def test_added_clicks_refine_the_mask_and_anything_else_starts_afresh(volume):
    volume.ask()
    here = SlicePlane(axis=0, index=2)
    clicked = Prompts(box=BOX, points=(*POINTS, Point(x=1, y=1, positive=False)))
    volume.correct(clicked, here)
    volume.settle()
    volume.correct(A, here)
    volume.settle()
    assert [how for _, how in volume.client.wanted] == ["refine", "slice"]


def test_a_correction_after_growing_changes_its_slice_only(volume):
    volume.ask()
    volume.controller.grow()
    volume.settle()
    volume.correct(A, SlicePlane(axis=0, index=3))
    volume.settle()
    assert np.array_equal(volume.view.pixels[3], filled(SHAPE, A))
    assert np.array_equal(volume.view.pixels[1], filled(SHAPE, ANSWERED))
    assert np.array_equal(volume.view.pixels, volume.mask)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_question_on_a_sagittal_or_coronal_slice(axis):
    bench = Bench((12, 12, 16), SlicePlane(axis=axis, index=4))
    bench.ask()
    plane = SlicePlane(axis=axis, index=4)
    assert np.array_equal(
        plane.cut(bench.view.pixels), filled(plane.cut(bench.mask).shape, ANSWERED)
    )
    assert bench.view.pixels.sum() == plane.cut(bench.view.pixels).sum()
    bench.runner.close()


def test_growing_needs_a_volume_and_prompts(bench, volume):
    volume.controller.grow()
    assert "draw a box" in volume.session.error
    bench.ask()
    bench.controller.grow()
    assert "one slice only" in bench.session.error


def test_images_have_documents_of_their_own(bench):
    bench.ask()
    other = ImageSource("other", np.zeros(SHAPE), rgb=False)
    bench.controller.choose(other)
    assert bench.document.trace == ""
    assert not bench.session.can_undo
    bench.controller.choose(bench.source)
    assert bench.document.trace == "I see."
    assert bench.session.can_undo
    bench.controller.forget(bench.source)
    assert bench.document is None


def test_a_dead_backend_keeps_everything_and_a_restart_goes_on(bench):
    bench.ask()
    bench.client.fault = UnreachableError("The backend went away.")
    bench.correct(A)
    bench.settle()
    assert bench.session.backend == "lost"
    assert bench.session.error == LOST
    assert (bench.document.trace, bench.document.prompts) == ("I see.", A)
    assert bench.mask.any()
    bench.client.fault = None
    bench.controller.restart_backend()
    bench.settle()
    assert bench.session.backend == "ready"
    assert bench.session.error == ""
    assert np.array_equal(bench.mask, filled(SHAPE, A))


def test_a_backend_that_dies_idle_is_noticed_and_not_restarted_silently(bench):
    bench.ask()
    bench.server.die()
    bench.settle()
    assert bench.session.backend == "lost"
    bench.correct(A)
    bench.settle()
    assert (bench.server.starts, bench.session.error) == (1, LOST)


def test_a_stream_cut_off_is_marked_interrupted(bench):
    bench.client.script = [ThinkEvent(text="half "), UnreachableError("gone.")]
    bench.ask()
    assert (bench.document.trace, bench.document.ending) == ("half ", "interrupted")
    assert bench.session.backend == "lost"


def test_a_backend_that_cannot_start_says_why(bench):
    bench.server.fault = UnreachableError("The backend did not start: no engine.")
    bench.ask()
    assert bench.session.error == "The backend did not start: no engine."
    assert bench.session.backend == "lost"


def test_the_backend_starts_on_first_need_and_once(bench):
    bench.settle()
    assert bench.server.starts == 0
    bench.ask()
    bench.correct(A)
    bench.settle()
    assert bench.server.starts == 1
    bench.runner.loop.run_until_complete(bench.controller.close())
    assert bench.server.stops == 1


def test_the_stage_is_told(bench):
    bench.client.script = [StatusEvent(stage="waiting"), asyncio.Event()]
    bench.ask()
    assert bench.session.status == "Waiting for the model…"


def test_an_export_is_the_document_on_the_image_grid(volume, tmp_path):
    volume.controller.export(tmp_path / "no.nii.gz", Naming())
    assert "no mask yet" in volume.session.error
    volume.ask()
    path = tmp_path / "mask.nii.gz"
    volume.controller.export(path, Naming())
    volume.settle()
    assert volume.session.status == f"Saved {path}"
    saved = np.asanyarray(nib.load(path).dataobj)
    assert np.array_equal(saved.transpose(2, 1, 0) > 0, volume.mask)
    volume.controller.export(tmp_path / "missing" / "mask.nii.gz", Naming())
    volume.settle()
    assert "cannot be written" in volume.session.error


def test_a_template_file_is_read_or_refused(bench, tmp_path):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('name = "Mine"\nuser = "$question"')
    loaded = []
    bench.controller.load_template(good, loaded.append)
    bench.controller.load_template(bad, loaded.append)
    bench.settle()
    assert [template.name for template in loaded] == ["Mine"]
    assert "bad.toml" in bench.session.error


def test_the_controller_needs_no_qt():
    code = (
        "import napari_medreasoner.gui.controller, sys; print({'qtpy','napari'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_another_backend_is_turned_to_and_everything_made_stays(volume):
    volume.ask()
    before = volume.document
    other = FakeServer()
    volume.controller.consent = True
    volume.controller.use_backend(other)
    volume.settle()
    assert volume.server.stops == 1
    assert other.running
    assert volume.session.engines == "seer + cutter · cpu"
    assert volume.document == before
    volume.ask()
    assert other.fake.consents == [True]
    assert volume.client.consents == [False]


def test_a_backend_that_cannot_be_reached_is_told_and_can_be_changed(volume):
    volume.ask()
    other = FakeServer()
    other.fault = UnreachableError("Nobody answers.")
    volume.controller.use_backend(other)
    volume.settle()
    assert volume.session.error == "Nobody answers."
    volume.controller.use_backend(FakeServer())
    volume.settle()
    assert volume.session.backend == "ready"


def test_a_corrected_finding_becomes_a_line_of_a_log(volume, tmp_path):
    volume.ask()
    here = SlicePlane(axis=0, index=2)
    volume.correct(A, here)
    volume.settle()
    volume.controller.keep_for_training(tmp_path / "log")
    volume.settle()
    assert volume.session.status == f"Saved {tmp_path / 'log'}"
    (line,) = (tmp_path / "log" / CORRECTIONS).read_text().splitlines()
    kept = Correction.model_validate_json(line)
    assert (kept.question, kept.trace, kept.modality) == ("where?", "I see.", "CT")
    assert (kept.proposed, kept.final) == (ANSWERED, A)
    assert np.array_equal(kept.mask.unpack(), filled(SHAPE, A))
    assert (tmp_path / "log" / kept.image).exists()


def test_nothing_is_kept_without_a_mask_where_it_was_asked(volume, tmp_path):
    volume.controller.keep_for_training(tmp_path / "log")
    assert "no mask yet" in volume.session.error
    volume.ask()
    volume.controller.painting(volume.source)
    volume.controller._cases.of(volume.source).canvas.pixels[2] = 0
    volume.controller.painted(volume.source, SlicePlane(axis=0, index=2))
    volume.settle()
    volume.controller.keep_for_training(tmp_path / "log")
    volume.settle()
    assert "nothing was kept" in volume.session.error
    assert not (tmp_path / "log").exists()
