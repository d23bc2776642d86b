"""Workers that do as they are told, for tests of the pool."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from server.media.workers.channel import READY, Channel, ChannelClosed, Growing, view_of


def obedient(channel: Channel) -> None:
    """Does what the message says: echo, pid, hang, burn, die, kill, slow."""
    channel.send(READY)
    while True:
        try:
            message, files = channel.receive()
        except ChannelClosed:
            return
        command, _, rest = message.decode().partition(" ")
        if command == "echo":
            content = bytes(view_of(files[0])) if files else b""
            memory = Growing()
            memory.append(len(content) or 1)[: len(content)] = list(content)
            channel.send(rest.encode() or b"-", [memory.seal()])
            memory.close()
        elif command == "pid":
            channel.send(str(os.getpid()).encode())
        elif command == "slow":
            time.sleep(float(rest))
            channel.send(b"done")
        elif command == "hang":
            time.sleep(3600)
        elif command == "burn":
            while True:
                pass
        elif command == "die":
            os._exit(3)
        elif command == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Unwilling:
    """Ends before it is ready when it is started for the first time."""

    flag: str

    def __call__(self, channel: Channel) -> None:
        if Path(self.flag).exists():
            obedient(channel)
        Path(self.flag).touch()
