"""What a replica in lock-step and its referee tell each other, and the replica's end of the line.

Every message has one size, each way. A replica reports its events, thread by thread; the referee
acknowledges those that both replicas have, and ends what has come apart.
"""

from __future__ import annotations

import hashlib
import socket
import struct

# From a replica: what it is, the number of a thread, a key, a signature.
REPORT = struct.Struct("<c3xI8s16s")
# To a replica: what it is, the number of a thread, how many events of it.
ORDER = struct.Struct("<c3xIQ")

# A thread's number stands for the name whose digest is in place of a signature.
THREAD = b"T"
EVENT = b"E"
# The thread waits until events of it are acknowledged.
WAITS = b"W"
# Nothing more follows, and what is kept will be until an order comes.
DONE = b"F"
# The trace is whole, and holds the event that was asked for.
KEPT = b"K"

# Both have the first events of this thread, with the same digests.
MATCHED = b"A"
# The event of this thread after so many others differs: keep it and stop.
STOP = b"S"
# Go on alone: nothing is compared any more.
FREE = b"R"

# Signature of an event that says nothing.
SILENT = bytes(16)


def name_of(thread: str) -> bytes:
    """What stands for a thread's name."""
    return hashlib.blake2b(thread.encode(), digest_size=16).digest()


class Link:
    """A replica's end: `tell` and `orders`, from any of its threads, one at a time.

    Once the referee is gone, as after `close`, it is not `open`, and nothing is told or ordered.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # It was inherited; what the program starts has no part in it.
        self._socket.set_inheritable(False)
        self._socket.settimeout(None)
        self._rest = b""
        self.open = True

    def thread(self, number: int, name: str) -> None:
        """Tell what a thread's number stands for."""
        self._send(REPORT.pack(THREAD, number, bytes(8), name_of(name)))

    def events(self, events: list[tuple[int, bytes, bytes]]) -> None:
        """Tell of events: thread, key and signature of each."""
        self._send(b"".join(REPORT.pack(EVENT, *event) for event in events))

    def waits(self, number: int) -> None:
        """Tell that a thread waits."""
        self._send(REPORT.pack(WAITS, number, bytes(8), SILENT))

    def done(self) -> None:
        """Tell that nothing follows."""
        self._send(REPORT.pack(DONE, 0, bytes(8), SILENT))

    def kept(self) -> None:
        """Tell that the trace is whole."""
        self._send(REPORT.pack(KEPT, 0, bytes(8), SILENT))

    def orders(self, *, wait: bool) -> list[tuple[bytes, int, int]]:
        """What was ordered since the last call; with `wait` at least one order, while `open`.

        The wait ends with the referee, which has a limit of its own for it.
        """
        while self.open:
            try:
                data = self._socket.recv(1 << 14, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return []
            except OSError:
                data = b""
            if not data:
                self.close()
                return []
            data = self._rest + data
            whole = len(data) - len(data) % ORDER.size
            self._rest = data[whole:]
            if whole or not wait:
                return list(ORDER.iter_unpack(data[:whole]))
        return []

    def close(self) -> None:
        """Have no part in it any more."""
        self.open = False
        self._socket.close()

    def _send(self, data: bytes) -> None:
        if not self.open:
            return
        try:
            # A program may have given SIGPIPE its default back.
            self._socket.sendall(data, socket.MSG_NOSIGNAL)
        except OSError:
            self.close()
