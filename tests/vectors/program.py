"""The tested program: its command line, its files, its end."""
import collections, contextlib, os, re, signal, subprocess, time

from net import HOSTS, PEERS, inside
from play import Failure

STOP = 3            # seconds between SIGTERM and SIGKILL


def descendants(pid):
    """{pid: state} of all descendants."""
    children = collections.defaultdict(list)
    for d in os.listdir("/proc"):
        if d.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{d}/stat") as f:
                state, parent = f.read().rpartition(")")[2].split()[:2]
                children[int(parent)].append((int(d), state))
    out, todo = {}, [pid]
    while todo:
        found = children[todo.pop()]
        out.update(found)
        todo += [p for p, _ in found]
    return out


def kill_descendants():
    """True if there were any that had not ended."""
    found, end = False, time.time() + 5
    while (left := descendants(os.getpid())) and time.time() < end:
        for pid, state in left.items():
            if state != "Z":
                found = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    return found


def convert(binary, words, directory, env):
    """Has `convert` write the file for a classic command line; -> the words that run it, as the file's comments say."""
    argv = [binary, "convert", "--dir", directory, *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=directory, env=env)
    name = re.match(r"# (\S+\.toml): ", done.stdout)
    if done.returncode or not name:
        raise Failure(f"convert: exit status {done.returncode}: {(done.stderr or done.stdout).strip()[:200]}")
    path = os.path.join(directory, name[1])
    with open(path, "w") as f:
        f.write(done.stdout)
    user = re.search(r"^# run it with: ethudp up (--user \S+) ", done.stdout, re.M)
    return ["up", *(user[1].split() if user else []), path]


class Program:
    """One run of the tested program; all it starts stays below this process (child subreaper)."""

    def __init__(self, net, how, case, directory):
        v = case.get("underlay", 4)
        local, a, _, any_host = HOSTS[v]
        special = {"any": (any_host, 0), "host": (a, 0), "port": (any_host, 6000)}
        def ends(port, who):
            host = special.get(who) or (HOSTS[v][PEERS[who][0]], PEERS[who][1])
            return [local, str(port), host[0], str(host[1])]
        os.chmod(directory, 0o755)
        runtime = os.path.join(directory, "run")
        os.mkdir(runtime)
        os.chmod(runtime, 0o777)
        options = list(case["options"])
        for name, content in case.get("files", {}).items():
            path = os.path.join(directory, name)
            with open(path, "w") as f:
                f.write(content)
            os.chmod(path, 0o644)
            options = [path if o == name else o for o in options]
        tail = {"i": ["10.8.0.1", "24"], "b": ["br0"]}.get(case["mode"], ["lan0"]) + case.get("args_tail", [])
        words = [*how.args, "-d", "-" + case["mode"], *options, *ends(5000, case.get("remote", "A")), *tail]
        if case.get("slave"):
            words += ends(5001, case["slave"])
        self.log, self.stubborn = os.path.join(directory, "log"), False
        env = {**os.environ, "RUNTIME_DIRECTORY": runtime, **how.env}
        if how.by_file:
            words = convert(how.binary, words, directory, env)
        with inside(net.prog), open(self.log, "wb") as log:
            self.p = subprocess.Popen([how.binary, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
                                      env=env, start_new_session=True)

    def exited(self):
        return self.p.poll() is not None

    def last_words(self, n=1):
        with open(self.log, errors="replace") as f:
            return "\n".join(f.read().strip().splitlines()[-n:])

    def stop(self):
        self.p.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.p.wait(STOP)
        self.stubborn = kill_descendants()
        self.p.poll()
