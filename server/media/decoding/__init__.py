"""Bytes to pixels, pixels to patches. Runs in decode workers alone."""
