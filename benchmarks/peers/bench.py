"""What all tables share: the contenders, the pictures, what was measured, and what a table is."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.peers.measurements import Measurements
from benchmarks.peers.pictures import StagedClass, timm_weights
from benchmarks.peers.tools import ANOMALIB, ANOMAVISION, EDGE_AD, PeerError, Tool, ask
from edge_ad_runtime.errors import EdgeAdError

FIT_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Contender:
    """A method of a tool, in one configuration.

    Attributes:
        tool: whose it is.
        title: as in the tables.
        method: as its adapter calls it.
        dims: channels of PaDiM; None: the tool's own choice.
        preset: of edge-ad.
        one_class: it is known to fail everywhere alike, so that one class is enough to show it.
    """

    tool: Tool
    title: str
    method: str
    dims: int | None = None
    preset: str = "default"
    one_class: bool = False

    @property
    def name(self) -> str:
        """The tool's name and the title: unique."""
        return f"{self.tool.name} {self.title}"


CONTENDERS = (
    Contender(EDGE_AD, "fusion", "fusion"),
    Contender(ANOMALIB, "PaDiM, 100 of 176 channels", "padim", dims=100),
    Contender(EDGE_AD, "PaDiM", "padim"),
    Contender(ANOMAVISION, "PaDiM, 100 of 176 channels", "padim", dims=100),
    Contender(EDGE_AD, "PatchCore", "patchcore"),
    Contender(ANOMAVISION, "PatchCore", "patchcore"),
    Contender(EDGE_AD, "SPADE", "spade"),
    Contender(ANOMALIB, "MH-PatchCore", "mh_patchcore"),
    Contender(ANOMALIB, "PatchCore", "patchcore"),
    Contender(EDGE_AD, "fusion, preset accurate", "fusion", preset="accurate"),
    Contender(ANOMALIB, "PaDiM, all 176 channels", "padim", dims=176, one_class=True),
    Contender(ANOMALIB, "RAD", "rad", one_class=True),
    Contender(ANOMALIB, "SuperADD", "superadd", one_class=True),
)


@dataclass(frozen=True)
class Column:
    """A column of figures. `better` is 1 where larger is better, -1 where smaller is, else 0."""

    title: str
    better: int = 0
    format: str = "{:.1f}"


@dataclass
class Row:
    """One contender's figures, in the order of the columns; None: there is none."""

    name: str
    figures: Sequence[float | None]
    note: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is a row of edge-ad."""
        return self.name.startswith(EDGE_AD.name)


@dataclass
class Table:
    """A table with what must be known to read it."""

    title: str
    about: str
    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)


@dataclass
class Bench:
    """One run of the benchmark.

    Attributes:
        work: folder for everything that is written on the way.
        data_root: where the class folders lie.
        class_names: what is trained on.
        measurements: what was measured so far.
        pictures: good pictures to learn from, at most.
        rounds: turns of each timing.
        share: of the patches in a memory.
    """

    work: Path
    data_root: Path
    class_names: Sequence[str]
    measurements: Measurements
    pictures: int = 200
    rounds: int = 40
    share: float = 0.01
    contenders: Sequence[Contender] = CONTENDERS

    @cached_property
    def classes(self) -> list[StagedClass]:
        """The classes, laid out for all tools."""
        return [
            StagedClass(name, self.data_root, self.work, self.pictures) for name in self.class_names
        ]

    @cached_property
    def weights(self) -> Path:
        """The packaged backbone weights for the peers."""
        return timm_weights(self.work / "efficientnet_lite0.pt")

    def folder(self, contender: Contender, staged: StagedClass) -> Path:
        """Where the files of a training lie."""
        name = contender.name.replace(" ", "-").replace(",", "")
        return self.work / f"fitted-{self.pictures}" / staged.name / name

    def fitted(self, contender: Contender, staged: StagedClass) -> dict[str, Any]:
        """Train, export and evaluate one contender on one class, unless that was done before.

        Returns:
            The fields of `Fitted`, and `accuracy`; or `error`.
        """
        key = {
            "table": "fit",
            "contender": contender.name,
            "class": staged.name,
            "pictures": self.pictures,
            "share": self.share,
        }
        return self.measurements.get(key, lambda: self._fit(contender, staged))

    def all_fitted(self, contender: Contender) -> Iterator[tuple[StagedClass, dict[str, Any]]]:
        """Give the trainings of a contender on all classes; one that failed holds `error`."""
        for staged in self.classes[:1] if contender.one_class else self.classes:
            yield staged, self.fitted(contender, staged)

    def fit_all(self) -> None:
        """Let the contenders take turns, class by class, so that all meet the same conditions."""
        for index, staged in enumerate(self.classes):
            for contender in self.contenders:
                if index == 0 or not contender.one_class:
                    self.fitted(contender, staged)

    def request(self, contender: Contender, staged: StagedClass) -> dict[str, Any]:
        """Return what every request to an adapter holds."""
        size = None if contender.preset == "accurate" else staged.input_size
        return {
            "category": str(staged.folder),
            "folder": str(self.folder(contender, staged)),
            "method": contender.method,
            "preset": contender.preset,
            "dims": contender.dims,
            "input_size": size,
            "share": self.share,
            "pictures": staged.n_train,
            "weights": str(self.weights),
        }

    def _fit(self, contender: Contender, staged: StagedClass) -> Mapping[str, Any]:
        folder = self.folder(contender, staged)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        request = {"do": "fit", **self.request(contender, staged)}
        fitted = ask(contender.tool, request, FIT_TIMEOUT_S)
        try:
            accuracy = staged.evaluate(fitted, folder)
        except EdgeAdError as error:  # a map that is not finite, for example
            raise PeerError(str(error)) from error
        (folder / "maps.npz").unlink()  # 20 to 80 MB each
        (folder / "fitted.json").write_text(json.dumps(fitted))
        return {**fitted, "accuracy": accuracy}
