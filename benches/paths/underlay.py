"""Two sites, and between them a switch for each path: links stay up, whatever happens in the middle."""

import os
import re
import signal
import socket
import tempfile
import time

import delay
import faults
import lab
from starts import Inside

# How a plain network card behaves, and the kernel's default for virtual links, which pass runs uncut.
CARD, VIRTUAL = lab.CARD, ""
# A cable between the sites that is never cut, beside all paths.
CABLE = 0


def address(path, number):
    return f"192.0.2.{16 * path + number}"


class Place(lab.Lab):
    """The sites with their paths: `ways[path]` has the faults from the first site to the second, and those of the way back."""

    def __init__(self, paths=2, delays=None, card=CARD, mtu=1500, rate=None):
        self.hosts, self.forwarders, self.ways = [], [], {}
        self.paths = range(1, paths + 1)
        try:
            self.build(delays, card, mtu, rate)
        except Exception:
            self.remove()
            raise

    def build(self, delays, card, mtu, rate):
        self.scratch = tempfile.TemporaryDirectory()
        self.sites = self.users = [self.host("a", 1), self.host("b", 2)]
        self.middle = self.host("m", 3)
        self.sites[0].cable("cable", self.sites[1], "cable", 1500)
        for site in self.sites:
            site.run(f"ip addr add {address(CABLE, site.number)}/28 dev cable")
        for path in self.paths:
            self.lay(path, card, mtu, rate)
            if not delays:
                self.bridge(path)
            ports = [f"{site}{path}" for site in "ab"]
            with Inside(self.middle):
                if delays:
                    process, self.ways[path] = delay.start(ports, *delays[path - 1])
                    self.forwarders.append(process)
                else:
                    self.ways[path] = [faults.at_port(socket.if_nametoindex(port)) for port in ports]

    def lay(self, path, card, mtu, rate):
        """The two cables of a path. The sites know each other's addresses for ever, as behind a router."""
        for site, other in (self.sites, self.sites[::-1]):
            port = f"{'ab'[site.number - 1]}{path}"
            self.middle.cable(port, site, f"wan{path}", mtu)
            site.run(f"ip link set wan{path} address 02:00:00:00:{path:02}:{site.number:02}")
            site.run(f"ip addr add {address(path, site.number)}/28 dev wan{path}")
            site.run(f"ip neigh add {address(path, other.number)} lladdr 02:00:00:00:{path:02}:{other.number:02} dev wan{path}")
            if card:
                site.run(f"ethtool -K wan{path} tx off {card}")
            if rate:
                self.middle.run(f"tc qdisc add dev {port} root tbf rate {rate} burst 128kb latency 20ms")

    def bridge(self, path):
        self.middle.run(f"ip link add br{path} type bridge mcast_snooping 0")
        for port in (f"a{path}", f"b{path}"):
            self.middle.run(f"ip link set {port} master br{path}")
        self.middle.run(f"ip link set br{path} up")

    def host(self, name, number):
        self.hosts.append(lab.Host(name, number))
        for every in ("all", "default"):
            self.hosts[-1].run(f"sysctl -qw net.ipv6.conf.{every}.disable_ipv6=1", False)
            self.hosts[-1].run(f"sysctl -qw net.ipv4.conf.{every}.rp_filter=0")
        return self.hosts[-1]

    def active(self, direction, seconds=0.04):
        """The path that carries the numbered stream in this direction; None if none does."""
        def counts():
            return [self.ways[path][direction].get(faults.STREAM) for path in self.paths]
        before = counts()
        time.sleep(seconds)
        grown = [after - count for after, count in zip(counts(), before)]
        return self.paths[grown.index(max(grown))] if max(grown) > 1 else None

    def cut(self, path, directions, cut=True):
        """Cuts a path in these directions, or heals it; returns the moment."""
        for direction in directions:
            self.ways[path][direction].set(faults.CUT, int(cut))
        return time.time()

    def rtt(self):
        """Mean round trip in milliseconds inside the tunnel."""
        found = re.search(r"= [\d.]+/([\d.]+)/", self.sites[0].run("ping -q -c 40 -i 0.05 10.8.0.2", False))
        return float(found.group(1)) if found else None

    def remove(self):
        for process in self.forwarders:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        for ways in self.ways.values():
            for way in ways:
                faults.release(way)
        for host in self.hosts:
            host.remove()
