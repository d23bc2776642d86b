"""Names for prepared pictures: equal names mean equal patches, for the same tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blake3 import blake3

from server.media.workers.jobs import Job, PagesJob

_CONTEXT = "ain-server 2026-11 prepared media 3"
"""Separates these digests from all others (BLAKE3's key derivation). Change it whenever the same job and the same bytes
would give other patches."""


def digest_of(job: Job, pieces: Sequence[bytes], tenant: str) -> str:
    """64 hex digits that cover the files' bytes (one file after the other, in pieces of any length), everything that
    decides how they are cut, and the tenant.

    Files count as they came: the same picture in base64 and as fetched bytes has two names, which costs a second
    decoding and nothing else. Releases the GIL for large files.
    """
    # Where it stands in the request, and how much room is left there, changes no patch.
    secret = job.password if isinstance(job, PagesJob) else None  # in no representation, such as that of the job
    header = repr((tenant, replace(job, param="", max_tokens=0), secret)).encode("utf-8", "surrogatepass")
    digest = blake3(b"%d:" % len(header) + header, derive_key_context=_CONTEXT)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
