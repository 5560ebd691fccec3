"""The report's charts of schedules and of searches for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.report.plots import NUM_STYLES, Axis, Chart, Series, line_chart


def schedule_chart(title: str, schedules: Mapping[str, Sequence[float]], share: bool = False) -> Chart | None:
    """Noise level gamma_t against t for t >= 1, on a scale that is logarithmic towards 0 and towards 1.

    Args:
        title: the chart's title.
        schedules: name -> gammas[0..N], at most NUM_STYLES; gammas[0] = 1, at infinity on this scale, is omitted.
        share: draw against t / N, so that schedules of different numbers of steps can be compared.
    """
    series = [
        Series(
            name=name,
            points=[(t / (len(gammas) - 1) if share else t, gamma) for t, gamma in enumerate(gammas)][1:],
            style=f"s{number}",
            dots=len(gammas) < 40,
        )
        for number, (name, gammas) in enumerate(schedules.items(), start=1)
    ]
    assert len(series) <= NUM_STYLES, "curves of the same style are indistinguishable"
    across = Axis(label=f"{'t / N' if share else 'step t'} (sampling runs from right to left)")
    return line_chart(title, series, across, Axis(label="noise level γ", scale="logit"))


def cost_chart(trials: Sequence[Mapping[str, Any]], front: Sequence[str], word: str) -> Chart | None:
    """The distance, called `word`, of every trial against its evaluations, and the front; None without a front."""
    kept = [trial for trial in trials if trial["distance"] is not None] if front else []
    best = sorted((t for t in kept if t["name"] in front), key=lambda trial: trial["num_evaluations"])
    series = [
        _cloud(name, chosen, "num_evaluations", f"{word} {{distance:.4g}}, {{num_evaluations}} evaluations", style)
        for name, chosen, style in (("trials", kept, "s4"), ("front", best, "s1"))
    ]
    series[1] = replace(series[1], line=True)
    return line_chart("The front", series, Axis(label="network evaluations"), _distances(kept, word))


def trade_off_chart(trials: Sequence[Mapping[str, Any]], best: str, default: str, word: str) -> Chart | None:
    """The distance, called `word`, of every trial against its PSNR: the perception-distortion plane."""
    kept = [trial for trial in trials if trial["psnr"] is not None and trial["distance"] is not None]
    groups = {
        "other trials": ("s4", [trial for trial in kept if trial["name"] not in (best, default)]),
        "default": ("s2", [trial for trial in kept if trial["name"] == default != best]),
        "best": ("s1", [trial for trial in kept if trial["name"] == best]),
    }
    words = f"{word} {{distance:.4g}}, PSNR {{psnr:.2f}} dB"
    series = [_cloud(name, chosen, "psnr", words, style) for name, (style, chosen) in groups.items()]
    return line_chart("Every trial", series, Axis(label="PSNR, dB (higher is better)"), _distances(kept, word))


def _cloud(name: str, trials: Sequence[Mapping[str, Any]], x: str, words: str, style: str) -> Series:
    return Series(
        name=name,
        points=[(trial[x], trial["distance"]) for trial in trials],
        labels=[f"{trial['name']}: {words.format_map(trial)}" for trial in trials],
        style=style,
        line=False,
        dots=True,
    )


def _distances(trials: Sequence[Mapping[str, Any]], word: str) -> Axis:
    """An axis on which very bad trials do not flatten all others."""
    values = [trial["distance"] for trial in trials]
    wide = bool(values) and max(values) > 3 * min(values) > 0
    return Axis(label=f"{word} (lower is better)", scale="log" if wide else "linear")
