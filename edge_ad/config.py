"""The options of the detectors as data: what each is called, what it accepts, what it means.

The constructors (`PaDiM(epsilon=0.1)`), the command line (`--epsilon 0.1`), the presets, the
comparison of methods and `detector.json` all derive from the fields below, so that an option is
spelled once. Nothing here needs PyTorch: a wrong value is refused before anything heavy is loaded.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

from edge_ad.option import (
    CORESET,
    DIMS,
    NAMES,
    PATCH_SIZE,
    SIZE,
    Option,
    choice,
    number,
    option,
    text,
    whole,
)
from edge_ad_runtime.errors import ConfigError

Config = TypeVar("Config", bound="DetectorConfig")
Owner = TypeVar("Owner")
Options = ParamSpec("Options")

PRESETS = ("default", "fast", "accurate", "paper")
"""`default` is `fast`: EfficientNet-Lite0 at about 256 x 256."""

ACCURATE: dict[str, Any] = {"backbone": "efficientnet_lite2", "size": 384}
"""Finer patches and a larger backbone, for small defects; it takes 5 to 6 times as long."""

GRID_STRIDES = (4, 8, 16, 32)
TURNS = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """The options that all detectors share; `option_of` describes each field.

    Raises:
        ConfigError: a value is out of its range, with what was expected.
    """

    method: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[dict[str, Any]] = {
        "backbone": "wide_resnet50_2",
        "resize": 256,
        "input_size": (224, 224),
    }
    """What the preset `paper` sets: the settings of the method's own publication."""

    backbone: str = option(
        text("the name of a backbone", "NAME"),
        "efficientnet_lite0",
        "The network whose features are compared; timm:NAME is a model of timm.",
    )
    layers: Sequence[str] | None = option(
        NAMES, None, "Names of the backbone's feature maps to use. Default: depends on the method."
    )
    weights: str | None = option(
        text("pretrained, none or a file", "pretrained|none|FILE"),
        "pretrained",
        "The backbone's weights: a state-dict file for machines without internet, or none, "
        "which leaves it untrained and is for tests only.",
        saved=False,
    )
    input_size: tuple[int, int] | None = option(
        SIZE,
        None,
        "Size of what the backbone sees. Default: the pictures' shape, with the area of --size.",
    )
    size: int = option(
        whole(32, 2048, " pixels"),
        256,
        "Side, in pixels, of a square with the same area as the input; --input-size overrides it.",
    )
    resize: int | None = option(
        whole(32, 8192, " pixels"),
        None,
        "Length of the shorter side, in pixels, before the centre is cropped.",
    )
    device: str = option(
        choice(("auto", "cpu", "cuda")),
        "auto",
        "Where to compute. auto uses CUDA where PyTorch finds it, and the CPU otherwise.",
        saved=False,
    )
    seed: int = option(whole(0), 0, "Seed of everything that is drawn at random.")
    sigma: float | None = option(
        number("a number from 0 to 256 pixels", lambda value: 0 <= value <= 256),
        None,
        "Sigma of the Gaussian blur of the anomaly map, in input pixels; 0 means no blur. Default: "
        "1/64 of the input's side, which is 4 at 256x256.",
    )
    grid_stride: int = option(
        choice(GRID_STRIDES), 8, "Distance between two neighbouring patches, in input pixels."
    )

    def __post_init__(self) -> None:
        """Refuse values that no detector can use."""
        for item in fields(self):
            value, accepted = getattr(self, item.name), option_of(type(self), item.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, item.name, value)
            if not (accepted.accepts(value) or (value is None and _may_be_none(item.name, self))):
                raise ConfigError(f"expected {accepted.expected} as {item.name}, got {value!r}")
        if self.input_size and self.resize is not None and self.resize < max(self.input_size):
            raise ConfigError(
                f"expected a resize of at least the crop, {max(self.input_size)} pixels, got "
                f"{self.resize}: raise --resize or lower --center-crop"
            )

    @classmethod
    def preset(cls, name: str) -> dict[str, Any]:
        """Return the values that a preset, one of `PRESETS`, sets in place of the defaults."""
        return {"paper": cls.paper, "accurate": ACCURATE}.get(name, {})

    def to_json(self) -> dict[str, Any]:
        """Return the options that rebuild the detector, as JSON values."""
        values = asdict(self)
        saved = {name: values[name] for name in values if option_of(type(self), name).saved}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in saved.items()}

    @classmethod
    def from_json(cls: type[Config], document: object, **more: Any) -> Config:
        """Read what `to_json` wrote; options that an older version did not have get defaults.

        Args:
            document: the parsed JSON.
            more: the options that are not saved.

        Raises:
            ConfigError: not an object of known options, or a value that is not accepted.
        """
        if not isinstance(document, Mapping):
            raise ConfigError(f"expected an object of options, got {document!r}")
        known = {item.name for item in fields(cls) if option_of(cls, item.name).saved}
        unknown = sorted(set(document) - known)
        if unknown:
            raise ConfigError(f"{cls.title} has no option {unknown[0]!r}")
        return cls(**document, **more)


@dataclass(frozen=True, kw_only=True)
class _AveragingConfig(DetectorConfig):
    """What the methods share whose papers compare features that are not averaged."""

    patch_size: int = option(
        PATCH_SIZE, 3, "Side of the window over which features are averaged; the paper has 1."
    )


@dataclass(frozen=True, kw_only=True)
class TurningConfig(DetectorConfig):
    """What the methods share that can learn each picture in several directions."""

    paper: ClassVar[dict[str, Any]] = DetectorConfig.paper | {"turns": 1}

    turns: int | None = option(
        choice(TURNS),
        None,
        "Directions in which each training picture is learnt: 1, as it is; 2, upside down as well; "
        "4, after each quarter turn. Default: 4 where the good parts lie in any direction, else 1.",
    )


@dataclass(frozen=True, kw_only=True)
class PaDiMConfig(_AveragingConfig, TurningConfig):
    """PaDiM: one Gaussian per position (Defard et al. 2020)."""

    method: ClassVar[str] = "padim"
    title: ClassVar[str] = "PaDiM"
    paper: ClassVar[dict[str, Any]] = TurningConfig.paper | {
        "dims": 550,
        "epsilon": 0.01,
        "pooling": 0.0,
        "patch_size": 1,
        "grid_stride": 4,
    }

    dims: int | str | None = option(
        DIMS,
        None,
        "Number of channels, drawn once at random. Default: all if there are up to 200, else 100.",
    )
    epsilon: float = option(
        number("a number above 0", lambda value: value > 0),
        0.1,
        "Added to the diagonal of each covariance; the paper has 0.01.",
    )
    pooling: float | None = option(
        number("a number from 0 to 1", lambda value: 0 <= value <= 1),
        None,
        "Weight of the mean covariance of the 3 x 3 positions around each position; the paper has "
        "0. Default: the weight under which left-out pictures are most likely.",
    )


@dataclass(frozen=True, kw_only=True)
class PatchCoreConfig(TurningConfig):
    """PatchCore: the nearest patch in a coreset of good ones (Roth et al. 2021)."""

    method: ClassVar[str] = "patchcore"
    title: ClassVar[str] = "PatchCore"
    paper: ClassVar[dict[str, Any]] = TurningConfig.paper | {
        "coreset": 0.1,
        "neighbours": 3,
        "grid_stride": 8,
    }

    coreset: float | int = option(
        CORESET, 0.1, "Share of the training patches to keep (with a point), or their number."
    )
    neighbours: int = option(
        whole(1), 9, "Patches of the memory that re-weight the score (eq. 7); 1: no re-weighting."
    )


@dataclass(frozen=True, kw_only=True)
class FusionConfig(PaDiMConfig):
    """Fusion: PaDiM and PatchCore on the same features, their maps added."""

    method: ClassVar[str] = "fusion"
    title: ClassVar[str] = "Fusion"

    coreset: float | int | None = option(
        CORESET,
        None,
        "Share of the training patches to keep (with a point), or their number. Default: 1 %, "
        "and at least 1,000.",
    )


@dataclass(frozen=True, kw_only=True)
class SpadeConfig(_AveragingConfig):
    """SPADE: the nearest pictures, then the nearest patches in them (Cohen & Hoshen 2020)."""

    method: ClassVar[str] = "spade"
    title: ClassVar[str] = "SPADE"
    paper: ClassVar[dict[str, Any]] = DetectorConfig.paper | {
        "k": 50,
        "gallery_rule": "position",
        "image_score": "retrieval",
        "dims": "all",
        "patch_size": 1,
        "grid_stride": 4,
    }

    k: int = option(whole(1), 50, "Training pictures to retrieve for each picture.")
    gallery_rule: str = option(
        choice(("position", "full")),
        "position",
        "Compare with patches at the same position, or at any position (the paper).",
        flag="--gallery",
    )
    image_score: str = option(
        choice(("map", "retrieval")),
        "map",
        "Score a picture by the highest value of its map, or by its mean distance to the "
        "retrieved pictures (the paper).",
    )
    dims: int | str | None = option(
        DIMS, None, "Number of channels of a stored patch, after a random projection. Default: 64."
    )

    @classmethod
    def from_json(cls, document: object, **more: Any) -> "SpadeConfig":
        """Read what `to_json` wrote; runs of the first version have the paper's image score."""
        if isinstance(document, Mapping):
            document = {"image_score": "retrieval"} | dict(document)
        return super().from_json(document, **more)


CONFIGS: dict[str, type[DetectorConfig]] = {
    config.method: config for config in (SpadeConfig, PaDiMConfig, PatchCoreConfig, FusionConfig)
}
"""Method, as on the command line and in file names, to the class of its options."""

METHODS = tuple(CONFIGS)


def option_of(config: type[DetectorConfig], name: str) -> Option:
    """Return what a field accepts and means."""
    found: Option = config.__dataclass_fields__[name].metadata["option"]
    return found


def describe(config: type[DetectorConfig]) -> str:
    """Return a line for each field of a configuration: its name and what it means."""
    names = [item.name for item in fields(config)]
    return "\n".join(f"    {name}: {option_of(config, name).help}" for name in names)


def takes_options(
    config: Callable[Options, Config],
) -> Callable[[Callable[[Owner, Config], None]], Callable[Concatenate[Owner, Options], None]]:
    """Let a constructor that takes a configuration be called with the fields of one.

    `PaDiM(epsilon=0.2)` then means `PaDiM(PaDiMConfig(epsilon=0.2))`; type checkers, `help` and
    completion see the fields.
    """

    def decorate(
        init: Callable[[Owner, Config], None],
    ) -> Callable[Concatenate[Owner, Options], None]:
        def with_options(self: Owner, /, *args: Options.args, **kwargs: Options.kwargs) -> None:
            init(self, config(*args, **kwargs))

        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(config).parameters.values()
        vars(with_options)["__signature__"] = inspect.Signature([itself, *parameters])
        with_options.__doc__ = (
            f"{inspect.getdoc(init)}\n\nArgs:\n{describe(cast('type[DetectorConfig]', config))}"
        )
        return with_options

    return decorate


def _may_be_none(name: str, config: DetectorConfig) -> bool:
    """Whether None is accepted: as a default that is decided later, or as weights to come."""
    return name == "weights" or config.__dataclass_fields__[name].default is None
