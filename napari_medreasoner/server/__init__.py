"""The backend: a reasoner and a segmenter behind a local HTTP server."""
