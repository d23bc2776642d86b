"""Files of this machine that clients may name by a file: URL: those inside folders that the operator chose."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from server.errors import BadRequest, invalid_media
from server.media.sources import EXAMPLES, NOUNS, Local, too_large


class Folders:
    """The folders that the operator named, with all that is in them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Raises ValueError for one that is no folder."""
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"there is no folder {folder}")
        self._folders = tuple(os.path.realpath(folder) for folder in folders)

    def __bool__(self) -> bool:
        return bool(self._folders)

    def read(self, local: Local, max_bytes: int) -> bytes:
        """The content of a file. Blocking.

        Raises the kind's error: invalid_image_url where no folder is open to clients, image_file_not_found where there
        is no such file inside one (whether there is one outside is never told), image_file_too_large.
        """
        if not self._folders:
            raise invalid_media(
                local.kind,
                f"This server opens no files: send the {NOUNS[local.kind]} as a data URL, such as "
                f"{EXAMPLES[local.kind]}",
                code="invalid_image_url",
                param=local.param,
            )
        # Dots go as in any URL (RFC 3986, 5.2.4), without a look at the disk: folder/../ would tell of folders outside.
        path = os.path.normpath(local.path)
        # Judged by where it leads, before and after: a link may be changed in between.
        if not self._holds(os.path.realpath(path)):
            raise _not_found(local)
        try:
            # Without blocking, for a FIFO would wait here for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise _not_found(local) from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not self._holds(os.readlink(f"/proc/self/fd/{descriptor}")):
                raise _not_found(local)
            if status.st_size > max_bytes:
                raise too_large(local.kind, max_bytes, local.param)
            with open(descriptor, "rb", closefd=False) as file:  # refuses a directory, hence only now
                content = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
        if len(content) > max_bytes:
            raise too_large(local.kind, max_bytes, local.param)
        return content

    def _holds(self, path: str) -> bool:
        return any(os.path.commonpath((folder, path)) == folder for folder in self._folders)


def _not_found(local: Local) -> BadRequest:
    return invalid_media(
        local.kind,
        "There is no such file in the folders that this server opens to clients.",
        code="image_file_not_found",
        param=local.param,
    )
