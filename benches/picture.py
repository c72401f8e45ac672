"""A picture of the figures: a bar for each program, of TCP in one direction."""

from html import escape

WIDTH, LEFT, BAR, GAP = 760, 210, 20, 26
OURS, THEIRS = "#2a6f97", "#b8c4cc"


def is_ours(name):
    """Whether a row is of this program. The original's name differs in its capitals."""
    return name.startswith("ethudp")


def draw(results):
    rows, y = [], 48
    most = max((figures.get("tcp", 0) for _, group in results for _, figures in group), default=1) or 1
    for title, group in results:
        y += 14
        rows.append(f'<text x="12" y="{y}" class="title">{escape(title)}</text>')
        y += 10
        for name, figures in group:
            speed = figures.get("tcp", 0)
            length = max(1, round(speed / most * (WIDTH - LEFT - 110)))
            color = OURS if is_ours(name) else THEIRS
            rows.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
            rows.append(f'<rect x="{LEFT}" y="{y}" width="{length}" height="{BAR}" fill="{color}"/>')
            rows.append(f'<text x="{LEFT + length + 8}" y="{y + 14}">{speed / 1000:.2f} Gbit/s</text>')
            y += GAP
        y += 8
    style = "text{font:13px sans-serif;fill:#222}.title{font-weight:bold}.head{font-size:16px;font-weight:bold}"
    head = '<text x="12" y="28" class="head">One TCP stream through the tunnel, both ends on one machine</text>'
    size = f'width="{WIDTH}" height="{y + 8}" viewBox="0 0 {WIDTH} {y + 8}"'
    background = f'<rect width="{WIDTH}" height="{y + 8}" fill="#fff"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{style}</style>", background, head,
                      *rows, "</svg>", ""])
