"""Network namespaces, and the sockets in them."""
import contextlib, ctypes, os, socket, struct, subprocess, time

HOSTS = {4: ("10.9.0.1", "10.9.0.2", "10.9.0.3", "0.0.0.0"), 6: ("fd09::1", "fd09::2", "fd09::3", "::")}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PEERS = {"A": (1, 6000), "B": (1, 6001), "C": (2, 6000), "D": (2, 6001)}   # index into HOSTS, port
SOL_PACKET, PACKET_AUXDATA, ETH_P_ALL, SO_TIMESTAMP = 263, 8, 3, 29
libc = ctypes.CDLL(None, use_errno=True)


def command(*cmd):
    subprocess.run(cmd, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def inside(ns):
    def enter(fd):
        if libc.setns(fd, os.O_RDONLY | 0x40000000):   # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")
    with open("/proc/thread-self/ns/net") as old, open("/run/netns/" + ns) as new:
        enter(new.fileno())
        try:
            yield
        finally:
            enter(old.fileno())


def no_ipv6(dev, value):
    with open(f"/proc/sys/net/ipv6/conf/{dev}/disable_ipv6", "w") as f:
        f.write(value)


def delete_namespaces(prefix):
    for ns in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        if ns.startswith(prefix):
            subprocess.run(["ip", "netns", "del", ns], stdin=subprocess.DEVNULL)


class Net:
    """prog (u0, lan0; the tested program) -- peer (u1; A-D); prog -- lan (lan1; far end for modes e, t, u)"""

    def __init__(self, prefix):
        self.all = self.prog, self.peer, self.lan = [prefix + x for x in "abc"]
        for ns in self.all:
            command("ip", "netns", "add", ns)
            with inside(ns):
                no_ipv6("all", "1")
                no_ipv6("default", "1")
        for near, far, ns in (("u0", "u1", self.peer), ("lan0", "lan1", self.lan)):
            command("ip", "-n", self.prog, "link", "add", near, "type", "veth", "peer", "name", far, "netns", ns)
            for n, dev in ((self.prog, near), (ns, far)):
                if near == "u0":
                    with inside(n):
                        no_ipv6(dev, "0")
                command("ip", "-n", n, "link", "set", dev, "mtu", "1500" if near == "u0" else "9300", "up")
        for host, ns, dev in ((0, self.prog, "u0"), (1, self.peer, "u1"), (2, self.peer, "u1")):
            command("ip", "-n", ns, "addr", "add", HOSTS[4][host] + "/24", "dev", dev)
            command("ip", "-n", ns, "addr", "add", HOSTS[6][host] + "/64", "dev", dev, "nodad")
        for ns in self.all:
            command("ip", "-n", ns, "link", "set", "lo", "up")
        time.sleep(0.5)
        self.base, self.socks = self.interfaces() | {"br0"}, {4: {}, 6: {}}
        with inside(self.peer):
            for v, socks in self.socks.items():
                for name, (host, port) in PEERS.items():
                    s = socks[name] = socket.socket(FAMILY[v], socket.SOCK_DGRAM)
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
                    s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
                    s.bind((HOSTS[v][host], port))
                    s.setblocking(False)

    def interfaces(self):
        with inside(self.prog):
            return {name for _, name in socket.if_nameindex()}

    def taps(self):
        return sorted(self.interfaces() - self.base)

    def proc_net(self, name):
        with inside(self.prog), open("/proc/thread-self/net/" + name) as f:
            return [line.split() for line in f][1:]

    def bound(self, ports):
        """True when the program has bound all these UDP ports."""
        have = {line[1].rsplit(":", 1)[1] for f in ("udp", "udp6") for line in self.proc_net(f)}
        return all("%04X" % p in have for p in ports)

    def raw_socket(self):
        """True when the program has a packet socket on lan0."""
        with inside(self.prog):
            index = str(socket.if_nametoindex("lan0"))
        return any(line[4] == index for line in self.proc_net("packet"))

    def packet_socket(self, ns, dev, protocol):
        with inside(ns):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            s.bind((dev, protocol))
        s.setblocking(False)
        return s

    def clean(self):
        """Between two cases: forget late datagrams and interfaces left behind."""
        for dev in self.taps() + ["br0"] * ("br0" in self.interfaces()):
            subprocess.run(["ip", "-n", self.prog, "link", "del", dev], stderr=subprocess.DEVNULL)
        for socks in self.socks.values():
            for s in socks.values():
                drain(s)


def drain(s):
    with contextlib.suppress(BlockingIOError):
        while True:
            s.recv(65536)


def arrival(s):
    """When the first datagram in the queue came."""
    sec, usec = struct.unpack("ll", s.recvmsg(1, 64, socket.MSG_PEEK)[1][0][2])
    return sec + usec / 1e6


def receive_frame(s):
    """A frame with its VLAN tag in line; None if it is one that was sent on this side."""
    data, ancillary, _, addr = s.recvmsg(65536, 256)
    if addr[2] == socket.PACKET_OUTGOING:
        return None
    for level, kind, d in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", d[:20])
            if status & 0x10:                                # tag present
                data = data[:12] + struct.pack(">HH", tpid if status & 0x40 else 0x8100, tci) + data[12:]
    return data
