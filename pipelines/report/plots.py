"""The report's charts as inline SVG; the page's style sheet gives the classes s1..s4 their colours."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup

from pipelines.runs.run_folder import NUM_BUCKETS

Scale = Literal["linear", "log", "logit"]
Point = tuple[float, float]

WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 12, 44
NUM_STYLES = 8
"""Number of distinguishable curve styles in one chart."""
MAX_POINTS = 240
"""Points that a line keeps: more are indistinguishable at this width, and a run of a million steps has 20,000."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points that belong together; x rises if they are joined."""

    name: str
    points: Sequence[Point]
    style: str
    """One of s1 to s8: a colour and a dash pattern of the style sheet."""
    line: bool = True
    """Whether to join the points."""
    dots: bool = False
    """Whether to mark each point."""
    labels: Sequence[str] = ()
    """The tooltip of each point's dot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """How numbers become positions."""

    label: str
    scale: Scale = "linear"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and the data for its legend."""

    title: str
    svg: Markup
    series: Sequence[Series] = field(default_factory=tuple)


_FORWARD: dict[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.log10,
    "logit": lambda value: math.log10(value / (1 - value)),
}


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Chart | None:
    """Draw series over common axes; None if no point is left to draw.

    Points that an axis cannot show (not finite, or outside a logarithm's domain) are omitted.
    """
    drawn = [(one, _visible(one, x.scale, y.scale)) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        return None
    every = [point for _, points in drawn for _, point in points]
    across = _Positions(x.scale, [p[0] for p in every], LEFT, WIDTH - RIGHT, margin=0.0 if drawn[0][0].line else 0.06)
    up = _Positions(y.scale, [p[1] for p in every], HEIGHT - BOTTOM, TOP, margin=0.06)
    parts = [_grid(across, up), _axis_labels(x.label, y.label)]
    parts += [_draw(one, points, across, up) for one, points in drawn]
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        WIDTH, HEIGHT, f"{title}: {y.label} against {x.label}; {_in_words(drawn)}"
    )
    return Chart(title, head + Markup("").join(parts) + Markup("</svg>"), [one for one, _ in drawn])


class _Positions:
    """One axis: values to pixels, and ticks."""

    def __init__(self, scale: Scale, values: Sequence[float], first: float, last: float, margin: float) -> None:
        self.scale: Scale = scale
        self._first, self._last = first, last
        inner = [_FORWARD[scale](value) for value in values]
        low, high = min(inner), max(inner)
        room = (high - low) * margin or (0.5 * abs(high) or 0.5 if high == low else 0.0)
        self.low, self.high = low - room, high + room

    def __call__(self, value: float) -> float:
        """Pixels of a value."""
        share = (_FORWARD[self.scale](value) - self.low) / (self.high - self.low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values inside the axis, with their texts."""
        if self.scale == "linear":
            return _linear_ticks(self.low, self.high)
        if self.scale == "log" and self.high - self.low < 1.5:
            return [tick for tick in _linear_ticks(10**self.low, 10**self.high) if tick[0] > 0]
        exponents = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
        kept = [exponent for exponent in exponents if exponent % math.ceil(len(exponents) / 7) == 0]
        if self.scale == "log":
            return [(10.0**exponent, _power(exponent)) for exponent in kept]
        named = [_logit_tick(exponent) for exponent in kept]
        return [tick for tick in named if self.low <= _FORWARD["logit"](tick[0]) <= self.high]


def _linear_ticks(low: float, high: float) -> list[tuple[float, str]]:
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(index * step, _short(index * step, digits)) for index in range(first, last + 1)]


def _short(value: float, digits: int) -> str:
    if abs(value) >= 1e4:  # steps of training
        return f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
    return f"{value:.{digits}f}"


def _power(exponent: int) -> str:
    superscript = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return {0: "1", 1: "10", -1: "0.1", -2: "0.01"}.get(exponent, f"10{superscript}")


def _logit_tick(k: int) -> tuple[float, str]:
    """The round level near 10^k / (1 + 10^k): 10^k below a half, 1 - 10^-k above."""
    if k <= 0:
        return (10.0**k, _power(k)) if k else (0.5, "0.5")
    return 1 - 10.0**-k, {1: "0.9", 2: "0.99"}.get(k, f"1−{_power(-k)}")


def _visible(series: Series, x: Scale, y: Scale) -> list[tuple[int, Point]]:
    def shown(value: float, scale: Scale) -> bool:
        return math.isfinite(value) and (scale == "linear" or value > 0) and (scale != "logit" or value < 1)

    return [(i, p) for i, p in enumerate(series.points) if shown(p[0], x) and shown(p[1], y)]


def _grid(across: _Positions, up: _Positions) -> Markup:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value, text in up.ticks():
        y = round(up(value), 1)
        parts += [_line("grid", LEFT, y, right, y), _text("tick", LEFT - 7, y + 4, "end", text)]
    for value, text in across.ticks():
        x = round(across(value), 1)
        anchor = "end" if x > right - 12 else "middle"  # at the edge, a centred label would be cut off
        at = min(x + 12, WIDTH) if anchor == "end" else x
        parts += [_line("axis", x, bottom, x, bottom + 4), _text("tick", at, bottom + 17, anchor, text)]
    return Markup("").join([*parts, _line("axis", LEFT, bottom, right, bottom)])


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(style, x1, y1, x2, y2)


def _text(style: str, x: float, y: float, anchor: str, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(style, x, y, anchor, text)


def _axis_labels(x: str, y: str) -> Markup:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return Markup(
        '<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text class="label" transform="translate(12 {}) rotate(-90)" text-anchor="middle">{}</text>'
    ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x, middle, y)


def _draw(series: Series, points: list[tuple[int, Point]], across: _Positions, up: _Positions) -> Markup:
    placed = [(index, round(across(x), 1), round(up(y), 1)) for index, (x, y) in points]
    parts = []
    if series.line:
        path = "M" + "L".join(f"{x} {y}" for _, x, y in placed)
        parts.append(Markup('<path class="{}" d="{}"/>').format(f"line {series.style}", path))
    if series.dots:
        for index, x, y in placed:
            note = series.labels[index] if series.labels else ""
            title = Markup("<title>{}</title>").format(note) if note else ""
            circle = '<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>'
            parts.append(Markup(circle).format(f"dot {series.style}", x, y, 3 if series.line else 4.5, title))
    return Markup("").join(parts)


def _in_words(drawn: Sequence[tuple[Series, list[tuple[int, Point]]]]) -> str:
    """A description of the curves for readers who cannot see them."""
    lines = []
    for series, points in drawn:
        first, last = points[0][1], points[-1][1]
        span = f"from {first[1]:.3g} to {last[1]:.3g}" if series.line else f"{len(points)} points"
        lines.append(f"{series.name} {span}")
    return "; ".join(lines)


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """Replace groups of neighbours by their means, so that at most `limit` points are left."""
    size = math.ceil(len(points) / limit) if points else 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(p[0] for p in group) / len(group), sum(p[1] for p in group) / len(group)) for group in groups]


def loss_charts(stage: str, lines: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Training and held-out loss of a stage, and PSNR if it was measured, from the lines of its metrics.jsonl."""
    train = thin([(line["step"], line["loss"]) for line in lines if line["kind"] == "train"])
    held_out = thin([(line["step"], line["loss"]) for line in lines if line["kind"] == "validation"])
    ratio = thin([(line["step"], line["psnr"]) for line in lines if "psnr" in line])
    losses = [value for _, value in train + held_out if math.isfinite(value) and value > 0]
    scale: Scale = "log" if losses and max(losses) > 8 * min(losses) else "linear"
    step = Axis(label="training step")
    found = [
        line_chart(
            f"{stage}: loss",
            [
                Series(name="training", points=train, style="s4"),
                Series(name="held-out, averaged weights", points=held_out, style="s1", dots=len(held_out) <= 40),
            ],
            step,
            Axis(label="loss", scale=scale),
        ),
        line_chart(
            f"{stage}: held-out PSNR",
            [Series(name="held-out, averaged weights", points=ratio, style="s1", dots=len(ratio) <= 40)],
            step,
            Axis(label="PSNR, dB"),
        ),
    ]
    return [chart for chart in (*found, bucket_chart(stage, lines)) if chart is not None]


def bucket_chart(stage: str, lines: Sequence[Mapping[str, Any]], num_moments: int = 4) -> Chart | None:
    """Held-out loss against the noise level, in equal parts of the steps 1..T, at a few points of the training."""
    held_out = [line for line in lines if "loss_bucket_0" in line or "loss_bucket_1" in line]
    if not held_out:
        return None
    count = min(num_moments, len(held_out))
    chosen = [held_out[round(i * (len(held_out) - 1) / max(count - 1, 1))] for i in range(count)]
    series = []
    for line, style in zip(chosen, ("s4", "s3", "s2", "s1")[-count:], strict=True):
        parts = {
            int(name.removeprefix("loss_bucket_")): value for name, value in line.items() if "loss_bucket_" in name
        }
        points = [((number + 0.5) / NUM_BUCKETS, parts[number]) for number in sorted(parts)]
        series.append(Series(name=f"step {line['step']:,}", points=points, style=style, dots=True))
    values = [value for one in series for _, value in one.points]
    scale: Scale = "log" if min(values) > 0 and max(values) > 8 * min(values) else "linear"
    across = Axis(label="t / T (left: little noise, right: noise alone)")
    return line_chart(f"{stage}: held-out loss by noise level", series, across, Axis(label="loss", scale=scale))
