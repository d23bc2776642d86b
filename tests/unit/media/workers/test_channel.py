"""Messages with memory attached, between this process and others, some of which mean harm."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.media.workers.channel import (
    MAPPED_BYTES,
    MAX_MESSAGE,
    Channel,
    ChannelClosed,
    Growing,
    memory_with,
    sealed_array,
    view_of,
)

pytestmark = pytest.mark.timeout(30)

HOUSE = Path(__file__).parents[4]
LARGE = 2 * MAPPED_BYTES + 1
SIZES = (4, MAPPED_BYTES - 1, MAPPED_BYTES, LARGE)
Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = Channel.pair()
    yield ends
    for end in ends:
        end.close()


def written(*arrays: bytes) -> Growing:
    """Memory of a worker that holds these, one after the other."""
    memory = Growing()
    for array in arrays:
        memory.append(len(array))[:] = np.frombuffer(array, np.uint8)
    return memory


# ---- Messages ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
def test_messages_keep_their_bounds_and_their_order(messages: list[bytes]) -> None:
    one, other = Channel.pair()
    try:
        for message in messages:
            one.send(message)
        assert [other.receive() for _ in messages] == [(message, []) for message in messages]
    finally:
        one.close()
        other.close()


def test_both_ends_send_and_receive(pair: Pair) -> None:
    one, other = pair
    one.send(b"question")
    other.send(b"answer")
    assert (one.receive()[0], other.receive()[0]) == (b"answer", b"question")


def test_the_bound_of_a_message_is_exact(pair: Pair) -> None:
    one, other = pair
    one.send(bytes(MAX_MESSAGE))
    assert other.receive() == (bytes(MAX_MESSAGE), [])
    with pytest.raises(ValueError, match="too large"):
        one.send(bytes(MAX_MESSAGE + 1))


def test_a_message_carries_one_descriptor(pair: Pair) -> None:
    one, _ = pair
    memory = memory_with([b"x"])
    with pytest.raises(ValueError, match="too large"):
        one.send(b"two", [memory, memory])
    os.close(memory)


def test_a_channel_that_does_not_block_says_that_nothing_has_come(pair: Pair) -> None:
    one, other = pair
    other.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.receive()
    one.send(b"now")
    assert other.receive() == (b"now", [])


# ---- Ends -------------------------------------------------------------------------------------------


def test_what_was_sent_before_the_end_still_arrives(pair: Pair) -> None:
    one, other = pair
    one.send(b"last words")
    one.close()
    assert other.receive() == (b"last words", [])
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            other.receive()


def test_nothing_can_be_sent_to_a_closed_end(pair: Pair) -> None:
    one, other = pair
    other.close()
    for _ in range(2):
        with pytest.raises(ChannelClosed):
            one.send(b"anybody there?")


def test_an_end_that_was_closed_before_it_read_everything_counts_as_closed(pair: Pair) -> None:
    one, other = pair
    one.send(b"unread")
    other.close()
    with pytest.raises(ChannelClosed):
        one.receive()


# ---- Memory for a worker ----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_memory_holds_files_one_after_the_other(files: list[bytes]) -> None:
    memory = memory_with(files)
    try:
        assert view_of(memory).tobytes() == b"".join(files)
    finally:
        os.close(memory)


def test_a_view_outlives_the_descriptor_and_cannot_be_written_to() -> None:
    memory = memory_with([b"page"])
    view = view_of(memory)
    os.close(memory)
    assert view == b"page"
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 0
    view.release()


def test_memory_arrives_with_the_message_and_outlives_the_sender(pair: Pair) -> None:
    one, other = pair
    memory = memory_with([b"page"])
    one.send(b"here", [memory])
    os.close(memory)
    one.close()
    message, (received,) = other.receive()
    assert (message, view_of(received).tobytes()) == (b"here", b"page")
    assert not os.get_inheritable(received)
    os.close(received)


# ---- Memory from a worker ---------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=5))
def test_arrays_are_written_one_after_the_other(arrays: list[bytes]) -> None:
    memory = written(*arrays)
    try:
        whole, descriptor = b"".join(arrays), memory.seal()
        assert sealed_array(descriptor, len(whole)).tobytes() == whole
        assert sealed_array(descriptor, 1).tobytes() == whole[:1]
    finally:
        memory.close()


def test_what_was_written_before_stays_when_the_room_grows() -> None:
    Growing.forget()
    memory = Growing()
    memory.append(5)[:] = 1
    memory.append(LARGE)[:] = 2
    assert sealed_array(memory.seal(), LARGE + 5).tobytes() == bytes([1]) * 5 + bytes([2]) * LARGE
    memory.close()


def test_one_memory_holds_nothing_of_another() -> None:
    """They are written in the same place, one after the other."""
    first = written(b"first")
    one = sealed_array(first.seal(), 5)
    second = written(b"2nd")
    assert sealed_array(second.seal(), 3).tobytes() == b"2nd"
    with pytest.raises(ValueError, match="too small"):
        sealed_array(second.seal(), 4)
    assert one.tobytes() == b"first"
    first.close()
    second.close()


def test_sealed_memory_can_be_changed_by_nobody() -> None:
    """Not even by its writer, whom a hostile file may have taken over."""
    memory = written(b"page")
    descriptor = memory.seal()
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 4)
    memory.close()


def test_a_sealed_size_stays_as_it_is() -> None:
    memory = written(b"page")
    descriptor = memory.seal()
    for size in (0, 3, 5):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    memory.close()


@pytest.mark.parametrize("size", SIZES)
def test_what_a_reader_writes_is_seen_by_nobody_else(size: int) -> None:
    memory = written(b"x" * size)
    descriptor = memory.seal()
    one, other = sealed_array(descriptor, size), sealed_array(descriptor, size)
    one[:] = 0
    assert other.tobytes() == b"x" * size == sealed_array(descriptor, size).tobytes()
    memory.close()


@pytest.mark.parametrize("size", SIZES)
def test_an_array_outlives_the_memory_that_it_came_in(size: int) -> None:
    memory = written(b"x" * size)
    array = sealed_array(memory.seal(), size)
    memory.close()
    assert array.tobytes() == b"x" * size
    del array  # and with it the mapping


def test_many_small_arrays_hold_no_descriptors() -> None:
    memory = written(b"page")
    descriptor = memory.seal()
    before = len(os.listdir("/proc/self/fd"))
    arrays = [sealed_array(descriptor, 4) for _ in range(100)]
    assert len(os.listdir("/proc/self/fd")) == before
    memory.close()
    assert all(array.tobytes() == b"page" for array in arrays)


def _unsealed() -> int:
    descriptor = os.memfd_create("page", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"page")
    return descriptor


def _sealed_against_growth_only() -> int:
    descriptor = os.memfd_create("page", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"page")
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return descriptor


def _too_small() -> int:
    return _sealed(written(b"pag"))


def _empty() -> int:
    return _sealed(Growing())


def _sealed(memory: Growing) -> int:
    descriptor = os.dup(memory.seal())
    memory.close()
    return descriptor


def _pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def _socket() -> int:
    return socket.socket().detach()


def _file() -> int:
    return os.open(__file__, os.O_RDONLY)


def _device() -> int:
    return os.open("/dev/zero", os.O_RDONLY)


@pytest.mark.parametrize(
    "sent",
    [_unsealed, _sealed_against_growth_only, _too_small, _empty, _pipe, _socket, _file, _device],
    ids=lambda sent: sent.__name__.strip("_"),
)
def test_what_could_end_the_reader_is_refused(sent: Callable[[], int]) -> None:
    descriptor = sent()
    try:
        with pytest.raises(ValueError, match="not sealed, or too small"):
            sealed_array(descriptor, 4)
    finally:
        os.close(descriptor)


def test_more_than_any_memory_is_refused() -> None:
    descriptor = os.memfd_create("huge", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 60)  # takes no memory until it is written to
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    with pytest.raises(ValueError, match="not sealed, or too small"):
        sealed_array(descriptor, 1 << 60)
    os.close(descriptor)


# ---- Other processes --------------------------------------------------------------------------------

ANSWERING = """
import socket, sys
from server.media.workers.channel import Channel, Growing, view_of

channel = Channel(socket.socket(fileno=int(sys.argv[1])))
message, (descriptor,) = channel.receive()
memory = Growing()
memory.append(len(message))[:] = list(message)
memory.append(len(view_of(descriptor)))[:] = view_of(descriptor)
channel.send(b"answer", [memory.seal()])
"""


def child(code: str, channel: Channel) -> subprocess.Popen[bytes]:
    """Another Python that is told the number of a descriptor as its argument."""
    number = channel.fileno()
    return subprocess.Popen([sys.executable, "-c", code, str(number)], pass_fds=[number], cwd=HOUSE)


def test_memory_passes_to_another_process_and_back(pair: Pair) -> None:
    ours, theirs = pair
    with child(ANSWERING, theirs) as process:
        theirs.close()
        memory = memory_with([b"one page, ", b"another"])
        ours.send(b"question: ", [memory])
        os.close(memory)
        message, (answer,) = ours.receive()
        assert process.wait() == 0
    array = sealed_array(answer, 27)  # when the process that wrote it is long gone
    os.close(answer)
    assert (message, array.tobytes()) == (b"answer", b"question: one page, another")
    with pytest.raises(ChannelClosed):
        ours.receive()


def test_a_process_that_dies_has_closed_its_end(pair: Pair) -> None:
    ours, theirs = pair
    with child("import os; os.abort()", theirs):
        theirs.close()
        with pytest.raises(ChannelClosed):
            ours.receive()


# ---- Senders that mean harm -------------------------------------------------------------------------


def test_more_than_a_message_may_hold_is_cut_off(pair: Pair) -> None:
    one, other = pair
    one.socket.send(b"x" * (MAX_MESSAGE + 1000))
    one.send(b"next")
    assert len(other.receive()[0]) == MAX_MESSAGE
    assert other.receive() == (b"next", [])


def test_of_too_many_descriptors_no_more_than_one_is_taken(pair: Pair) -> None:
    one, other = pair
    memory = memory_with([b"x"])
    socket.send_fds(one.socket, [b"many"], [memory] * 50)
    os.close(memory)
    message, attached = other.receive()
    assert (message, len(attached)) == (b"many", 1)
    os.close(attached[0])


def test_an_empty_message_is_the_end_and_leaves_nothing_open(pair: Pair) -> None:
    one, other = pair
    memory = memory_with([b"x"])
    socket.send_fds(one.socket, [b""], [memory])
    os.close(memory)
    with pytest.raises(ChannelClosed):
        other.receive()
