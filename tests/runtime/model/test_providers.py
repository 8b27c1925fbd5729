"""Execution providers, with an ONNX Runtime that behaves as GPU builds were seen to behave.

`FakeRuntime` repeats what ONNX Runtime 1.31.1 for CUDA did on a machine without a GPU, and what is
reported of wheels without kernels for a GPU: it falls back silently, with a line on stdout for
TensorRT; `session.disable_cpu_ep_fallback` makes it raise, and contradicts an explicit CPU.
"""

import os
import stat
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edge_ad.cli import main
from edge_ad_runtime import ModelInfo, Scorer
from edge_ad_runtime.errors import ConfigError, DeviceError
from edge_ad_runtime.model import accelerator
from edge_ad_runtime.model.accelerator import CPU, CUDA, TENSORRT, AcceleratorConfig
from edge_ad_runtime.model.golden import Golden
from edge_ad_runtime.model.session import create_session, session_options
from edge_ad_runtime.stream.config import parse_config
from edge_ad_runtime.stream.model_slot import ModelSlot

HEIGHT, WIDTH = 32, 64


class Fail(Exception):
    pass


class InvalidArgument(Exception):
    pass


@dataclass
class FakeRuntime:
    """What is compiled in, what starts, and what it can do.

    Attributes:
        compiled: providers.
        starts: those whose libraries and driver are there.
        partial: of these, those that leave a part of the graph to the CPU.
        kernels: whether the wheel has kernels for this GPU.
        error: relative error of its scores.
        opened: providers and options of each session.
        log: how loud its default log is.
        choices: batch size and loudness whenever cuDNN chose, for a batch of another size.
    """

    compiled: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    starts: tuple[str, ...] = (TENSORRT, CUDA)
    partial: tuple[str, ...] = ()
    kernels: bool = True
    error: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)
    opened: list[tuple[list[str], list[dict[str, str]]]] = field(default_factory=list)
    log: int = 2
    choices: list[tuple[int, int]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "FakeRuntime":
        module: Any = ModuleType("onnxruntime")
        state: Any = ModuleType("onnxruntime.capi.onnxruntime_pybind11_state")
        state.Fail, state.InvalidArgument = Fail, InvalidArgument
        state.InvalidProtobuf = state.InvalidGraph = type("InvalidProtobuf", (Exception,), {})
        module.capi = ModuleType("onnxruntime.capi")
        module.capi.onnxruntime_pybind11_state = state
        module.__version__, module.__spec__ = "1.31.1", ModuleSpec("onnxruntime", None)
        module.get_available_providers = lambda: list(self.compiled)
        module.preload_dlls = lambda: print("preloading")
        module.set_default_logger_severity = partial(setattr, self, "log")
        module.SessionOptions = FakeOptions
        module.InferenceSession = self.session
        for name in (module, module.capi, state):
            monkeypatch.setitem(sys.modules, name.__name__, name)
        return self

    def session(
        self,
        model: bytes,
        options: "FakeOptions",
        providers: list[str],
        provider_options: list[dict[str, str]],
        enable_fallback: int = 1,
    ) -> "FakeSession":
        self.opened.append((providers, provider_options))
        strict = options.entries.get("session.disable_cpu_ep_fallback") == "1"
        if strict and CPU in providers:
            raise InvalidArgument("disable_cpu_ep_fallback conflicts with an explicit CPU provider")
        running = [name for name in providers if name in self.starts]
        if TENSORRT in providers and TENSORRT not in running:
            if not enable_fallback:
                raise RuntimeError(
                    "/source/onnxruntime_pybind_state.cc:729 void onnxruntime::python::Register"
                    "TensorRTPlugins(Options&, const Options&) Please install TensorRT libraries"
                )
            print(f"EP Error ... Falling back to {[CUDA, CPU]} and retrying.")
            if strict:
                raise InvalidArgument("explicitly added the CPU EP, but also disabled fallback")
        on_cpu = not running or all(name in self.partial for name in running)
        if strict and on_cpu:
            raise Fail("This session contains graph nodes that are assigned to the default CPU EP")
        return FakeSession(self, [*running, CPU])


class FakeOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value


class FakeSession:
    """The mean of the frame as score, its channels' mean as map."""

    def __init__(self, runtime: FakeRuntime, providers: list[str]) -> None:
        self.runtime, self.providers = runtime, providers
        self.runs = self.batch = 0

    def get_providers(self) -> list[str]:
        return self.providers

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="frame", type="tensor(uint8)", shape=["N", HEIGHT, WIDTH, 3])]

    def get_outputs(self) -> list[Any]:
        return [
            SimpleNamespace(name="score", type="tensor(float)", shape=["N"]),
            SimpleNamespace(name="anomaly_map", type="tensor(float)", shape=["N", HEIGHT, WIDTH]),
        ]

    def get_modelmeta(self) -> Any:
        return SimpleNamespace(custom_metadata_map=self.runtime.metadata)

    def run(self, names: object, feeds: dict[str, Any]) -> list[Any]:
        self.runs += 1
        if not self.runtime.kernels and self.providers[0] != CPU:
            raise Fail("CUDA error cudaErrorNoKernelImageForDevice: no kernel image is available")
        if len(feeds["frame"]) != self.batch and self.providers[0] == CUDA:
            self.batch = len(feeds["frame"])
            self.runtime.choices.append((self.batch, self.runtime.log))
        frames = feeds["frame"].astype(np.float32) * (1 + self.runtime.error)
        return [frames.mean(axis=(1, 2, 3)), frames.mean(axis=3)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines go into the working directory unless something else is said."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (FakeRuntime(compiled=(CPU,)), "offers CPUExecutionProvider: put the one"),
        (FakeRuntime(starts=()), "did not start on this machine|Please install TensorRT"),
        (FakeRuntime(kernels=False), "cudaErrorNoKernelImageForDevice"),
        (FakeRuntime(kernels=False, partial=(CUDA, TENSORRT)), "cudaErrorNoKernelImageForDevice"),
    ],
)
def test_a_gpu_that_does_not_run_is_one_error_and_nothing_before_it(
    device: str,
    fault: FakeRuntime,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault.install(monkeypatch)
    with pytest.raises(DeviceError, match=problem):
        create_session(b"model", device)
    assert caplog.text == "", "no warning about a part on the CPU precedes it"
    assert capsys.readouterr().out == "", "stdout belongs to the verdicts"


@pytest.mark.parametrize("starts", [(CUDA,), ()])
def test_tensorrt_that_is_missing_is_an_error_of_the_device(
    starts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRuntime(starts=starts).install(monkeypatch)
    with pytest.raises(
        DeviceError, match=r"run it \(Please install TensorRT libraries\) on Tensor"
    ):
        create_session(b"model", "tensorrt")


def test_a_part_on_the_cpu_is_told_once_it_is_known_to_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = FakeRuntime(partial=(CUDA,)).install(monkeypatch)
    session = create_session(b"model", "cuda")
    assert session.get_providers() == [CUDA, CPU] and session.runs == 1
    assert [providers for providers, _ in runtime.opened] == [[CUDA], [CUDA, CPU]]
    assert [record.message for record in caplog.records] == [
        "CUDAExecutionProvider cannot hold the whole graph: a part runs on the CPU"
    ]


def test_a_whole_graph_is_run_once_before_anything_is_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FakeRuntime().install(monkeypatch)
    assert create_session(b"model", "cuda").runs == 1
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("fault", "found", "told"),
    [
        (FakeRuntime(), CUDA, ""),
        (FakeRuntime(compiled=(CPU,)), CPU, ""),
        (FakeRuntime(starts=()), CPU, "continuing on the CPU: asked for the device 'cuda'"),
        (FakeRuntime(kernels=False), CPU, "continuing on the CPU: the device 'cuda' failed"),
    ],
)
def test_auto_takes_cuda_where_it_works_and_never_tensorrt(
    fault: FakeRuntime,
    found: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault.opened.clear()
    fault.install(monkeypatch)
    assert create_session(b"model", "auto").get_providers()[0] == found
    assert all(TENSORRT not in providers for providers, _ in fault.opened)
    assert len(caplog.records) == bool(told) and told in caplog.text


def test_tensorrt_keeps_its_engines_in_a_private_folder_for_model_versions_and_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = FakeRuntime().install(monkeypatch)
    monkeypatch.setattr(accelerator, "library_version", lambda library, function: 101600)
    monkeypatch.setattr(accelerator, "gpu_architecture", lambda: "sm87")

    def opened(model: bytes, **change: Any) -> dict[str, str]:
        config = AcceleratorConfig(cache=tmp_path / "engines", **change)
        create_session(model, "tensorrt", accelerator=config)
        providers, options = runtime.opened[-1]
        assert providers == [TENSORRT, CUDA]
        return options[0]

    options = opened(b"model")
    folder = Path(options["trt_engine_cache_path"])
    assert folder.name == "ort1.31.1-trt101600-sm87-fp16"
    assert options["trt_timing_cache_path"] == str(folder)
    assert {options[f"trt_{name}_enable"] for name in ("fp16", "engine_cache", "timing_cache")} == {
        "True"
    }
    for part in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(part.stat().st_mode) == 0o700
    assert opened(b"model")["trt_engine_cache_path"] == str(folder)
    others = [opened(b"another model"), opened(b"model", fp16=False)]
    monkeypatch.setattr(accelerator, "gpu_architecture", lambda: "sm110")
    others.append(opened(b"model", workspace_mb=512))
    assert others[1]["trt_fp16_enable"] == "False"
    assert others[2]["trt_max_workspace_size"] == str(2**29)
    assert len({str(folder), *(other["trt_engine_cache_path"] for other in others)}) == 4


def test_engines_that_others_could_plant_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    FakeRuntime().install(monkeypatch)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    linked = tmp_path / "linked"
    os.symlink(private, linked)
    (tmp_path / "file").write_text("")
    for folder in (open_to_all, linked, tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DeviceError, match="engines"):
            create_session(b"m", "tensorrt", accelerator=AcceleratorConfig(cache=folder))


def test_a_gpu_that_scores_otherwise_than_the_workstation_is_refused(
    monkeypatch: pytest.MonkeyPatch, write_model: Any, info: ModelInfo
) -> None:
    path = write_model()
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    golden = Golden.record(Scorer(path, device="cpu"), [frame], 0.01)
    metadata = info.to_metadata() | golden.to_metadata()
    FakeRuntime(metadata=metadata, error=0.005).install(monkeypatch)
    assert Scorer(path, device="cuda").provider == CUDA
    FakeRuntime(metadata=metadata, error=0.05).install(monkeypatch)
    with pytest.raises(DeviceError, match="does not score as the workstation did"):
        Scorer(path, device="cuda")


def test_auto_leaves_a_file_for_cpus_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
    write_model: Any,
    info: ModelInfo,
    caplog: pytest.LogCaptureFixture,
) -> None:
    metadata = replace(info, target="cpu").to_metadata()
    path = write_model(metadata=metadata)
    runtime = FakeRuntime(metadata=metadata).install(monkeypatch)
    assert Scorer(path).provider == CPU
    assert [providers for providers, _ in runtime.opened] == [[CPU]], "no GPU is tried before"
    assert "edge-ad export --target cuda" in caplog.text
    assert Scorer(path, device="cuda").provider == CUDA
    metadata = replace(info, target="cuda").to_metadata()
    FakeRuntime(metadata=metadata).install(monkeypatch)
    assert Scorer(write_model(metadata=metadata)).provider == CUDA


def test_a_smaller_batch_is_filled_up_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, write_model: Any, frames: Any, info: ModelInfo
) -> None:
    path = write_model()
    runtime = FakeRuntime(metadata=info.to_metadata()).install(monkeypatch)
    scorer = Scorer(path, device="cuda")

    def choices(count: int, fill_to: int = 1) -> list[int]:
        """The sizes of batches for which cuDNN has to choose."""
        runtime.choices.clear()
        results = scorer.score_batch(frames(*range(count)), fill_to=fill_to)
        assert [result.score for result in results] == list(range(count))
        return [batch for batch, _ in runtime.choices]

    assert choices(1) == []  # as when the session was tried
    assert choices(40) == [16]  # the rest of 8 is filled up
    assert choices(8, fill_to=8) == [8]
    assert choices(3, fill_to=8) == choices(1, fill_to=8) == []
    assert choices(3) == [3] and choices(2) == [2]  # nothing is kept of what came before
    monkeypatch.setattr(scorer, "_one_by_one", True)
    assert choices(3, fill_to=8) == [1]


def test_the_default_log_is_silent_only_during_an_inference_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, write_model: Any, frames: Any, info: ModelInfo
) -> None:
    path = write_model()
    runtime = FakeRuntime(metadata=info.to_metadata()).install(monkeypatch)
    scorer = Scorer(path, device="cuda")
    assert runtime.log == 2
    scorer.score_batch(frames(1, 2))
    assert runtime.choices == [(1, 4), (2, 4)] and runtime.log == 2
    broken = FakeRuntime(kernels=False).install(monkeypatch)
    with pytest.raises(DeviceError):
        create_session(b"model", "cuda")
    assert broken.log == 2


@pytest.mark.parametrize(
    ("damaged", "count", "chosen"), [(False, 11, [1, 8]), (True, 11, [1, 8]), (False, 1, [1])]
)
def test_predict_fills_up_its_last_batch_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    write_model: Any,
    tmp_path: Path,
    info: ModelInfo,
    damaged: bool,
    count: int,
    chosen: list[int],
) -> None:
    """A single picture goes through what was chosen when the session was tried."""
    path = write_model()
    for value in range(count):
        cv2.imwrite(str(tmp_path / f"{value:02}.png"), np.full((HEIGHT, WIDTH, 3), value, np.uint8))
    runtime = FakeRuntime(metadata=info.to_metadata()).install(monkeypatch)
    if damaged:
        runtime.error = float("nan")  # every picture is tried again by itself
    done = CliRunner().invoke(main, ["predict", str(path), str(tmp_path), "--device", "cuda"])
    assert done.exit_code == damaged, done.output
    assert [batch for batch, _ in runtime.choices] == chosen


def test_frames_of_several_cameras_do_not_share_a_batch_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, write_model: Any, info: ModelInfo
) -> None:
    path = write_model()
    runtime = FakeRuntime(metadata=info.to_metadata()).install(monkeypatch)
    scorer = Scorer(path, device="cuda")
    monkeypatch.setattr(scorer, "score_prepared", lambda frames: pytest.fail("nothing is tried"))
    assert scorer.provider == CUDA and len(runtime.opened) == 1
    assert not ModelSlot(scorer).gains_by_batching(2)


def test_the_table_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    document: dict[str, Any] = {
        "model": "m.onnx",
        "device": "cuda",
        "camera": [{"source": "0"}],
        "accelerator": {"memory_mb": 1024, "conv_search": "EXHAUSTIVE"},
    }
    config = parse_config(document).accelerator
    assert asdict(config) == {
        "memory_mb": 1024,
        "conv_search": "EXHAUSTIVE",
        "fp16": True,
        "cache": Path("edge-ad-tensorrt"),
        "workspace_mb": None,
    }
    runtime = FakeRuntime().install(monkeypatch)
    create_session(b"model", "cuda", accelerator=config)
    assert runtime.opened[-1][1] == [
        {
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",
            "gpu_mem_limit": str(2**30),
        }
    ]
    document["accelerator"] = {"memory_mb": 1, "conv_search": "best", "fp8": True}
    with pytest.raises(ConfigError) as caught:
        parse_config(document)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("version", ["1.20.1", "1.25.1", "1.26.0", "1.27.0.dev20260801", "2.0.0"])
def test_threads_wait_awake_only_where_the_time_can_be_bounded(version: str) -> None:
    runtime: Any = SimpleNamespace(__version__=version, SessionOptions=FakeOptions)
    entries = session_options(runtime, threads=2).entries
    spins = "session.intra_op.spin_duration_us" in entries
    assert spins == (version >= "1.26")
    # Without a bound they would hold the cores for milliseconds after each frame.
    assert (entries.get("session.intra_op.allow_spinning") == "0") != spins
    assert (entries.get("session.force_spinning_stop") == "1") == spins
