"""Playing the steps of one case."""
import contextlib, errno, fcntl, select, socket, struct, time

from codec import PING, PONG, Codec
from judge import Item, steps, wanted
from net import ETH_P_ALL, HOSTS, arrival, drain, inside, receive_frame

START = 10          # seconds until the program must be ready
ANSWER = 2.0        # longest wait for an output that is expected
SILENCE = 0.35      # wait after a step that should give nothing (t, u: capture time-out 1 s)
SILENCE_TU = 2.6
QUIET = 0.08        # wait for surplus output after the expected one
PONG_DELAY = 0.1    # auto_pong: safely after the state check that follows the PING


class Failure(Exception):
    pass


class Play:
    def __init__(self, net, prog, case):
        self.net, self.prog, self.case, self.v = net, prog, case, case.get("underlay", 4)
        self.codec, self.socks = Codec(**case["codec"]), net.socks[self.v]
        self.auto, self.keep = set(case.get("auto_pong", [])), case.get("keepalive_recorded", False)
        self.want, self.out, self.step = wanted(case), [], -1
        self.timed = case["direction"] == "control" or any(w.after is not None for w in self.want)
        self.inject, self.capture, self.pongs = None, None, []

    # ---- readiness
    def until(self, what, ready, limit=START):
        end = time.time() + limit
        while not ready():
            if self.prog.exited():
                raise Failure(f"exit status {self.prog.p.returncode} at start: {self.prog.last_words()[:200]}")
            if time.time() > end:
                raise Failure("not ready: " + what)
            time.sleep(0.004)

    def tap(self, control):
        def up():
            taps = self.net.taps()
            with contextlib.suppress(OSError):
                flags = fcntl.ioctl(control, 0x8913, struct.pack("16sH14x", taps[0].encode(), 0)) if len(taps) == 1 else None
                return flags is not None and struct.unpack("16sH14x", flags)[1] & 1
        self.until("no tap that is up", up)
        return self.net.taps()[0]

    def ready(self, control):
        case, mode = self.case, self.case["mode"]
        self.t0, fixed_remote = time.time(), case.get("remote", "A") not in ("any", "host", "port")
        tap = self.tap(control) if mode in "ib" else None
        ns, dev = (self.net.prog, tap) if tap else (self.net.lan, "lan1")
        self.inject = self.net.packet_socket(ns, dev, 0)
        self.capture = self.net.packet_socket(ns, dev, ETH_P_ALL)
        self.until("UDP port not bound", lambda: self.net.bound([5000, 5001] if case.get("slave") else [5000]))
        if not tap:
            with contextlib.suppress(Failure):               # it may have other ways to reach lan0
                self.until("no packet socket", self.net.raw_socket, 2)
        if not fixed_remote:
            time.sleep(0.3)
        elif mode in "tu":
            self.until("no PONG from A's PING", self.ping)
            while select.select([self.socks["A"]], [], [], 0.15)[0]:
                drain(self.socks["A"])
        else:
            self.until("no PING to A", lambda: select.select([self.socks["A"]], [], [], 0.05)[0])
            self.t0 = arrival(self.socks["A"])
        if tap:
            fcntl.ioctl(control, 0x8922, struct.pack("16si12x", tap.encode(), case.get("tap_mtu", 1500)))
        if not self.keep:
            time.sleep(0.03)
        else:
            self.collect(0.05 if mode in "tu" or not fixed_remote else 0.5)

    def ping(self):
        self.socks["A"].sendto(self.codec.enc(PING), (HOSTS[self.v][0], 5000))
        return select.select([self.socks["A"]], [], [], 0.1)[0]

    # ---- output
    def collect(self, limit, enough=None):
        """Record output for `limit` seconds, or until shortly after enough() is true."""
        end, names = time.time() + limit, {s: n for n, s in self.socks.items()}
        while (now := time.time()) < end:
            while self.pongs and self.pongs[0][0] <= now:
                _, s, to = self.pongs.pop(0)
                s.sendto(self.codec.enc(PONG), to)
            next_event = min([end] + [p[0] for p in self.pongs[:1]])
            for s in select.select([*names, self.capture], [], [], next_event - now)[0]:
                try:
                    self.take(s, names.get(s))
                except BlockingIOError:
                    pass
                except OSError as e:
                    if e.errno != errno.ENETDOWN:            # the tap goes with the program
                        raise
            if enough and enough():
                end, enough = min(end, time.time() + QUIET), None

    def take(self, s, peer):
        if not peer:
            if (frame := receive_frame(s)) is not None:
                self.out.append(Item(self.step, "inner", frame))
            return
        data, source = s.recvfrom(65536)
        plain = self.codec.dec(data)
        if plain == PING and peer in self.auto:
            self.pongs.append((time.time() + PONG_DELAY, s, source))
        if self.keep or plain is None or plain != PING and not plain.startswith(b"PASSWORD:"):
            self.out.append(Item(self.step, "udp " + peer, data))

    def answer(self):
        """Collect what follows a frame or datagram."""
        silence = SILENCE_TU if self.case["mode"] in "tu" else SILENCE
        n = sum(w.after == self.step for w in self.want) if self.timed else 0
        have = len(self.out)
        if n:
            self.collect(ANSWER + silence, lambda: len(self.out) >= have + n)
        else:
            self.collect(silence, lambda: len(self.out) > have)

    # ---- steps
    def send(self, step):
        if "udp" in step:
            port = 5001 if self.case.get("slave") and step["from"] in "CD" else 5000
            self.socks[step["from"]].sendto(bytes.fromhex(step["udp"]), (HOSTS[self.v][0], port))
        else:
            self.inject.send(bytes.fromhex(step["inner"]))

    def bulk(self, step):
        """Many frames, in small lots; the output is only counted."""
        mtu, a = self.case.get("mtu"), self.socks["A"]
        each = 2 if mtu and len(step["inner"]) // 2 > mtu - 28 else 1
        for done in range(0, step["repeat"], 50):
            n = min(50, step["repeat"] - done)
            for _ in range(n):
                self.send(step)
            n *= each
            while n:
                if not select.select([a], [], [], 5)[0]:
                    raise Failure(f"bulk: {n} datagrams missing after {done} frames")
                with contextlib.suppress(BlockingIOError):
                    while n:
                        n -= self.codec.dec(a.recv(65536)) != PING

    def alive(self):
        self.collect(0.05)
        if any(w.after == self.step and w.data.startswith(b"exit") for w in self.want):
            end = time.time() + ANSWER
            while not self.prog.exited() and time.time() < end:
                self.collect(0.05)
        state = f"exit:{self.prog.p.returncode}" if self.prog.exited() else "running"
        self.out.append(Item(self.step, "state", state.encode()))

    def run(self):
        control = None
        try:
            with inside(self.net.prog):
                control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.ready(control)
            for self.step, s in enumerate(steps(self.case)):
                if "repeat" in s:
                    self.bulk(s)
                elif "inner" in s or "udp" in s:
                    s = {"from": "A", **s}
                    self.send(s)
                    self.answer()
                elif "delay_ms" in s:
                    self.collect(s["delay_ms"] / 1000)
                elif "until_ms" in s:
                    self.collect(self.t0 + s["until_ms"] / 1000 - time.time())
                elif "auto_pong" in s:
                    self.auto = set(s["auto_pong"])
                elif s.get("op") == "alive":
                    self.alive()
                else:
                    raise Failure(f"unknown step {s}")
            if len(self.out) < len(self.want):               # slow, not missing?
                self.collect(ANSWER, lambda: len(self.out) >= len(self.want))
            if self.prog.exited() and not any(w.stream == "state" for w in self.want):
                raise Failure(f"exit status {self.prog.p.returncode} while running: {self.prog.last_words()[:200]}")
            return self.out
        finally:
            for s in (control, self.inject, self.capture):
                if s:
                    s.close()
