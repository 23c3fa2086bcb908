"""Training side of napari-medreasoner; not imported by the plugin or the server."""
