"""Sends numbered datagrams, a thousand a second, at the same instants through the tunnel and over the cable.

  sender.py SOURCE SINK CABLE-SOURCE CABLE-SINK"""

import socket
import struct
import sys
import time

import delay

PORT, EVERY, SIZE = 7001, 0.001, 700


def send(addresses):
    delay.urgent()
    sockets = []
    for source, sink in (addresses[:2], addresses[2:]):
        each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        each.bind((source, 0))
        each.setblocking(False)
        sockets.append((each, (sink, PORT)))
    number, due = 0, time.monotonic()
    while True:
        datagram = struct.pack("Qd", number, time.time()).ljust(SIZE, b"\0")
        for each, sink in sockets:
            try:
                each.sendto(datagram, sink)
            except OSError:
                pass
        number += 1
        # After a stall no burst follows.
        due = max(due + EVERY, time.monotonic() - EVERY)
        time.sleep(max(0, due - time.monotonic()))


if __name__ == "__main__":
    send(sys.argv[1:])
