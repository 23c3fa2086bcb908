"""Histories and masks of any sequence of actions, compared with plain snapshots; no Qt."""

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medreasoner.core.geometry import Box, Point, Prompts, SlicePlane
from napari_medreasoner.core.masks import PackedMask
from napari_medreasoner.gui.controller import Controller
from napari_medreasoner.gui.history import History
from napari_medreasoner.gui.session import MaskStack, Session
from napari_medreasoner.gui.target import ImageSource
from tests.gui.doubles import FakeServer, FakeView, ManualRunner

SHAPE = (4, 12, 16)


def test_history_forgets_what_was_undone_once_something_new_happens():
    history = History()
    history.record("a")
    assert history.undo("b") == "a"
    assert history.redo("a") == "b"
    assert history.undo("b") == "a"
    history.record("a")
    assert history.can_undo
    assert not history.can_redo


planes = st.builds(SlicePlane, axis=st.integers(0, 2), index=st.integers(0, 3))


@given(st.lists(st.tuples(st.none() | planes, st.integers(0, 2**32 - 1)), max_size=8))
def test_a_mask_stack_is_the_array_it_stands_for(parts):
    stack, expected = MaskStack(SHAPE), np.zeros(SHAPE, bool)
    for plane, seed in parts:
        view = expected if plane is None else plane.cut(expected)
        view[...] = np.random.default_rng(seed).random(view.shape) > 0.5
        stack = stack.with_part(plane, PackedMask.pack(np.ascontiguousarray(view)))
    assert np.array_equal(stack.compose(), expected)
    assert stack.is_empty == (not parts)


boxes = st.builds(
    lambda x, y, w, h: Box.from_corners(x, y, x + w, y + h),
    st.integers(0, 3), st.integers(0, 1), st.integers(1, 4), st.integers(1, 3),
)  # fmt: skip
points = st.builds(Point, x=st.integers(0, 3), y=st.integers(0, 3), positive=st.booleans())
corrections = st.builds(
    Prompts, box=st.none() | boxes, points=st.lists(points, max_size=3).map(tuple)
)
actions = st.one_of(
    st.just(("ask",)),
    st.just(("grow",)),
    st.tuples(st.just("drag"), st.lists(corrections, min_size=1, max_size=3), planes),
    st.tuples(st.just("paint"), planes),
)


def run(controller, source, view, action):
    if action[0] == "ask":
        controller.ask("where?")
    elif action[0] == "grow":
        controller.grow()
    elif action[0] == "drag":
        for wanted in action[1]:
            controller.correct(source, wanted, action[2], final=wanted is action[1][-1])
    else:
        controller.painting(source)
        controller._cases.of(source).canvas.pixels[action[1].selector(SHAPE)] ^= 1
        controller.painted(source, action[1])


@settings(deadline=None, max_examples=40)
@given(st.lists(actions, min_size=1, max_size=6))
def test_any_actions_are_undone_and_redone_one_by_one(wanted):
    with closing(ManualRunner()) as runner:
        check(runner, wanted)


def check(runner, wanted):
    source = ImageSource("picture", np.zeros(SHAPE), rgb=False)
    view, session = FakeView(source, SlicePlane(axis=0, index=1)), Session()
    controller = Controller(session, view, runner, FakeServer())
    controller.choose(source)
    case = controller._cases.of(source)
    states = [session.document]
    for action in wanted:
        run(controller, source, view, action)
        runner.settle()
        steps = len(case.history._past)
        states[steps:] = [session.document]
        assert steps == len(states) - 1
    for undone in (True, False):
        for state in states[-2::-1] if undone else states[1:]:
            controller.undo() if undone else controller.redo()
            runner.settle()
            assert session.document == state
            assert np.array_equal(case.canvas.pixels > 0, state.mask.compose())
        assert not (session.can_undo if undone else session.can_redo)


@pytest.mark.parametrize("corrections", [200])
def test_many_corrections_take_little_memory(corrections):
    stack = MaskStack((300, 512, 512))
    plane = SlicePlane(axis=0, index=7)
    kept = []
    for step in range(corrections):
        mask = np.zeros((512, 512), bool)
        mask[100:200, step : step + 80] = True
        stack = stack.with_part(plane, PackedMask.pack(mask))
        kept.append(stack)
    assert sum(len(part.data) for old in kept for _, part in old.slices) < 500_000
