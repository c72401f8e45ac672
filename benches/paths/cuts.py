"""Cuts of paths under traffic: how long frames do not arrive, and what a return, or a loss that is no cut, costs."""

import random
import sys
import time

import lab
import stream
import tunnels
import underlay

FAST, SLOW = None, [(0.025, 0.010)] * 2
# The preferred path is shorter than the other one, so that frames could overtake those before them.
UNEQUAL = [(0.002, 0), (0.012, 0)]
LIMIT, AFTER = 15, 0.3
# TCP beside the numbered streams, in each direction.
LOAD = "20M"
BOTH = (0, 1)


class Run:
    """A place with a running tunnel and its numbered streams."""

    def __init__(self, tunnel, delays=FAST, loaded=False):
        self.kind, self.joined, self.streams, self.load = tunnel, None, None, []
        self.place = underlay.Place(delays=delays)
        try:
            self.joined = tunnels.join(self.place, tunnel)
            self.rtt = self.place.rtt()
            if loaded:
                self.load = [self.place.users[1].start(["iperf3", "-s", "-B", "10.8.0.2"])]
                lab.wait(lambda: "5201" in self.place.users[1].run("ss -Hltn"))
                client = f"iperf3 -c 10.8.0.2 -B 10.8.0.1 --bidir -b {LOAD} -t 86400"
                self.load.append(self.place.users[0].start(client.split()))
            self.streams = stream.Streams(self.place)
            self.streams.begin()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        for process in self.load:
            process.kill()
            process.wait()
        if self.streams:
            self.streams.stop()
        if self.joined:
            self.joined.stop()
        self.place.remove()

    def settle(self):
        """Waits until each path is up again and frames pass, and then for a random time, so that no cut keeps step with a timer."""
        end = time.monotonic() + 30
        while not self.kind.settled(self.place) and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(random.uniform(0.5, 1.5))
        while None in [self.place.active(direction) for direction in BOTH] and time.monotonic() < end:
            time.sleep(0.1)

    def wait_for_frames(self, directions, since, limit=LIMIT):
        end = time.monotonic() + limit
        while not all(self.streams.tunnel[direction].sent_after(since) for direction in directions):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def cut_active(self, number):
        """Cuts the path that carries frames, in both directions or in one of them by turns; heals it once frames pass again. The gaps in
        milliseconds of the streams that were cut, of the other direction and of the cable; whether that direction has moved; and the
        frames lost."""
        self.settle()
        direction, cut = number // 2 % 2, BOTH if number % 2 == 0 else (number // 2 % 2,)
        carriers = [self.place.active(each) for each in BOTH]
        path = carriers[direction]
        if path is None:
            raise RuntimeError("no frames pass before the cut")
        struck = [each for each in cut if carriers[each] == path]
        spared = [each for each in BOTH if each not in cut and carriers[each] == path]
        at = self.place.cut(path, cut)
        self.wait_for_frames(struck, at + 0.02)
        time.sleep(AFTER)
        end = time.time()
        moved = sum(self.place.active(each) != path for each in spared)
        self.place.cut(path, BOTH, False)
        time.sleep(0.1)
        tunnel, cable = self.streams.tunnel, self.streams.cable
        # Those of before the cut that are still on their way are left out.
        lost = [tunnel[each].faults(at - 0.1, end - 0.15) or (0, 0, 0) for each in struck]
        return {
            "one_way": len(cut) == 1,
            "gap": 1e3 * max(tunnel[each].gap(at, end) for each in struck),
            "spared": len(spared), "moved": moved,
            "other": [1e3 * tunnel[each].gap(at, end) for each in BOTH if each not in cut],
            "noise": 1e3 * max(each.gap(at, end) for each in cable),
            "lost": max(each[0] for each in lost),
        }


def percentile(values, share):
    """The value that this share of all does not exceed."""
    values = sorted(values)
    return values[min(len(values) - 1, max(0, -(-len(values) * share // 100) - 1))] if values else None


def summary(values):
    return {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values, default=None)}


def cuts(tunnel, delays, count, loaded):
    """Gaps at silent cuts, half of them one-way."""
    found = []
    with Run(tunnel, delays, loaded) as run:
        for number in range(count):
            found.append(run.cut_active(number))
            if sys.stderr.isatty():
                print(f"\rcut {number + 1} of {count}: {found[-1]['gap']:.0f} ms ", end="", file=sys.stderr)
        rtt = run.rtt
    return {
        "count": count, "rtt": rtt,
        "gap": summary([each["gap"] for each in found]),
        "both ways": summary([each["gap"] for each in found if not each["one_way"]]),
        "one way": summary([each["gap"] for each in found if each["one_way"]]),
        "other direction": summary([gap for each in found for gap in each["other"]]),
        "spared": sum(each["spared"] for each in found), "moved": sum(each["moved"] for each in found),
        "noise": summary([each["noise"] for each in found]),
        "lost": summary([each["lost"] for each in found]),
        "gaps": [round(each["gap"], 1) for each in found],
    }


def duplicate(tunnel, count):
    """Frames lost, and frames that came twice, over cuts of either path in both directions and in one."""
    lost = twice = 0
    noise = []
    with Run(tunnel) as run:
        for number in range(count):
            run.settle()
            at = run.place.cut(1 + number // 4 % 2, BOTH if number % 2 == 0 else (number // 2 % 2,))
            time.sleep(1)
            for path in run.place.paths:
                run.place.cut(path, BOTH, False)
            time.sleep(0.3)
            for each in run.streams.tunnel:
                missing, copies, _ = each.faults(at - 0.2, at + 1)
                lost, twice = lost + missing, twice + copies
            noise.append(sum(each.faults(at - 0.2, at + 1)[0] for each in run.streams.cable))
    return {"count": count, "lost": lost, "twice": twice, "noise": sum(noise)}


def comes_back(tunnel, delays):
    """One return to the preferred path, from the moment it is healed: seconds until it carries frames both ways, and the frames lost,
    doubled and reordered."""
    with Run(tunnel, delays) as run:
        run.settle()
        run.place.cut(1, BOTH)
        time.sleep(0.5)
        if not run.wait_for_frames(BOTH, time.time()):
            raise RuntimeError("no frames pass after the cut")
        time.sleep(1)
        healed, end = run.place.cut(1, BOTH, False), time.monotonic() + 60
        while [run.place.active(direction) for direction in BOTH] != [1, 1]:
            if time.monotonic() > end:
                raise RuntimeError("no return to the preferred path within a minute")
        back = time.time()
        time.sleep(2)
        counts = [each.faults(healed - 0.1, back + 1.5) for each in run.streams.tunnel]
        noise = [each.faults(healed - 0.1, back + 1.5) for each in run.streams.cable]
    return back - healed, *(sum(each[kind] for each in counts) for kind in range(3)), sum(sum(each) for each in noise)


def returns(tunnel, count):
    """Returns over equal paths, and from a longer path to a shorter one, each of a new tunnel."""
    every = {name: [comes_back(tunnel, delays) for _ in range(count)] for name, delays in (("equal", FAST), ("unequal", UNEQUAL))}
    all_of = [each for found in every.values() for each in found]
    return {"count": len(all_of), "seconds": percentile([each[0] for each in all_of], 50), "lost": sum(each[1] for each in all_of),
            "twice": sum(each[2] for each in all_of), "late": sum(each[3] for each in all_of), "noise": sum(each[4] for each in all_of),
            "late of unequal": sum(each[3] for each in every["unequal"])}


def false_switches(tunnel, seconds, loss=0.0, delays=FAST):
    """How often frames leave the preferred path while nothing is cut."""
    with Run(tunnel, delays) as run:
        for path in run.place.paths:
            for way in run.place.ways[path]:
                way.lose(loss)
        time.sleep(1)
        end, now, switches = time.monotonic() + seconds, [None, None], [0, 0]
        while time.monotonic() < end:
            for direction in BOTH:
                path = run.place.active(direction)
                if path and now[direction] and path != now[direction]:
                    switches[direction] += 1
                now[direction] = path or now[direction]
        first = run.streams.tunnel[0]
        longest = max(each.gap(each.at[0], each.at[-1]) for each in run.streams.tunnel)
    return {"seconds": seconds, "switches": sum(switches), "arrived": len(first.at), "gap": 1e3 * longest}
