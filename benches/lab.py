"""Two ends of a tunnel on this machine, in network namespaces, and programs that join them.

The underlay is like a plain network card: it cuts no superframe (TSO and USO off) and puts together what comes (GRO on)."""

import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

KEY = "0123456789abcdef"
PORT = 6000


def run(command, check=True):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout


def machine():
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    return (f"{os.cpu_count()} processors ({cpu.group(1) if cpu else os.uname().machine}); "
            f"Linux {os.uname().release.split('-')[0]}; {time.strftime('%Y-%m-%d')}")


def insert(path, name, lines):
    """Replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in a file."""
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = open(path).read()
    if text.count(first) != 1 or text.count(last) != 1:
        raise RuntimeError(f"{path}: {first.strip()} and {last} must each be there once")
    before, rest = text.split(first)[0], text.split(last)[1]
    with open(path, "w") as file:
        file.write(before + first + "\n" + "\n".join(lines) + last + rest)


class Host:
    """A network namespace."""

    def __init__(self, name, number):
        self.name, self.number = f"bench-{os.getpid()}-{name}", number
        run(f"ip netns add {self.name}")
        self.run("ip link set lo up")

    def run(self, command, check=True):
        return run(f"ip netns exec {self.name} {command}", check)

    def start(self, command, log=subprocess.DEVNULL, **environment):
        """Starts a program that runs until it is stopped."""
        words = ["ip", "netns", "exec", self.name] + command
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                env={**os.environ, **environment})

    def cable(self, interface, other, other_interface, mtu):
        run(f"ip -n {self.name} link add {interface} type veth peer name {other_interface} netns {other.name}")
        self.run(f"ip link set {interface} mtu {mtu} up")
        other.run(f"ip link set {other_interface} mtu {mtu} up")

    def remove(self):
        for pid in run(f"ip netns pids {self.name}", False).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        run(f"ip netns del {self.name}", False)


CARD = "tso off gso off gro on tx-udp-segmentation off"


class Lab:
    """Both sites; in mode raw a host behind each."""

    def __init__(self, mode, underlay, lan):
        self.hosts = []
        try:
            self.build(mode, underlay, lan)
        except Exception:
            self.remove()
            raise

    def build(self, mode, underlay, lan):
        self.scratch = tempfile.TemporaryDirectory()
        self.sites = [self.host("a", 1), self.host("b", 2)]
        self.sites[0].cable("wan", self.sites[1], "wan", underlay)
        for site in self.sites:
            site.run(f"ip addr add 192.0.2.{site.number}/24 dev wan")
            site.run(f"ethtool -K wan {CARD}")
        self.users = self.sites
        if mode != "tap":
            self.users = [self.host("lan-a", 1), self.host("lan-b", 2)]
            for user, site in zip(self.users, self.sites):
                site.cable("lan", user, "eth0", lan)
                user.run(f"ip addr add 10.8.0.{user.number}/24 dev eth0")
                if mode == "raw":
                    user.run(f"ethtool -K eth0 tx off {CARD}")
                    site.run(f"ethtool -K lan {CARD}")

    def host(self, name, number):
        self.hosts.append(Host(name, number))
        return self.hosts[-1]

    def listen(self):
        """An iperf3 that answers at the second user."""
        listener = self.users[1].start(["iperf3", "-s"])
        wait(lambda: "5201" in self.users[1].run("ss -Hltn"))
        return listener

    def remove(self):
        for host in self.hosts:
            host.remove()


class Tunnel:
    """What joins the sites of a lab: `start` gives the processes of one end."""

    def __init__(self, lab, mode, start, mtu):
        self.processes = []
        for site, other in (lab.sites, lab.sites[::-1]):
            self.processes += start(lab, site, other)
        if mode == "tap":
            for site in lab.sites:
                self.wait(lambda: site.run("ip link show eu0", False))
                site.run("ip link set eu0 up")
                site.run(f"ip addr replace 10.8.0.{site.number}/24 dev eu0")
                if mtu:
                    site.run(f"ip link set eu0 mtu {mtu}")
        reach = "ping -c 1 -W 1 10.8.0.2 >/dev/null && echo yes"
        self.wait(lambda: lab.users[0].run(f"sh -c '{reach}'", False))

    def wait(self, ready):
        """Waits until it is ready; names a program that has ended meanwhile, so that it can be asked why."""
        try:
            wait(ready)
        except RuntimeError as error:
            ended = [process for process in self.processes if process.poll() is not None]
            self.stop()
            words = "".join(f"; `{' '.join(process.args[4:])}` has ended, status {process.returncode}" for process in ended)
            raise RuntimeError(f"{error}{words}") from None

    def ends(self):
        """The processes of each end."""
        def family(pid):
            children = open(f"/proc/{pid}/task/{pid}/children").read().split()
            return [pid] + [each for child in children for each in family(int(child))]
        return [family(process.pid) for process in self.processes]

    def cpu(self):
        """Seconds of processor time so far."""
        def of(pid):
            fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return sum(of(pid) for end in self.ends() for pid in end)

    def memory(self):
        """Sum of Pss in MiB, of each end."""
        def of(pid):
            return int(re.search(r"Pss:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read()).group(1))
        return [sum(of(pid) for pid in end) / 1024 for end in self.ends()]

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def wait(ready, limit=10):
    end = time.monotonic() + limit
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError("the tunnel does not come up")
        time.sleep(0.1)


def own(lab, site, program):
    """A copy of an executable and of those that are named after it. Both ends would share the file in memory, as two machines do
    not."""
    directory = os.path.join(lab.scratch.name, f"{site.name}.bin")
    os.chmod(lab.scratch.name, 0o755)
    os.makedirs(directory, exist_ok=True)
    for path in glob.glob(f"{program}*"):
        if os.access(path, os.X_OK):
            shutil.copy(path, directory)
    return os.path.join(directory, os.path.basename(program))


def ethudp(program, mode, options=""):
    """Ours or the original: the same command line."""
    def start(lab, site, other):
        ends = f"192.0.2.{site.number} {PORT} 192.0.2.{other.number} {PORT}"
        side = f"-i -dev eu0 {ends} 10.8.0.{site.number} 24" if mode == "tap" else f"-e {ends} lan"
        directory = os.path.join(lab.scratch.name, site.name)
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o777)
        return [site.start([own(lab, site, program), "-d"] + options.split() + side.split(), RUNTIME_DIRECTORY=directory)]
    return start


def secure(program, mode):
    """Ours on the secure wire, by file."""
    keys = [run(f"{program} genkey").strip() for _ in range(2)]
    public = [run(f"echo {key} | {program} pubkey").strip() for key in keys]

    def start(lab, site, other):
        directory = os.path.join(lab.scratch.name, site.name)
        os.makedirs(directory, exist_ok=True)
        os.chmod(directory, 0o777)
        def write(name, text, mode):
            path = os.path.join(directory, name)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
                file.write(text)
            return path
        write("end.key", keys[site.number - 1], 0o600)
        side = (f'mode = "tap"\n[tap]\nname = "eu0"\naddress = ["10.8.0.{site.number}/24"]\n' if mode == "tap"
                else 'mode = "raw"\n[raw]\ninterface = "lan"\n')
        path = f'[[path]]\nlocal = "192.0.2.{site.number}:{PORT}"\nremote = "192.0.2.{other.number}:{PORT}"\n'
        wire = f'[secure]\nprivate-key-file = "end.key"\npeer-public-key = "{public[other.number - 1]}"\n'
        file = write(f"{site.name}.toml", side + path + wire, 0o644)
        return [site.start([own(lab, site, program), "up", file], RUNTIME_DIRECTORY=directory)]
    return start


def vxlan(mode):
    """The kernel's own, unencrypted; in mode raw bridged with the LAN."""
    def start(lab, site, other):
        ends = f"remote 192.0.2.{other.number} local 192.0.2.{site.number} dstport 4789 dev wan"
        name = "eu0" if mode == "tap" else "vx0"
        site.run(f"ip link add {name} type vxlan id 7 {ends}")
        if mode != "tap":
            site.run("ip link add name br0 type bridge")
            for port in ("vx0", "lan"):
                site.run(f"ip link set {port} master br0")
            site.run("ip link set vx0 up")
            site.run("ip link set br0 up")
        return []
    return start


def fastd(method):
    """fastd, mode tap."""
    keys = [run("fastd --generate-key --machine-readable").strip() for _ in range(2)]
    def public(secret):
        return run(f"echo 'secret \"{secret}\";' | fastd --config - --show-key --machine-readable").strip()
    def start(lab, site, other):
        text = (f'log level fatal; mode tap; interface "eu0"; method "{method}"; mtu 1400; bind 192.0.2.{site.number}:{PORT};\n'
                f'secret "{keys[site.number - 1]}"; peer "x" {{ key "{public(keys[other.number - 1])}"; '
                f"remote 192.0.2.{other.number}:{PORT}; }}\n")
        path = os.path.join(lab.scratch.name, f"{site.name}.conf")
        with open(path, "w") as file:
            file.write(text)
        return [site.start([own(lab, site, shutil.which("fastd")), "--config", path])]
    return start


def openvpn(cipher):
    """OpenVPN with a static key, mode tap."""
    def start(lab, site, other):
        program = own(lab, site, shutil.which("openvpn"))
        words = (f"{program} --dev eu0 --dev-type tap --proto udp --local 192.0.2.{site.number} --remote 192.0.2.{other.number} "
                 f"--port {PORT} --tun-mtu 1400 --sndbuf 1048576 --rcvbuf 1048576 --verb 0 --auth none ").split()
        if cipher == "none":
            words += ["--cipher", "none"]
        else:
            path = os.path.join(lab.scratch.name, "static.key")
            if not os.path.exists(path):
                run(f"openvpn --genkey secret {path}")
            words += ["--secret", path, "--cipher", cipher]
        return [site.start(words)]
    return start
