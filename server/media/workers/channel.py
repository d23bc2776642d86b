"""Messages with memory attached, between the server and its decode workers.

A message is one packet on a socket pair: a few hundred bytes, and descriptors of anonymous memory (memfd) with the
bulk. Pictures therefore are written once and never pickled, and memory that nobody holds any more is gone, however
a process ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

READY = b"ready"
"""A worker's first message."""
MAX_MESSAGE = 1 << 16
"""Bytes of a message; the bulk goes into memory."""
MAX_ATTACHED = 1
"""Descriptors of a message."""
DESCRIPTOR = struct.Struct("i")
"""As the kernel hands it over."""
MAPPED_BYTES = 1 << 20
"""What is smaller is copied out of its memory: a mapping takes a descriptor and one of the 65,530 mappings of a process
for as long as its array lives, and a cache holds many small pictures."""

Octets = NDArray[np.uint8]

SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
"""Memory that a worker can neither cut off under its reader nor change any more, whatever becomes of the worker."""


class ChannelClosed(Exception):
    """The other side has closed its end, or died."""


@dataclass(slots=True)
class Channel:
    """One end of a pair; messages keep their bounds and their order."""

    socket: socket.socket

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends that speak to each other."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.socket.fileno()

    def send(self, message: bytes, attached: Sequence[int] = ()) -> None:
        """Send a message with duplicates of the descriptors `attached`.

        Raises ChannelClosed, and ValueError for a message that is too large.
        """
        if len(message) > MAX_MESSAGE or len(attached) > MAX_ATTACHED:
            raise ValueError(f"a message of {len(message)} bytes and {len(attached)} descriptors is too large")
        try:
            socket.send_fds(self.socket, [message], list(attached))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error

    def receive(self) -> tuple[bytes, list[int]]:
        """The next message and its descriptors, which the caller closes.

        Raises ChannelClosed, and BlockingIOError where the socket does not block and nothing has come.
        """
        space = socket.CMSG_LEN(MAX_ATTACHED * DESCRIPTOR.size)
        try:  # not with socket.recv_fds, which drops its flags
            message, ancillary, _, _ = self.socket.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError as error:
            raise ChannelClosed from error
        # Nothing else can have come: no other kind is switched on for this socket.
        attached = [descriptor for _, _, data in ancillary for (descriptor,) in DESCRIPTOR.iter_unpack(data)]
        if not message:
            for descriptor in attached:
                os.close(descriptor)
            raise ChannelClosed
        return message, attached

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


def memory_with(pieces: Sequence[bytes]) -> int:
    """The descriptor of new memory that holds pieces of files one after the other, to be closed by the caller."""
    descriptor = os.memfd_create("ain-media", os.MFD_CLOEXEC)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def view_of(descriptor: int) -> memoryview:
    """All of the memory behind a descriptor, to read."""
    size = os.fstat(descriptor).st_size
    return memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ)) if size else memoryview(b"")


class Growing:
    """Room to write arrays into, one after the other, that is sent away once as new memory.

    What is written goes into an array of the process first, which stays for the next time, and into new memory by one
    write: a page fault for every 4 KiB of new memory costs twice as much as copying it.
    """

    _kept: Octets = np.empty(0, np.uint8)

    def __init__(self) -> None:
        self._size = 0
        self._descriptor: int | None = None

    @classmethod
    def forget(cls) -> None:
        """Give back the array that is kept."""
        Growing._kept = np.empty(0, np.uint8)

    def append(self, size: int) -> Octets:
        """Room for `size` more bytes, to be filled before the next is asked for."""
        start, self._size = self._size, self._size + size
        if self._size > Growing._kept.size:
            larger = np.empty(self._size, np.uint8)
            larger[:start] = Growing._kept[:start]
            Growing._kept = larger
        return Growing._kept[start : self._size]

    def seal(self) -> int:
        """All of it in new memory, whose size is fixed for good; returns its descriptor.

        A reader of memory that shrinks would die of SIGBUS.
        """
        self.close()
        self._descriptor = os.memfd_create("ain-patches", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        rest = Growing._kept[: self._size].data
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, SEALED | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return self._descriptor

    def close(self) -> None:
        """Let go of it; what was sent away stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def sealed_array(descriptor: int, size: int) -> Octets:
    """The first `size` bytes that a worker wrote, large ones without a copy; writing to them is seen by nobody else.

    Raises ValueError where the memory is smaller or could still change, and where the descriptor is none of memory: its
    sender is not to be trusted.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        if seals & SEALED == SEALED and os.fstat(descriptor).st_size >= size:
            if size >= MAPPED_BYTES:
                return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY), np.uint8)
            array = np.empty(size, np.uint8)
            os.preadv(descriptor, [array.data], 0)
            return array
    except OSError:
        pass  # it is a pipe, a socket or the like, or more than fits into our address space
    raise ValueError("the memory of a result is not sealed, or too small")
