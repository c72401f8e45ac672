"""The arrivals of numbered datagrams in both directions, through the tunnel and over a cable that is never cut. The cable's gaps are the
noise of this machine. The kernel's time of arrival counts, so a receiver that waits for the processor makes no gap."""

import bisect
import os
import select
import socket
import struct
import sys
import threading
import time
from array import array

from sender import PORT
from starts import Inside
from underlay import CABLE, address

SENDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sender.py")
TIMESTAMPS, RECEIVE_BUFFER = 35, 33  # SO_TIMESTAMPNS, SO_RCVBUFFORCE


class Arrivals:
    """The datagrams that have arrived at one socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, PORT))
        self.socket.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER, 1 << 24)
        self.socket.setblocking(False)
        self.at, self.number, self.sent = array("d"), array("Q"), array("d")

    def drain(self):
        while True:
            try:
                data, control, _, _ = self.socket.recvmsg(2000, 64)
            except BlockingIOError:
                return
            seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
            number, sent = struct.unpack_from("Qd", data)
            self.number.append(number)
            self.sent.append(sent)
            self.at.append(seconds + nanoseconds / 1e9)

    def between(self, since, until):
        """Indices of those that arrived in this time, and of one before."""
        return max(0, bisect.bisect_left(self.at, since) - 1), bisect.bisect_right(self.at, until)

    def gap(self, since, until):
        """The longest time without an arrival; a time that has not ended by `until` counts to there."""
        first, end = self.between(since, until)
        at = list(self.at[first:end]) or [since]
        return max(after - before for before, after in zip(at, at[1:] + [until]))

    def sent_after(self, moment):
        """Whether a datagram that was sent after this moment has arrived."""
        return len(self.sent) > 0 and max(self.sent[-64:]) > moment

    def faults(self, since, until):
        """How many of those sent in this time are lost, came twice, and came after a later one. All must have arrived by now."""
        first, _ = self.between(since - 1, since)
        numbers = [number for number, sent in zip(self.number[first:], self.sent[first:]) if since <= sent <= until]
        if not numbers:
            return None
        lost = max(numbers) - min(numbers) + 1 - len(set(numbers))
        late, highest = 0, -1
        for number in numbers:
            late += number < highest
            highest = max(highest, number)
        return lost, len(numbers) - len(set(numbers)), late


class Streams:
    """Both directions; `tunnel[direction]` and `cable[direction]` have the arrivals."""

    def __init__(self, place):
        self.tunnel, self.cable, self.senders, self.ended = [], [], [], False
        for direction, (source, sink) in enumerate((place.sites, place.sites[::-1])):
            inner, outer = ([f"10.8.0.{site.number}" for site in (source, sink)],
                            [address(CABLE, site.number) for site in (source, sink)])
            with Inside(sink):
                self.tunnel.append(Arrivals(inner[1]))
                self.cable.append(Arrivals(outer[1]))
            self.senders.append(source.start([sys.executable, SENDER, *inner, *outer]))
        self.all = self.tunnel + self.cable
        self.thread = threading.Thread(target=self.drain, daemon=True)
        self.thread.start()

    def drain(self):
        while not self.ended:
            select.select([each.socket for each in self.all], [], [], 0.1)
            for each in self.all:
                each.drain()
            time.sleep(0.004)

    def begin(self, limit=10):
        """Waits until datagrams arrive everywhere."""
        end = time.monotonic() + limit
        while not all(len(each.at) > 50 for each in self.all):
            if time.monotonic() > end:
                raise RuntimeError("the numbered streams do not arrive")
            time.sleep(0.05)

    def stop(self):
        for sender in self.senders:
            sender.kill()
            sender.wait()
        self.ended = True
        self.thread.join()
        for each in self.all:
            each.socket.close()

