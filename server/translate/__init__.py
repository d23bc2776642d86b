"""Wire to core on the way in, events to wire on the way out. Only `sse.py` writes `data:`."""
