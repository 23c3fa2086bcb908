"""Drags and clicks on a layer, as napari's canvas reports them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)


class Mouse:
    """Works in data coordinates of a layer; the wrapper lets napari's generators see each move."""

    def __init__(self, viewer: Any, layer: Any) -> None:
        self._viewer = viewer
        self._layer = layer

    def _event(self, kind: str, place: tuple[float, ...]) -> Any:
        position = self._layer.data_to_world(place)
        event = SimpleNamespace(
            type=kind,
            position=position,
            pos=np.array(position[-2:], float),
            dims_displayed=list(self._viewer.dims.displayed),
            dims_point=list(position),
            is_dragging=kind == "mouse_move",
            modifiers=[],
            button=1,
            buttons=[1],
            handled=False,
            inverted=False,
            view_direction=None,
            up_direction=None,
            camera_zoom=1.0,
            native=None,
            delta=(0, 0),
            source=None,
            canvas_size=(500, 500),
            viewbox=None,
        )
        return ReadOnlyWrapper(event, exceptions=("handled",))

    def press(self, *place: float) -> None:
        mouse_press_callbacks(self._layer, self._event("mouse_press", place))

    def move(self, *place: float) -> None:
        mouse_move_callbacks(self._layer, self._event("mouse_move", place))

    def release(self, *place: float) -> None:
        mouse_release_callbacks(self._layer, self._event("mouse_release", place))

    def drag(self, *places: tuple[float, ...]) -> None:
        self.press(*places[0])
        for place in places[1:]:
            self.move(*place)
        self.release(*places[-1])

    def click(self, *place: float) -> None:
        self.press(*place)
        self.release(*place)
