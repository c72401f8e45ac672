"""The table and the picture of what was measured."""

import picture

SCENES = {"cut": "RTT below 1 ms, TCP beside it", "cut-50": "RTT 50 ms, jitter 20 ms"}


class Bar:
    """A value with its bar and its aim: at most these, or at least."""

    def __init__(self, value, bar, aim, at_least=False):
        self.value, self.bar, self.aim, self.at_least = value, bar, aim, at_least

    def reaches(self, limit):
        if self.value is None:
            return False
        return self.value >= limit if self.at_least else self.value <= limit


def verdict(bars):
    if all(each.reaches(each.aim) for each in bars):
        return "aim"
    return "bar" if all(each.reaches(each.bar) for each in bars) else "**missed**"


def number(value, digits=0):
    return "none" if value is None else f"{value:.{digits}f}"


def gaps(bar, aim):
    """A row of cuts."""
    def row(found):
        gap, noise = found["gap"], found["noise"]
        text = (f"{number(gap['p50'])} / {number(gap['p99'])} ms, longest {number(gap['max'])}, of {found['count']} cuts; "
                f"cable {number(noise['p50'])} / {number(noise['p99'])}")
        return text, [Bar(gap["p50"], bar[0], aim[0]), Bar(gap["p99"], bar[1], aim[1])]
    return row


def duplicates(found):
    text = f"{found['lost']} lost, {found['twice']} written twice, {found['count']} cuts; cable lost {found['noise']}"
    return text, [Bar(found["lost"] + found["twice"], 0, 0)]


def returned(found):
    text = (f"{found['lost']} lost, {found['late']} reordered, {found['twice']} written twice, {found['count']} returns after "
            f"{found['seconds']:.1f} s; cable {found['noise']}")
    return text, [Bar(found["lost"] + found["twice"], 0, 0), Bar(found["late"], 0, 0)]


def switched(found):
    text = f"{found['switches']} in {found['seconds'] / 60:.1f} min; longest gap {found['gap']:.0f} ms"
    return text, [Bar(found["switches"], 0, 0)]


def balanced(found):
    text = f"{found['ratio']:.2f} x: {found['one']:.0f} and {found['two']:.0f} Mbit/s"
    return text, [Bar(found["ratio"], 1.7, 1.9, True)]


def transferred(when):
    """A row of transfers over a silent limit."""
    def row(found):
        parts, bars = [], []
        for kind in ("TCP", "UDP"):
            of = found[kind][when]
            if of["unfinished"]:
                parts.append(f"{kind}: {of['unfinished']} of {found['count']} not whole in {found['limit']} s ({of['least'] >> 10} KiB)")
            else:
                parts.append(f"{kind}: {of['over']:+.2f} s, worst {of['worst']:+.2f} s, longest stall {of['stall']:.2f} s")
            bars += [Bar(None if of["unfinished"] else of["worst"], 2, 0.5), Bar(of["stall"], 2, 2)]
        return "; ".join(parts), bars
    return row


def cut_into_datagrams(found):
    parts, bars = [], []
    for when in ("before", "during"):
        of = found[when]
        reached = "0.9 x never" if of["after"] is None else f"0.9 x after {of['after']:.1f} s"
        parts.append(f"{when}: {reached}, {of['share']:.2f} x from 5 s on")
        bars += [Bar(of["share"], 0.9, 0.95, True), Bar(of["after"], 5, 2)]
    return "; ".join(parts) + f"; off: {found['single']:.0f} Mbit/s", bars


def slept(found):
    text = f"{found['bytes']:.0f} B/s, {found['bytes each way']:.0f} of them one way; {found['wakeups']:.1f} wakeups/s"
    return text, [Bar(found["bytes"], 200, 100), Bar(found["wakeups"], 6, 3)]


def one_path(found):
    names = {"tcp": "TCP", "back": "the other way", "udp": "UDP", "ping": "ping"}
    text = ", ".join(f"{name} {found['ratios'][key]:.2f}" for key, name in names.items()) + f" x; medians of {found['rounds']} rounds"
    return text, [Bar(ratio, 0.97, 1, True) for ratio in found["ratios"].values()]


# Name, work, bar, aim, and the text of a row with its bars.
ROWS = [
    ("cut", "silent cut, RTT below 1 ms, TCP beside it: gap p50 / p99", "250 / 300 ms", "100 / 150 ms", gaps((250, 300), (100, 150))),
    ("cut-50", "silent cut, RTT 50 ms, jitter 20 ms: gap p50 / p99", "400 / 500 ms", "250 / 300 ms", gaps((400, 500), (250, 300))),
    ("duplicate", "`policy = \"duplicate\"`: frames lost by cuts", "0", "0", duplicates),
    ("return", "return to the preferred path: frames lost, reordered", "0, 0", "0, 0", returned),
    ("loss", "false switches at 5 % loss", "0", "0", switched),
    ("jitter", "false switches at 20 ms jitter", "0", "0", switched),
    ("balance", "balance over two shaped paths, 8 TCP streams", "1.7 x one path", "1.9 x", balanced),
    ("limit-before", "1 MiB over a silent limit of 1280: time over a clean path of 1280", "+2 s", "+0.5 s", transferred("before")),
    ("limit-during", "the same, the limit appears half-way", "+2 s", "+0.5 s", transferred("during")),
    ("runs", "runs dropped silently: TCP against `tx-udp-segmentation off`", "0.9 x in 5 s", "0.95 x in 2 s", cut_into_datagrams),
    ("idle", "idle: bytes a second on a path, wakeups of an end", "200 B/s, 6", "100 B/s, 3", slept),
    ("single", "one path: TCP, 64-byte UDP, ping, against the state before", "0.97 x", "1.0 x", one_path),
]


def figures(found):
    """The table of the figures; `found[name]` is what was measured, or the reason why it was not."""
    lines = ["| work | bar | aim | measured | reached |", "|---|---|---|---|---|"]
    for name, work, bar, aim, row in ROWS:
        if name not in found:
            continue
        if "not run" in found[name]:
            text, reached = f"not run: {found[name]['not run']}", ""
        else:
            text, bars = row(found[name])
            reached = verdict(bars)
        lines.append(f"| {work} | {bar} | {aim} | {text} | {reached} |")
    return lines + [""]


def cells(name, found):
    def three(of):
        return " / ".join(number(found[of][key]) for key in ("p50", "p99", "max"))
    every = ("gap", "both ways", "one way", "other direction", "noise")
    last = f"{found['moved']} of {found['spared']} | {number(found['lost']['p50'])}"
    return f"| {name} | {found['count']} | " + " | ".join(three(of) for of in every) + f" | {last} |"


def beside(found):
    """The tables of cuts beside other programs."""
    lines = []
    for scene, title in SCENES.items():
        rows = [(name, of[scene]) for name, of in found.items() if scene in of]
        if rows:
            lines += [f"{title}; milliseconds, p50 / p99 / longest:", "",
                      "| | cuts | gap | cut both ways | cut one way | direction not cut | cable | moved without a cut | frames lost, p50 |",
                      "|---" * 9 + "|"]
            lines += [f"| {name} | not run: {of['not run']} |" + " |" * 7 if "not run" in of else cells(name, of) for name, of in rows]
            lines.append("")
    return lines


def draw(found):
    """A bar for each program: the median gap, and pale to the 99th percentile."""
    groups = []
    for scene, title in SCENES.items():
        gaps_of = [(name, of[scene]["gap"]) for name, of in found.items() if "gap" in of.get(scene, {})]
        groups.append((title, [(name, gap["p50"], gap["p99"], f"{gap['p50']:.0f} ms, p99 {gap['p99']:.0f} ms") for name, gap in gaps_of]))
    return picture.draw("Time without frames after a silent cut of the active path", groups, 170)
