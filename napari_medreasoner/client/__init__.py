"""Speaking to the backend: pictures, the HTTP client and the launcher of a local server."""
