"""Many callers of one model: ``Batcher`` inside a process, and the server over HTTP."""
