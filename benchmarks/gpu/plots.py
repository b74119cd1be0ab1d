"""PNGs of a record, from its JSON alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.bins import binned

OWNERS = ("weights", "kv_pool", "other", "logits", "activations")
GIB = 1024**3
LINES: tuple[Any, ...] = ("-", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), "--")
MARKERS = ("o", "s", "^", "v", "x")


def draw(record: dict[str, Any], folder: Path) -> list[Path]:
    """One file a plot for which the record has data; the paths written."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SystemExit("matplotlib is not installed: pip install matplotlib") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    parts = record["parts"]
    device = next((entry["run"].get("device", "") for entry in parts.values()), "")
    plots: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
        "latency_cdf": ("open-loop", _latency_cdf),
        "throughput_against_load": ("open-loop", _throughput),
        "memory_by_owner": ("memory", _memory),
        "batch_composition": ("offline", _composition),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (part, plot) in plots.items():
        if part not in parts:
            continue
        figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
        if plot(axes, parts[part]["data"]):
            axes.set_title(f"{name.replace('_', ' ')} - {device}")
            axes.grid(alpha=0.3)
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=120)
            written.append(path)
        pyplot.close(figure)
    return written


def _latency_cdf(axes: Any, data: dict[str, Any]) -> bool:
    """At the share of saturation that most runs have. Requests still open at a cut count with their wait so
    far."""
    runs = [run for run in _steady_runs(data) if run["latencies"]["values"]]
    shares = [run["share"] for run in runs]
    runs = [run for run in runs if run["share"] == max(set(shares), key=shares.count)]
    looks = _Looks(runs)
    for run in runs:
        values = run["latencies"]["values"]
        done = [(index + 1) / len(values) for index in range(len(values))]
        axes.step(values, done, where="post", **looks.line(run))
    axes.set(xscale="log", xlabel="end-to-end latency (s)", ylabel="share of requests")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return bool(runs)


def _throughput(axes: Any, data: dict[str, Any]) -> bool:
    """Committed tokens a second against the load."""
    runs = [run for run in _steady_runs(data) if run["seconds"]]
    looks = _Looks(runs)
    for key in sorted({_way(run) for run in runs}):
        same = sorted((run for run in runs if _way(run) == key), key=lambda run: float(run["share"]))
        rates = [run["tokens"] / run["seconds"] for run in same]
        axes.plot([100 * run["share"] for run in same], rates, **looks.marked(same[0]))
    axes.set(xlabel="offered load (% of saturation)", ylabel="throughput (tok/s)", ylim=(0, None))
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return bool(runs)


def _steady_runs(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in data.get("runs", []) if run["process"] != "overload"]


def _way(run: dict[str, Any]) -> tuple[str, str]:
    """Profile, and what served which arrivals."""
    return run["profile"], run["process"] if run["system"] == "engine" else run["system"]


class _Looks:
    """A profile has one colour, a way to serve it one line and one marker."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self._profiles = sorted({run["profile"] for run in runs})
        self._ways = sorted(
            {_way(run)[1] for run in runs}, key=lambda way: (way == "static", way != "poisson", way)
        )

    def line(self, run: dict[str, Any]) -> dict[str, Any]:
        profile, way = _way(run)
        color = f"C{self._profiles.index(profile)}"
        return {"color": color, "linestyle": self._pick(way, LINES), "label": f"{profile}, {way}"}

    def marked(self, run: dict[str, Any]) -> dict[str, Any]:
        return self.line(run) | {"marker": self._pick(_way(run)[1], MARKERS)}

    def _pick(self, way: str, looks: tuple[Any, ...]) -> Any:
        return looks[self._ways.index(way) % len(looks)]


def _memory(axes: Any, data: dict[str, Any]) -> bool:
    """Peak bytes by owner in each second of the overload inside the limit."""
    run = next(iter(data.get("runs", {}).values()), None)
    if run is None or not run["windows"]:
        return False
    seconds = [window["second"] for window in run["windows"]]
    stacks = [[window.get(owner, 0) / GIB for window in run["windows"]] for owner in OWNERS]
    axes.stackplot(seconds, stacks, labels=OWNERS)
    limit = run["memory"]["device_total_bytes"] / GIB
    axes.axhline(limit, color="black", linestyle="--", label=f"limit {limit:.1f} GiB")
    axes.set(xlabel="time (s)", ylabel="GiB, peak of a second")
    axes.legend(fontsize=8, loc="lower right")
    return True


def _composition(axes: Any, data: dict[str, Any]) -> bool:
    """Query tokens a step by phase, over time, of the case with most requests at one token a step."""
    cases = data.get("cases", [])
    if not cases:
        return False
    case = max(cases, key=lambda entry: (-entry["quota"], entry["requests"]))
    samples = binned(case["composition"], 120)
    seconds = [sample[0] for sample in samples]
    axes.stackplot(
        seconds, [s[2] for s in samples], [s[1] for s in samples], labels=("reuse", "refresh"), step="mid"
    )
    label = f"{case['requests']} requests, {case['quota']} a step, r = {case['retention_ratio']:g}"
    axes.set(xlabel=f"time (s), {label}", ylabel="query tokens a step")
    axes.legend(fontsize=8)
    return True
