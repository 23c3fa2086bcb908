"""The napari side: evented state and controller without Qt, layers and widget with it."""
