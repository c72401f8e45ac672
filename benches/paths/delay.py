"""A link that delays: a process that forwards packets between two ports of the switch. Linux without netem has no other."""

import gc
import heapq
import itertools
import os
import random
import select
import signal
import socket
import time

from faults import BYTES, CUT, DROPPED, Faults, LONGEST, LOSS, PACKETS, STREAM, STREAM_LENGTHS

ALL = 0x0003
ONLY_RECEIVED = 23  # PACKET_IGNORE_OUTGOING


def urgent():
    """Runs this process before others, because its delays would be measured."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        pass


def port(interface):
    """A packet socket, in the caller's network namespace."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packets.setsockopt(263, ONLY_RECEIVED, 1)
    packets.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
    packets.bind((interface, ALL))
    packets.setblocking(False)
    return packets


def drops(way, packet):
    """Whether this packet is dropped; counts it."""
    way.add(PACKETS)
    way.add(BYTES, len(packet))
    longest = way.get(LONGEST)
    if way.get(CUT) or longest and len(packet) > longest or random.getrandbits(32) < way.get(LOSS):
        way.add(DROPPED)
        return True
    if STREAM_LENGTHS[0] <= len(packet) <= STREAM_LENGTHS[1]:
        way.add(STREAM)
    return False


def forward(ports, ways, delay, jitter):
    """Forwards for ever. Each packet waits for the delay, plus or minus up to the jitter at random, so packets overtake each other."""
    urgent()
    gc.disable()
    waiting, order = [], itertools.count()
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for ready in select.select(ports, [], [], pause)[0]:
            side = ports.index(ready)
            for _ in range(64):
                try:
                    packet = ready.recv(65600)
                except BlockingIOError:
                    break
                if not drops(ways[side], packet):
                    due = time.monotonic() + delay + random.uniform(-jitter, jitter)
                    heapq.heappush(waiting, (due, next(order), 1 - side, packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, packet = heapq.heappop(waiting)
            try:
                ports[to].send(packet)
            except OSError:
                ways[1 - to].add(DROPPED)


def start(interfaces, delay, jitter):
    """Starts the forwarder of two interfaces in the caller's network namespace: its process, and the faults each way."""
    ports, ways = [port(interface) for interface in interfaces], [Faults(), Faults()]
    process = os.fork()
    if process == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            forward(ports, ways, delay, jitter)
        finally:
            os._exit(1)
    for each in ports:
        each.close()
    return process, ways
