"""What a case wants to come out, and whether what came out is that."""
import collections

from codec import Codec, fragment, reassemble

Item = collections.namedtuple("Item", "after stream data")   # stream: inner | udp A..D | state


def wanted(case):
    """What should come out; after = None where the recording does not say."""
    out = []
    for o in case.get("fixed", case["output"]):
        if isinstance(o, str):
            o = {"udp": o, "to": "A"} if case["direction"] == "tx" else {"inner": o}
        if "state" in o:
            out.append(Item(o.get("after"), "state", o["state"].encode()))
        else:
            stream = "inner" if "inner" in o else "udp " + o["to"]
            out.append(Item(o.get("after"), stream, bytes.fromhex(o.get("inner") or o.get("udp") or "")))
    return out


def steps(case):
    plain = {"tx": "inner", "rx": "udp"}.get(case["direction"])
    return [{plain: s} if isinstance(s, str) else s for s in case["input"]]


def describe(items):
    show = lambda d: "not valid" if d is None else d.decode() if d[:4] in (b"exit", b"runn") else f"{len(d)}B {d[:12].hex()}"
    text = ", ".join(map(show, items[:3])) + ", ..." * (len(items) > 3)
    return f"{len(items)} ({text})" if items else "nothing"


def difference(where, want, got):
    text = f"{where}: expected {describe(want)}, got {describe(got)}"
    for n, (w, g) in enumerate(zip(want, got)):
        if w != g:
            if w is not None and g is not None:
                at = next((i for i, (x, y) in enumerate(zip(w, g)) if x != y), min(len(w), len(g)))
                text += f"; first difference in item {n}, byte {at}: {w[at:at + 4].hex() or 'end'} / {g[at:at + 4].hex() or 'end'}"
            break
    return text


def judge(case, got):
    """'' or what is wrong.  Per step and stream the order counts, between streams it does not."""
    want, codec = wanted(case), Codec(**case["codec"])
    if case["compare"] == "distinct":
        w, g = ({(i.stream, i.data) for i in items} for items in (want, got))
        return "" if w == g else f"distinct outputs: expected {sorted(w)}, got {sorted(g)}"
    timed = "fixed" not in case and (case["direction"] == "control" or any(w.after is not None for w in want))

    def streams(items):
        out = collections.defaultdict(list)
        for i in items:
            out[i.after if timed else None, i.stream].append(i.data)
        return out

    def decoded(items):
        return {k: [codec.dec(d) for d in reassemble(v)] if k[1][:3] == "udp" else v for k, v in streams(items).items()}

    sort = streams
    if case["compare"] == "decode":
        sort = decoded
        if "fixed" not in case and (flat := [d and d.hex() for v in decoded(want).values() for d in v]) != case["decoded"]:
            return "broken vector: `decoded` does not match `output`: " + difference(
                "decoded", [d and bytes.fromhex(d) for d in case["decoded"]], [d and bytes.fromhex(d) for d in flat])
        if case["direction"] == "tx":
            raw = [i.data for i in got if i.stream == "udp A"]
            if fragment(reassemble(raw), case.get("mtu")) != raw:
                return "fragments do not follow the rules: got " + describe(raw)
    w, g = sort(want), sort(got)
    for key in sorted({*w, *g}, key=str):
        if w.get(key, []) != g.get(key, []):
            after, stream = key
            where = stream if after is None else f"{stream} after step {after}" if after >= 0 else f"{stream} at start"
            return difference(where, w.get(key, []), g.get(key, []))
    return ""
