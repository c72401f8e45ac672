"""What a path carries: a link that silently drops longer packets, and one that silently drops runs of UDP_SEGMENT."""

import math
import select
import socket
import statistics
import struct
import threading
import time

import lab
import tunnels
import underlay
from faults import DROPPED, RUNS
from starts import Inside

# The tunnel has found what the path carries by then.
SEARCH = 6
LIMIT, RATE, AMOUNT, MTU = 30, "20mbit", 1 << 20, 1280
PORT = 7002
# What applications that send with DF do after so many timeouts: QUIC's smallest datagram.
TIMEOUTS, SMALLEST, WINDOW, TIMEOUT = 3, 1200, 32, 0.2
DISCOVER, DO, PATH_MTU = 10, 2, 14  # IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU
HEADERS = 28


class Progress:
    """Arrived bytes over time."""

    def __init__(self, half_way):
        self.total, self.last, self.stall, self.half_way = 0, time.monotonic(), 0, half_way

    def add(self, length):
        now = time.monotonic()
        self.stall, self.last = max(self.stall, now - self.last), now
        if self.total < AMOUNT // 2 <= self.total + length:
            self.half_way()
        self.total += length

    def end(self, begin):
        """Seconds, longest stall, and bytes."""
        now = time.monotonic()
        if self.total < AMOUNT:
            self.stall = max(self.stall, now - self.last)
        return {"seconds": now - begin, "stall": self.stall, "bytes": self.total}


def sockets(place, kind):
    """Two sockets, at the second site and at the first."""
    ends = []
    for site in place.sites[::-1]:
        with Inside(site):
            each = socket.socket(socket.AF_INET, kind)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind((f"10.8.0.{site.number}", PORT))
        ends.append(each)
    return ends


def by_tcp(place, half_way):
    """A mebibyte from the first site to the second."""
    sink, source = sockets(place, socket.SOCK_STREAM)
    sink.listen()
    begin, progress = time.monotonic(), Progress(half_way)
    source.settimeout(LIMIT)

    def push():
        try:
            source.connect(("10.8.0.2", PORT))
            source.sendall(bytes(AMOUNT))
        except OSError:
            pass
    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    try:
        sink.settimeout(LIMIT)
        arrived, _ = sink.accept()
        while progress.total < AMOUNT and time.monotonic() < begin + LIMIT:
            arrived.settimeout(max(0.01, begin + LIMIT - time.monotonic()))
            progress.add(len(arrived.recv(65536)))
    except socket.timeout:
        pass
    found = progress.end(begin)
    # Neither waits for a connection that no segment can close.
    for each in (source, sink):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        each.close()
    thread.join(1)
    return found


def by_udp(place, half_way):
    """A mebibyte in datagrams with DF that are acknowledged one by one, as QUIC's are. It sends as much as the interface takes,
    smaller datagrams when the kernel has learned of a smaller MTU, and the smallest after some timeouts."""
    sink, source = sockets(place, socket.SOCK_DGRAM)
    for each in (sink, source):
        each.setblocking(False)
    source.setsockopt(socket.IPPROTO_IP, DISCOVER, DO)
    source.connect(("10.8.0.2", PORT))
    size = source.getsockopt(socket.IPPROTO_IP, PATH_MTU) - HEADERS
    begin, progress = time.monotonic(), Progress(half_way)
    # Pieces to send, pieces on their way with the moment of their sending, and pieces that the sink has.
    to_send, sent, has = [(0, AMOUNT)], {}, set()
    timeouts, last_answer = 0, begin
    while progress.total < AMOUNT and time.monotonic() < begin + LIMIT:
        while to_send and len(sent) < WINDOW:
            offset, length = to_send.pop()
            piece = min(length, size - 16 & ~3)
            try:
                source.send(struct.pack("QQ", offset, piece) + bytes(piece))
            except BlockingIOError:
                to_send.append((offset, length))
                break
            except OSError:
                size = min(size, source.getsockopt(socket.IPPROTO_IP, PATH_MTU) - HEADERS)
                to_send.append((offset, length))
                if size < 100:
                    break
                continue
            sent[offset] = piece, time.monotonic()
            if length > piece:
                to_send.append((offset + piece, length - piece))
        select.select([sink, source], [], [], 0.01)
        for offset, length in received(sink):
            sink.sendto(struct.pack("QQ", offset, length), ("10.8.0.1", PORT))
            # Pieces that were cut anew can overlap.
            new = set(range(offset, offset + length, 4)) - has
            has |= new
            if new:
                progress.add(min(4 * len(new), AMOUNT - progress.total))
        now = time.monotonic()
        for offset, length in received(source):
            last_answer, timeouts = now, 0
            if sent.get(offset, (0, 0))[0] == length:
                del sent[offset]
        if sent and now - max(last_answer, min(at for _, at in sent.values())) > TIMEOUT:
            last_answer, timeouts = now, timeouts + 1
            size = SMALLEST if timeouts >= TIMEOUTS else size
        for offset, (length, at) in list(sent.items()):
            if now - at > TIMEOUT:
                del sent[offset]
                to_send.append((offset, length))
    found = progress.end(begin)
    sink.close()
    source.close()
    return found


def received(each):
    """Offset and length of each piece, or of its acknowledgement."""
    while True:
        try:
            yield struct.unpack_from("QQ", each.recv(65536))
        except OSError:
            return


def transfer(tunnel, way, when):
    """One transfer over a new tunnel; the limit is told by the interface, or silent and there before it or from its middle on."""
    place = underlay.Place(paths=1, rate=RATE, mtu=MTU if when == "clean" else 1500)
    joined = None

    def limit():
        for each in place.ways[1]:
            each.pass_up_to(MTU)
    try:
        if when == "before":
            limit()
        joined = tunnels.join(place, tunnel)
        if when == "during":
            time.sleep(SEARCH)
        found = way(place, limit if when == "during" else lambda: None)
        return {**found, "dropped": sum(each.get(DROPPED) for each in place.ways[1])}
    finally:
        if joined:
            joined.stop()
        place.remove()


def over_a_silent_limit(tunnel, count):
    """Seconds of transfers that a limit costs more than a clean path, the longest stall, and how many were not whole in time."""
    found = {}
    for name, way in (("TCP", by_tcp), ("UDP", by_udp)):
        clean = statistics.median(transfer(tunnel, way, "clean")["seconds"] for _ in range(count))
        found[name] = {"clean": clean}
        for when in ("before", "during"):
            every = [transfer(tunnel, way, when) for _ in range(count)]
            found[name][when] = {
                "over": statistics.median(each["seconds"] for each in every) - clean,
                "worst": max(each["seconds"] for each in every) - clean,
                "stall": max(each["stall"] for each in every),
                "unfinished": sum(each["bytes"] < AMOUNT for each in every),
                "dropped": statistics.median(each["dropped"] for each in every),
                "least": min(each["bytes"] for each in every),
            }
    return {"count": count, "limit": LIMIT, **found}


class Rate:
    """Bytes that arrive at an interface over time, in Mbit/s."""

    def __init__(self, process, interface="eu0"):
        self.file, self.interface, self.samples = f"/proc/{process}/net/dev", interface, []

    def sample(self, seconds, every=0.05):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            line = next(line for line in open(self.file) if line.strip().startswith(self.interface + ":"))
            self.samples.append((time.monotonic(), int(line.split(":")[1].split()[0])))
            time.sleep(every)

    def between(self, since, until):
        inside = [each for each in self.samples if since <= each[0] <= until]
        if len(inside) < 2:
            return 0
        (first, before), (last, after) = inside[0], inside[-1]
        return (after - before) * 8 / 1e6 / (last - first)


def stream_over(tunnel, segment, drop_at):
    """Mbit/s of one TCP stream over time, and the moment from which runs are dropped, None for never, 0 for from the start."""
    place = underlay.Place(paths=1, card=underlay.VIRTUAL)
    joined = None
    try:
        if not segment:
            for site in place.sites:
                site.run("ethtool -K wan1 tx-udp-segmentation off")

        def drop():
            for way in place.ways[1]:
                way.set(RUNS, 1)
            return time.monotonic()
        begin = drop() if drop_at == 0 else None
        joined = tunnels.join(place, tunnel)
        listener = place.listen()
        rate = Rate(listener.pid)
        load = place.users[0].start(["iperf3", "-c", "10.8.0.2", "-t", "60"])
        started = time.monotonic()
        if drop_at == 0:
            begin = started
        elif drop_at:
            rate.sample(drop_at)
            begin = drop()
        rate.sample(15)
        for each in (load, listener):
            each.kill()
            each.wait()
        return rate, begin if begin is not None else started
    finally:
        if joined:
            joined.stop()
        place.remove()


def a_round(tunnel):
    rate, started = stream_over(tunnel, False, None)
    single = rate.between(started + 2, started + 15)
    found = {"single": single}
    for when, drop_at in (("before", 0), ("during", 3)):
        rate, began = stream_over(tunnel, True, drop_at)
        again = [step / 10 for step in range(140) if rate.between(began + step / 10, began + step / 10 + 1) >= 0.9 * single]
        found[when] = {"share": rate.between(began + 5, began + 15) / single, "after": again[0] if again else math.inf}
    return found


def runs_dropped(tunnel, rounds):
    """The speed of TCP over a link that drops runs, against `tx-udp-segmentation off`; medians of interleaved rounds."""
    every = [a_round(tunnel) for _ in range(rounds)]
    found = {"single": statistics.median(each["single"] for each in every), "rounds": rounds}
    for when in ("before", "during"):
        found[when] = {key: statistics.median(each[when][key] for each in every) for key in ("share", "after")}
        if found[when]["after"] == math.inf:
            found[when]["after"] = None
    return found
