"""Score a source until it ends or someone says stop."""

import threading
from collections.abc import Callable, Sequence

from edge_ad_runtime.cameras import FrameSource
from edge_ad_runtime.cameras.feed import Feed, Recovery
from edge_ad_runtime.outputs import Delivery, Output
from edge_ad_runtime.stream.loop import Loop
from edge_ad_runtime.stream.prepared import FrameScorer
from edge_ad_runtime.stream.summary import StreamSummary, sum_up

__all__ = ["FrameScorer", "StreamSummary", "run_stream"]


def run_stream(
    source: FrameSource,
    scorer: FrameScorer,
    outputs: Sequence[Output] = (),
    *,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    reopen: Callable[[], FrameSource] | None = None,
) -> StreamSummary:
    """Score the frames of one source until it ends, and hand each verdict to every output.

    Files: every frame once, in order. Live: the newest frame each time; skipped ones are counted.
    A frame that cannot be read or scored is an event and counted, and the stream goes on; an output
    that fails likewise. The source is closed at the end.

    Args:
        source: where frames come from.
        scorer: a `Scorer`, or anything with its `score`.
        outputs: where verdicts go; those with an `event` get the events too.
        max_frames: end after so many frames, failed ones included.
        stop: set it, from a signal handler or another thread, to end after the current frame.
        reopen: opens a live source again when it is lost; None: then the stream ends.

    Raises:
        DeviceError: the device can no longer run the model.
    """
    delivery = Delivery(outputs)
    loop = Loop(scorer, delivery)
    feed = Feed(
        source.name,
        source,
        reopen=reopen,
        recovery=Recovery(),
        report=delivery.event,
        prepare=loop.prepare,
        changed=loop.changed,
    )
    loop.add(feed)
    try:
        loop.run(stop or threading.Event(), max_frames=max_frames)
    finally:
        delivery.close()
    return sum_up([loop.tally], delivery.lost)
