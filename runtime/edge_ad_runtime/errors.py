"""What can go wrong, as one small tree.

EdgeAdError
├── DataError         pictures, folders and masks that cannot be used
│   ├── ConfigError   a setting, option, request or trigger that cannot be used
│   └── FrameError    one frame that is lost; the next one may be fine
├── ModelFileError    not a model file of ours, damaged, or of a newer format
├── DeviceError       the asked-for device cannot run the model here
├── CameraError       a frame source that cannot be opened or that stopped
├── MissingExtraError an optional dependency is not installed
├── StuckError        a stream was told to stop and one of its threads did not end
├── NotFittedError    a detector was asked before `fit`
└── ExportError       the exported graph does not score as PyTorch does, or cannot be built

Every message is one sentence that says what was expected, what came, and what to do next.
The command line prints it and exits with 1.
"""


class EdgeAdError(Exception):
    """Any failure that edge-ad explains itself; the message is meant for the user."""


class DataError(EdgeAdError):
    """Pictures, folders or masks cannot be used."""


class ConfigError(DataError):
    """A setting, an option, a request or a trigger cannot be used."""


class FrameError(DataError):
    """One frame is lost; the source goes on with the next one."""


class ModelFileError(EdgeAdError):
    """The model file is not ours, damaged, or of a format newer than this runtime."""


class DeviceError(EdgeAdError):
    """The asked-for device or execution provider cannot run the model here."""


class CameraError(EdgeAdError):
    """A frame source cannot be opened, or stopped."""


class MissingExtraError(EdgeAdError):
    """An optional dependency is not installed."""


class StuckError(EdgeAdError):
    """A thread of a stream did not end after a stop; its outputs were left as they are."""


class NotFittedError(EdgeAdError):
    """A detector was asked for a score before it was fitted."""


class ExportError(EdgeAdError):
    """The graph cannot be built, or does not score as PyTorch does."""
