"""How long it takes until frames pass, from when an end is started and from when its worker is killed: on the secure wire, mode raw,
a frame each half a millisecond in each direction."""

import ctypes
import os
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import time

import lab

COUNT = 20
# Longest time in seconds that is waited for; and from one kill to the next, so that each is answered at once.
LIMIT, PAUSE = 10, 1.5
EVERY = 0.0005
KIND = 0x88b5
INITIATION, RESPONSE = 1, 2
PORT = lab.PORT.to_bytes(2, "big")


def now():
    return time.clock_gettime(time.CLOCK_REALTIME)


class Inside:
    """This thread in the network namespace of a host; what it opens or starts meanwhile stays there."""

    def __init__(self, host):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.path = f"/run/netns/{host.name}"

    def enter(self, path):
        with open(path) as namespace:
            if self.libc.setns(namespace.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), path)

    def __enter__(self):
        self.before = open("/proc/self/ns/net")
        self.enter(self.path)

    def __exit__(self, *_):
        self.enter(f"/proc/self/fd/{self.before.fileno()}")
        self.before.close()


def listen(host, interface, kind):
    """A packet socket, which says when something has come."""
    with Inside(host):
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        packets.bind((interface, kind))
    packets.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    packets.setblocking(False)
    return packets


def taken(packets):
    """All that has come: when, and what; not what was sent there."""
    while True:
        try:
            data, control, _, address = packets.recvmsg(2000, 100)
        except BlockingIOError:
            return
        if address[2] != socket.PACKET_OUTGOING:
            seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
            yield seconds + nanoseconds / 1e9, data


class Probe:
    """Frames in both directions between the hosts behind two sites, and what passes between these."""

    def __init__(self, place):
        self.users = [listen(user, "eth0", KIND) for user in place.users]
        self.wan = [listen(site, "wan", 0x0800) for site in place.sites]

    def until_both_pass(self, begin, and_also=lambda: True):
        """When a frame that was sent after `begin` has come out at each side, and the messages of handshakes that have come
        meanwhile: when, at which site, and which."""
        came = [None, None]
        for packets in self.users + self.wan:
            list(taken(packets))
        while not (all(came) and and_also()):
            if now() > begin + LIMIT:
                raise RuntimeError("nothing passes")
            for packets in self.users:
                frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + KIND.to_bytes(2, "big") + struct.pack("d", now())
                packets.send(frame.ljust(60, b"\0"))
            select.select(self.users, [], [], EVERY)
            for side, packets in enumerate(self.users):
                for at, data in taken(packets):
                    if came[side] is None and struct.unpack("d", data[14:22])[0] > begin:
                        came[side] = at
        return came, sorted(self.handshakes(begin))

    def handshakes(self, begin):
        for site, packets in enumerate(self.wan):
            for at, data in taken(packets):
                # UDP over IPv4 without options.
                if at > begin and data[23] == socket.IPPROTO_UDP and data[36:38] == PORT and data[42] in (INITIATION, RESPONSE):
                    yield at, site, data[42]

    def close(self):
        for packets in self.users + self.wan:
            packets.close()


class Ready:
    """What a service manager hears."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o777)
        self.socket.setblocking(False)
        self.at = None

    def has_come(self):
        while self.at is None:
            try:
                if b"READY=1" in self.socket.recv(4096):
                    self.at = now()
            except BlockingIOError:
                break
        return self.at is not None

    def close(self):
        self.socket.close()
        os.unlink(self.path)


def stop(process):
    process.terminate()
    process.wait(LIMIT)


def a_start(place, probe, command, environment):
    """Seconds from the exec of the second end: until it is ready, until its first message is at the other end, until the answer has
    come back, until frames pass both ways."""
    ready = Ready(place.scratch.name)
    try:
        with Inside(place.sites[1]):
            begin = now()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       start_new_session=True, env={**environment, "NOTIFY_SOCKET": ready.path})
        try:
            came, handshakes = probe.until_both_pass(begin, ready.has_come)
        finally:
            stop(process)
    finally:
        ready.close()
    asked = next((at for at, site, kind in handshakes if (site, kind) == (0, INITIATION)), None)
    answered = next((at for at, site, kind in handshakes if (site, kind) == (1, RESPONSE)), None)
    if asked is None or answered is None:
        raise RuntimeError("the second end has not begun the session")
    return {"ready": ready.at - begin, "asked": asked - begin, "answered": answered - begin, "passes": max(came) - begin}


def worker_of(supervisor):
    for child in open(f"/proc/{supervisor}/task/{supervisor}/children").read().split():
        if "worker" in os.readlink(f"/proc/{child}/exe"):
            return int(child)
    raise RuntimeError("no worker")


def a_kill(probe, supervisor):
    """Seconds from the kill of a worker until frames pass both ways."""
    time.sleep(PAUSE)
    worker = worker_of(supervisor)
    begin = now()
    os.kill(worker, signal.SIGKILL)
    # What was sent in the same millisecond may have passed before.
    came, _ = probe.until_both_pass(begin + 0.001)
    return max(came) - begin


def measure(program):
    """Figures of starts and of kills, in milliseconds: of each the median and the worst."""
    place = lab.Lab("raw", 1600, 1500)
    tunnel = probe = None
    try:
        # The second end is started once to have its files, and what it was started with.
        tunnel = lab.Tunnel(place, "raw", lab.secure(program, "raw"), None)
        first, second = tunnel.processes
        command, environment = second.args[4:], dict(os.environ, RUNTIME_DIRECTORY=os.path.join(place.scratch.name, place.sites[1].name))
        probe = Probe(place)
        kills = [a_kill(probe, [first, second][number % 2].pid) for number in range(COUNT)]
        stop(second)
        starts = [a_start(place, probe, command, environment) for _ in range(COUNT)]
        rtt = re.search(r"= [\d.]+/([\d.]+)/", place.sites[0].run("ping -q -c 20 -i 0.05 192.0.2.2"))
    finally:
        if probe:
            probe.close()
        if tunnel:
            tunnel.stop()
        place.remove()
    return rows(starts, kills), float(rtt.group(1))


def rows(starts, kills):
    def row(name, seconds):
        return name, statistics.median(seconds) * 1e3, max(seconds) * 1e3
    return [
        row("**start of the second end to frames both ways**", [each["passes"] for each in starts]),
        row("start to `READY=1`", [each["ready"] for each in starts]),
        row("start to its first message of the handshake at the other end", [each["asked"] for each in starts]),
        row("that message to its answer", [each["answered"] - each["asked"] for each in starts]),
        row("answer to frames both ways", [each["passes"] - each["answered"] for each in starts]),
        row("**kill of a worker to frames both ways**", kills),
    ]


def table(found, rtt):
    lines = [f"{COUNT} starts, and {COUNT} kills, of the worker of either end in turn; the underlay's round trip is {rtt:.2f} ms.", "",
             "| ms | median | worst |", "|---|---|---|"]
    return lines + [f"| {name} | {median:.1f} | {worst:.1f} |" for name, median, worst in found] + [""]
