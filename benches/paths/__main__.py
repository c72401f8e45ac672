#!/usr/bin/env python3
"""Measures what faults of paths cost: silent cuts, loss, jitter, a smaller MTU, runs that are dropped; and what paths cost without faults.

  python3 benches/paths ETHUDP [--only NAMES] [--cuts N] [--peer-cuts N] [--minutes M] [--rounds N] [--before ETHUDP] [--write DIRECTORY]

ETHUDP is the executable, with the others beside it. --only takes the figures with these names, separated by commas, and `peers`.
--before is an executable of an earlier state, for comparison. The original is measured where ETHUDP_REFERENCE names it, and VXLAN with FRR
where FRR is installed. --write puts the figures into benchmarks.json, BENCHMARKS.md and paths.svg in DIRECTORY; those of
other names stay."""

import argparse
import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import costs
import cuts
import lab
import report
import sizes
import tunnels

PEERS = "peers"


def bench():
    """The program of `make bench`."""
    path = os.path.join(os.path.dirname(HERE), "bench")
    loader = importlib.machinery.SourceFileLoader("bench", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", loader))
    loader.exec_module(module)
    return module


def figures(arguments, cached={}):
    """How each figure is measured."""
    program, seconds = arguments.ethudp, arguments.minutes * 60

    def ours(keys=""):
        return tunnels.Ours(program, keys)

    def limit():
        if "limit" not in cached:
            cached["limit"] = sizes.over_a_silent_limit(ours(), arguments.rounds)
        return cached["limit"]

    def single():
        if not arguments.before:
            raise tunnels.Missing("--before names no executable of an earlier state")
        return costs.single(program, arguments.before, arguments.rounds, bench().measure)
    return {
        "cut": lambda: cuts.cuts(ours(), cuts.FAST, arguments.cuts, True),
        "cut-50": lambda: cuts.cuts(ours(), cuts.SLOW, arguments.cuts, False),
        "duplicate": lambda: cuts.duplicate(ours('policy = "duplicate"'), max(4, arguments.cuts // 5)),
        "return": lambda: cuts.returns(ours(), arguments.rounds),
        "loss": lambda: cuts.false_switches(ours(), seconds, loss=0.05),
        "jitter": lambda: cuts.false_switches(ours(), seconds, delays=cuts.SLOW),
        "balance": lambda: costs.balance(program, arguments.rounds, arguments.rate),
        "limit-before": limit,
        "limit-during": limit,
        "runs": lambda: sizes.runs_dropped(ours(), arguments.rounds),
        "idle": lambda: costs.idle(ours(), min(60, seconds)),
        "single": single,
    }


def peers(arguments):
    """The same cuts with others: name, scene, and how."""
    def original():
        if not os.environ.get("ETHUDP_REFERENCE"):
            raise tunnels.Missing("ETHUDP_REFERENCE names no executable")
        return tunnels.Original(os.environ["ETHUDP_REFERENCE"])
    others = [("EthUDP", original), ("VXLAN, FRR BFD", tunnels.Vxlan)]
    if arguments.before:
        others.insert(0, ("ethudp, earlier", lambda: tunnels.Ours(arguments.before)))
    for name, tunnel in others:
        for scene, delays, loaded in (("cut", cuts.FAST, True), ("cut-50", cuts.SLOW, False)):
            yield name, scene, lambda t=tunnel, d=delays, l=loaded: cuts.cuts(t(), d, arguments.peer_cuts, l)


def attempt(name, measure):
    """What was measured, or why it was not."""
    print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr)
    try:
        found = measure()
    except (tunnels.Missing, RuntimeError, OSError, LookupError, ValueError, statistics.StatisticsError) as error:
        print(f"NOT RUN: {name}: {error}", file=sys.stderr)
        return {"not run": " ".join(str(error).split())[:200]}
    return {**found, "date": time.strftime("%Y-%m-%d")}


def text(found):
    dates = sorted({of["date"] for of in [*found["figures"].values(), *(each for of in found["beside"].values() for each in of.values())]
                    if "date" in of})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""
    lines = [f"{lab.machine().rsplit('; ', 1)[0]}; {when}.", ""] + report.figures(found["figures"])
    ours = {scene: found["figures"][scene] for scene in report.SCENES if scene in found["figures"]}
    return lines + report.beside({"ethudp": ours, **found["beside"]})


def write(directory, found):
    data = os.path.join(directory, "benchmarks.json")
    kept = json.load(open(data)) if os.path.exists(data) else {}
    kept["paths"] = found
    with open(data, "w") as file:
        json.dump(kept, file, indent=1)
        file.write("\n")
    picture = ["![Time without frames after a silent cut](paths.svg)", ""]
    lab.insert(os.path.join(directory, "BENCHMARKS.md"), "paths", picture + text(found))
    ours = {scene: found["figures"][scene] for scene in report.SCENES if scene in found["figures"]}
    with open(os.path.join(directory, "paths.svg"), "w") as file:
        file.write(report.draw({"ethudp": ours, **found["beside"]}))


def main():
    parser = argparse.ArgumentParser(prog="paths", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ethudp", type=os.path.abspath)
    parser.add_argument("--only", default="")
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--peer-cuts", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=10, help="of each search for false switches")
    parser.add_argument("--rounds", type=int, default=5, help="of transfers, returns and speeds")
    parser.add_argument("--rate", type=int, default=costs.RATE, help="Mbit/s of each of the two shaped paths")
    parser.add_argument("--before", type=os.path.abspath)
    parser.add_argument("--write")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("paths: needs root, for network namespaces")
    missing = [name for name in ("iperf3", "ethtool", "ping", "ip", "tc") if not shutil.which(name)]
    if missing:
        sys.exit(f"paths: {', '.join(missing)}: not installed")
    every = figures(arguments)
    names = arguments.only.split(",") if arguments.only else [*every, PEERS]
    unknown = [name for name in names if name not in every and name != PEERS]
    if unknown:
        sys.exit(f"paths: --only {', '.join(unknown)}: no such figure; the figures are {', '.join(every)} and {PEERS}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = {"figures": {}, "beside": {}}
    data = os.path.join(arguments.write or "", "benchmarks.json")
    if arguments.write and arguments.only and os.path.exists(data):
        found = json.load(open(data)).get("paths", found)

    def note(place, name, measure):
        place[name.split(": ")[-1]] = attempt(name, measure)
        if arguments.write:
            write(arguments.write, found)
    for name in names:
        if name != PEERS:
            note(found["figures"], name, every[name])
            continue
        for peer, scene, measure in peers(arguments):
            note(found["beside"].setdefault(peer, {}), f"{peer}: {scene}", measure)
    print("\n".join(text(found)))


if __name__ == "__main__":
    main()
