"""What paths cost: datagrams and wakeups of an idle tunnel, the speed over two paths, and of a tunnel with one path."""

import json
import os
import statistics
import time

import lab
import tunnels
import underlay
from faults import BYTES, ETHERNET, PACKETS

RATE, STREAMS, SECONDS = 500, 8, 8
SETTLES = 20


def sleeps(pids):
    """How often the threads of these processes have slept."""
    def of(pid, thread):
        text = open(f"/proc/{pid}/task/{thread}/status").read()
        return int(text.split("voluntary_ctxt_switches:")[1].split()[0])
    return sum(of(pid, thread) for pid in pids for thread in os.listdir(f"/proc/{pid}/task"))


def idle(tunnel, seconds):
    """Bytes a second of IP on each path, of both directions together and of the busier one, and wakeups a second of the busier end."""
    place = underlay.Place()
    joined = None
    try:
        joined = tunnels.join(place, tunnel)
        time.sleep(SETTLES)

        def counts():
            return [[way.get(BYTES) - ETHERNET * way.get(PACKETS) for way in place.ways[path]] for path in place.paths]
        ends, before = joined.ends(), counts()
        slept = [sleeps(end) for end in ends]
        begin = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begin
        bytes_ = [[(after - count) / took for after, count in zip(*each)] for each in zip(counts(), before)]
        return {
            "bytes": max(sum(path) for path in bytes_), "bytes each way": max(max(path) for path in bytes_),
            "wakeups": max((sleeps(end) - count) / took for end, count in zip(ends, slept)), "seconds": seconds,
        }
    finally:
        if joined:
            joined.stop()
        place.remove()


def tcp(place, streams, seconds):
    text = place.users[0].run(f"timeout {seconds + 5} iperf3 -c 10.8.0.2 -J -t {seconds} -O 2 -P {streams}", False)
    try:
        return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e6
    except (ValueError, KeyError):
        return 0


def shaped(tunnel, rate):
    place = underlay.Place(card=underlay.VIRTUAL, rate=f"{rate}mbit")
    joined = None
    try:
        joined = tunnels.join(place, tunnel)
        listener = place.listen()
        time.sleep(3)
        found = tcp(place, STREAMS, SECONDS)
        listener.kill()
        return found
    finally:
        if joined:
            joined.stop()
        place.remove()


def balance(program, rounds, rate=RATE):
    """Mbit/s of several streams over two shaped paths, with failover and with balance; medians of interleaved rounds."""
    both = tunnels.Ours(program, 'policy = "balance"')
    found = [(shaped(tunnels.Ours(program), rate), shaped(both, rate)) for _ in range(rounds)]
    one, two = (statistics.median(each) for each in zip(*found))
    return {"rate": rate, "one": one, "two": two, "ratio": two / one if one else 0, "rounds": rounds}


def single(program, before, rounds, measure):
    """TCP, small UDP datagrams and ping of a tunnel with one path, of two states of the program in interleaved rounds. `measure` is that
    of `make bench`."""
    found = {}
    for number in range(rounds):
        # Each goes first in turn.
        for name, each in [("before", before), ("now", program)][::1 if number % 2 == 0 else -1]:
            variant = {"mode": "tap", "underlay": 1500, "lan": None, "mtu": 1400, "start": lab.secure(each, "tap")}
            for key, value in measure(variant, 3).items():
                found.setdefault(key, {}).setdefault(name, []).append(value)
    medians = {key: {name: statistics.median(values) for name, values in of.items()} for key, of in found.items()}
    ratios = {key: medians[key]["now"] / medians[key]["before"] for key in ("tcp", "back", "udp")}
    # A ping that takes longer is worse.
    return {"rounds": rounds, "ratios": {**ratios, "ping": medians["ping"]["before"] / medians["ping"]["now"]}, "medians": medians}
