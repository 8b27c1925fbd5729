"""RESULTS.md and the chart, from the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.peers.bench import Column, Row, Table

WHY: Mapping[tuple[str, str], str] = {
    ("Training", "wall, s"): "edge-ad scores every good picture as if it had not learnt from it, "
    "because its limit comes from these scores; the quicker ones set no limit in this time",
    ("Training", "CPU, s"): "as for the wall time",
    ("Fidelity", "largest score difference, % of the range"): "edge-ad's default file computes in "
    "8-bit integers, which is where its speed comes from; a float32 file agrees to about 1e-6, see "
    "export.md",
    ("Accuracy", "PRO, mean"): "the peers' PaDiM compares patches at stride 4 and edge-ad at "
    "stride 8, with a quarter of the Gaussians; whether that is the whole cause was not measured",
}
"""What is known about the figures in which edge-ad does not lead, by table and column."""

NOT_LOOKED_INTO = "the cause was not looked into"


def markdown(table: Table) -> str:
    """Write a table with its text before and its problems after it."""
    head = ["", *(column.title for column in table.columns)]
    lines = [_line(head), _line(["---"] * len(head))]
    notes: list[str] = []
    best = [_best(table.rows, index, column) for index, column in enumerate(table.columns)]
    for row in table.rows:
        name = row.name
        if row.note:
            notes.append(row.note)
            name += f" [{len(notes)}]"
        cells = [
            _cell(row.figures[index], column, best[index])
            for index, column in enumerate(table.columns)
        ]
        lines.append(_line([name, *cells]))
    numbered = [f"- [{index}] {note}" for index, note in enumerate(notes, start=1)]
    parts = [f"## {table.title}", table.about, "\n".join(lines)]
    if numbered:
        parts.append("\n".join(numbered))
    parts.append(_verdict(table))
    return "\n\n".join(parts) + "\n"


def not_leading(table: Table) -> list[str]:
    """Say in which columns another tool than edge-ad has the best figure, and why."""
    said = []
    for index, column in enumerate(table.columns):
        if column.better == 0:
            continue
        ours = _best([row for row in table.rows if row.ours], index, column)
        peers = [row for row in table.rows if _is_peer(row)]
        theirs = _best(peers, index, column)
        if theirs is None:
            continue
        if ours is not None and (
            ours * column.better >= theirs * column.better
            or column.format.format(ours) == column.format.format(theirs)
        ):
            continue
        leader = next(row.name for row in peers if row.figures[index] == theirs)
        mine = "no figure" if ours is None else column.format.format(ours)
        why = WHY.get((table.title, column.title), NOT_LOOKED_INTO)
        best = column.format.format(theirs)
        said.append(f"{column.title}: {leader} {best}, edge-ad's best {mine} ({why})")
    return said


def _verdict(table: Table) -> str:
    said = not_leading(table)
    if not said:
        return "edge-ad has the best figure in every column."
    return "edge-ad does not lead in:\n\n" + "\n".join(f"- {one}." for one in said)


def _is_peer(row: Row) -> bool:
    # The bare backbone is a yardstick and no tool.
    return row.name.startswith(("anomalib", "anomavision"))


def _best(rows: Sequence[Row], index: int, column: Column) -> float | None:
    values = [
        value
        for row in rows
        if (value := row.figures[index]) is not None and (row.ours or _is_peer(row))
    ]
    if not values or column.better == 0:
        return None
    return max(values) if column.better > 0 else min(values)


def _cell(value: float | None, column: Column, best: float | None) -> str:
    if value is None:
        return "-"
    text = column.format.format(value)
    return f"**{text}**" if best is not None and text == column.format.format(best) else text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def draw_chart(points: Mapping[str, tuple[float, float]], path: Path, classes: int) -> None:
    """Draw mean image AUROC against latency, with the Pareto front.

    Args:
        points: for each contender the milliseconds and the AUROC in percent.
        path: of the SVG.
        classes: how many classes the mean is over.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot, ticker

    # Ids from a fixed salt and no date, so that the same figures give the same file.
    pyplot.rcParams["svg.hashsalt"] = "edge-ad"
    figure, axes = pyplot.subplots(figsize=(9, 4.2))
    # Numbers, quickest first, and their names beside the chart: several tools reach 100 %, and
    # their names would lie on each other.
    for number, name in enumerate(sorted(points, key=lambda one: points[one][0]), start=1):
        colour, marker = {"edge-ad": ("#0b6e4f", "o"), "anomalib": ("#a23b3b", "s")}.get(
            name.split()[0], ("#6b5b95", "D")
        )
        label = f"{number}  {name}"
        axes.scatter(*points[name], color=colour, marker=marker, s=110, zorder=3, label=label)
        axes.annotate(
            str(number), points[name], ha="center", va="center", fontsize=7, color="white", zorder=4
        )
    front = pareto_front(points)
    axes.step(
        [points[name][0] for name in front],
        [points[name][1] for name in front],
        where="post",
        color="#0b6e4f",
        linewidth=1,
        zorder=2,
    )
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(ticker.FormatStrFormatter("%g"))
    axes.set_xlabel("1024 x 1024 frame to verdict, ms (2 threads, logarithmic)")
    over = f"mean of {classes} classes" if classes > 1 else "one class"
    axes.set_ylabel(f"image AUROC, %, {over}")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.margins(x=0.08, y=0.12)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Name the points that no other one beats in both time and accuracy, quickest first."""
    front: list[str] = []
    for name in sorted(points, key=lambda one: (points[one][0], -points[one][1])):
        if not front or points[name][1] > points[front[-1]][1]:
            front.append(name)
    return front
