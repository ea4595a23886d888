"""A run as a picture: the energy step by step with its error, and the exact value, as one SVG file."""

from collections.abc import Sequence
from pathlib import Path

from ketwork.waves.ground_state import Step

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 720, 420, 86, 46, 18


def draw(history: Sequence[Step], path: str | Path, *, title: str = "", exact: float | None = None) -> None:
    """Writes the SVG. The vertical range leaves out the fall from the random start, which would flatten the rest."""
    if not history:
        raise ValueError("Argument `history` must have at least one step, but has none.")
    steps = [s.index for s in history]
    means, errors = [s.energy.mean for s in history], [s.energy.error for s in history]
    late = sorted(means[len(means) // 4 :] + ([] if exact is None else [exact]))
    low, high = late[0] - max(errors), late[int(0.98 * (len(late) - 1))] + max(errors[len(errors) // 4 :])
    pad = 0.06 * (high - low) or max(1e-9, 1e-3 * abs(high))
    low, high = low - pad, high + pad

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - MARGIN) * (step - steps[0]) / max(1, steps[-1] - steps[0])

    def y(energy: float) -> float:
        return MARGIN + 22 + (HEIGHT - BOTTOM - MARGIN - 22) * (high - energy) / (high - low)

    upper = [f"{x(s):.1f},{y(m + e):.1f}" for s, m, e in zip(steps, means, errors, strict=True)]
    lower = [f"{x(s):.1f},{y(m - e):.1f}" for s, m, e in zip(steps, means, errors, strict=True)]
    line = [f"{x(s):.1f},{y(m):.1f}" for s, m in zip(steps, means, strict=True)]
    ticks = [low + (high - low) * k / 4 for k in range(5)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="{MARGIN + 8}">{_escaped(title)}</text>',
        f'<clipPath id="inside"><rect x="{LEFT}" y="{MARGIN + 22}" width="{WIDTH - LEFT - MARGIN}" '
        f'height="{HEIGHT - BOTTOM - MARGIN - 22}"/></clipPath>',
        *(
            f'<path d="M{LEFT} {y(t):.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{t:.6g}</text>'
            for t in ticks
        ),
        '<g clip-path="url(#inside)">',
        f'<polygon points="{" ".join(upper + lower[::-1])}" fill="#4c78a8" opacity="0.25"/>',
        f'<polyline points="{" ".join(line)}" fill="none" stroke="#4c78a8" stroke-width="1.5"/>',
        "</g>",
    ]
    if exact is not None:
        parts.append(
            f'<path d="M{LEFT} {y(exact):.1f}H{WIDTH - MARGIN}" stroke="#e45756" stroke-dasharray="6 4"/>'
            f'<text x="{WIDTH - MARGIN - 4}" y="{y(exact) - 6:.1f}" text-anchor="end" fill="#e45756">'
            f"exact {exact:.8g}</text>"
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 12}" text-anchor="middle">step</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 26}">{steps[0]}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 26}" text-anchor="end">{steps[-1]}</text></svg>'
    )
    Path(path).write_text("\n".join(parts), encoding="utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
