"""What joins the sites of a place, in mode tap: this program, the original, and two VXLAN tunnels between which FRR chooses by BFD."""

import json
import os
import shutil
import subprocess
import time

import lab
from underlay import address

# Where packages of FRR put its daemons.
FRR = "/usr/lib/frr"


class Missing(Exception):
    """What a figure needs and this machine or this program lacks."""


def directory_of(place, site):
    directory = os.path.join(place.scratch.name, site.name)
    os.makedirs(directory, exist_ok=True)
    os.chmod(place.scratch.name, 0o755)
    os.chmod(directory, 0o777)
    return directory


def write(path, text, mode=0o644):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    return path


class Ours:
    """This program on the secure wire, with the paths of the place. `keys` is a line of the file before its first table."""

    def __init__(self, program, keys=""):
        self.program, self.keys = program, keys
        self.private = [lab.run(f"{program} genkey").strip() for _ in range(2)]
        self.public = [lab.run(f"echo {key} | {program} pubkey").strip() for key in self.private]

    def file(self, place, site, other):
        directory = directory_of(place, site)
        write(os.path.join(directory, "end.key"), self.private[site.number - 1], 0o600)
        text = f'mode = "tap"\n{self.keys}\n[tap]\nname = "eu0"\naddress = ["10.8.0.{site.number}/24"]\n'
        for path in place.paths:
            ends = [f"{address(path, each.number)}:{lab.PORT + path}" for each in (site, other)]
            text += f'[[path]]\nlocal = "{ends[0]}"\nremote = "{ends[1]}"\n'
        text += f'[secure]\nprivate-key-file = "end.key"\npeer-public-key = "{self.public[other.number - 1]}"\n'
        return write(os.path.join(directory, f"{site.name}.toml"), text)

    def start(self, place, site, other):
        file = self.file(place, site, other)
        checked = subprocess.run(["ip", "netns", "exec", site.name, self.program, "check", file], capture_output=True, text=True)
        if checked.returncode and self.keys and self.keys.split(" ")[0] in checked.stderr:
            raise Missing(f"the program refuses `{self.keys}`")
        program = lab.own(place, site, self.program)
        log = open(os.path.join(directory_of(place, site), "log"), "w")
        return [site.start([program, "up", file], log, RUNTIME_DIRECTORY=directory_of(place, site))]

    def shows(self, place):
        """What `show --json` prints at both ends."""
        def show(site):
            environment = {**os.environ, "RUNTIME_DIRECTORY": directory_of(place, site)}
            done = subprocess.run(["ip", "netns", "exec", site.name, self.program, "show", site.name, "--json"], capture_output=True,
                                  text=True, env=environment)
            return json.loads(done.stdout or "{}")
        return [show(site) for site in place.sites]

    def settled(self, place):
        """Whether each end shows every path up."""
        return all(path["state"] == "up" for end in self.shows(place) for path in end.get("paths", [{"state": ""}]))


class Original:
    """The original with its master and its slave. It tells no state, but returns to its master within two seconds."""

    def __init__(self, program):
        self.program = program

    def start(self, place, site, other):
        words = [f"{address(path, site.number)} {lab.PORT} {address(path, other.number)} {lab.PORT}" for path in place.paths]
        command = f"-i -d -dev eu0 {words[0]} 10.8.0.{site.number} 24 {' '.join(words[1:])}"
        return [site.start([lab.own(place, site, self.program)] + command.split())]

    def settled(self, _):
        time.sleep(3)
        return True


class Vxlan:
    """A VXLAN tunnel over each path, and OSPF with BFD at its default rate, which selects one of them."""

    def __init__(self):
        if not os.path.exists(f"{FRR}/bfdd"):
            raise Missing("FRR is not installed")

    def start(self, place, site, other):
        directory, processes, text = directory_of(place, site), [], ""
        site.run(f"ip addr add 10.8.0.{site.number}/32 dev lo")
        networks = f"router ospf\n ospf router-id 10.8.0.{site.number}\n network 10.8.0.{site.number}/32 area 0\n"
        for path in place.paths:
            ends = f"remote {address(path, other.number)} local {address(path, site.number)} dstport 4789 dev wan{path}"
            site.run(f"ip link add vx{path} type vxlan id {path} {ends}")
            site.run(f"ip addr add 10.9.{path}.{site.number}/24 dev vx{path}")
            site.run(f"ip link set vx{path} mtu 1450 up")
            text += (f"interface vx{path}\n ip ospf network point-to-point\n ip ospf cost {10 * path}\n ip ospf hello-interval 1\n"
                     f" ip ospf dead-interval 4\n ip ospf bfd\n!\n")
            networks += f" network 10.9.{path}.0/24 area 0\n"
        file = write(os.path.join(directory, "frr.conf"), text + networks)
        for daemon in ("zebra", "bfdd", "ospfd"):
            own = [f"{FRR}/{daemon}", "-z", f"{directory}/zserv", "-i", f"{directory}/{daemon}.pid",
                   "-f", file if daemon == "ospfd" else "/dev/null", "--vty_socket", directory]
            own += ["--bfdctl", f"{directory}/bfdd"] if daemon == "bfdd" else []
            processes.append(site.start(own, open(f"{directory}/{daemon}.log", "w")))
            lab.wait(lambda: os.path.exists(f"{directory}/{daemon}.vty"))
        return processes

    def settled(self, place):
        """Whether each end has a neighbour on every path."""
        def neighbours(site):
            return site.run(f"vtysh --vty_socket {directory_of(place, site)} -d ospfd -c 'show ip ospf neighbor'", False).count("Full")
        return all(neighbours(site) == len(place.paths) for site in place.sites)


def join(place, tunnel, mtu=None):
    """Starts a tunnel at both sites, and waits until it carries."""
    if not isinstance(tunnel, Vxlan):
        return lab.Tunnel(place, "tap", tunnel.start, mtu)
    return Daemons(place, tunnel)


class Daemons(lab.Tunnel):
    """As `lab.Tunnel`, for a tunnel without a TAP interface."""

    def __init__(self, place, tunnel):
        self.processes = []
        for site, other in (place.sites, place.sites[::-1]):
            self.processes += tunnel.start(place, site, other)
        reach = "ping -c 1 -W 1 -I 10.8.0.1 10.8.0.2 >/dev/null && echo yes"
        lab.wait(lambda: place.sites[0].run(f"sh -c '{reach}'", False), 60)
