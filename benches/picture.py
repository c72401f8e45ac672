"""Pictures of figures: a bar for each program."""

from html import escape

WIDTH, LEFT, BAR, GAP = 760, 210, 20, 26
OURS, THEIRS, PALE = "#2a6f97", "#b8c4cc", "#dfe6ea"


def is_ours(name):
    """Whether a row is of this program. The original's name differs in its capitals."""
    return name.startswith("ethudp")


def draw(head, groups, room):
    """A picture with this heading. Each group is a title with rows `(name, value, longest, label)`: a bar up to the value, pale up to the
    longest value. `room` is the width of the labels behind the bars."""
    most = max((longest for _, group in groups for _, _, longest, _ in group), default=1) or 1
    rows, y = [], 48
    for title, group in groups:
        y += 14
        rows.append(f'<text x="12" y="{y}" class="title">{escape(title)}</text>')
        y += 10
        for name, value, longest, label in group:
            short, long = (max(1, round(of / most * (WIDTH - LEFT - room))) for of in (value, longest))
            color = OURS if is_ours(name) else THEIRS
            rows.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
            if long > short:
                rows.append(f'<rect x="{LEFT}" y="{y}" width="{long}" height="{BAR}" fill="{PALE}"/>')
            rows.append(f'<rect x="{LEFT}" y="{y}" width="{short}" height="{BAR}" fill="{color}"/>')
            rows.append(f'<text x="{LEFT + long + 8}" y="{y + 14}">{escape(label)}</text>')
            y += GAP
        y += 8
    style = "text{font:13px sans-serif;fill:#222}.title{font-weight:bold}.head{font-size:16px;font-weight:bold}"
    size = f'width="{WIDTH}" height="{y + 8}" viewBox="0 0 {WIDTH} {y + 8}"'
    background = f'<rect width="{WIDTH}" height="{y + 8}" fill="#fff"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{style}</style>", background,
                      f'<text x="12" y="28" class="head">{escape(head)}</text>', *rows, "</svg>", ""])
