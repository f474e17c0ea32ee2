"""Every engine against the encoder's own walk, at several sizes, strides and kinds of tokens."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from checkpoints import write_clip
from pacl.cli.options import ModelOptions
from pacl.errors import EnvironmentProblem, InputError
from pacl.modeling import engines
from pacl.modeling.engines import ENGINES, build_engine, choice, onnx, pytorch
from pacl.modeling.pacl import Pacl
from pacl.modeling.towers import walk
from pacl.modeling.towers.hf import HfClip

FLOAT32 = ["torch", "torch-compiled", "onnx", "openvino"]
BFLOAT16 = ["torch-bf16", "torch-bf16-compiled", "openvino-bf16"]


@pytest.fixture(autouse=True)
def _no_compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured as ever, and run without the minute that it takes to compile them."""
    if "compiled" in request.node.name:
        request.getfixturevalue("unchecked_shapes")  # dynamo does not see through the checks
    monkeypatch.setattr(pytorch, "COMPILER", "aot_eager")
    torch.compiler.reset()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> HfClip:
    return HfClip.from_pretrained(write_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


def build(name: str, encoder: HfClip, graphs: Path) -> engines.DenseEngine:
    for package in engines.packages_of(name):
        pytest.importorskip(package)
    return build_engine(name, encoder, cache_dir=graphs)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOAT32)
def test_float32_engines_equal_the_encoder(name: str, encoder: HfClip, graphs: Path) -> None:
    engine = build(name, encoder, graphs)
    for shape, stride in [((2, 3, 32, 32), None), ((1, 3, 24, 56), 4), ((3, 3, 45, 33), 3)]:
        for merges in (False, True):
            options: dict[str, Any] = {"stride_px": stride, "merges": merges}
            options |= {"kind": "clip", "layer": -1}
            expected, grid = encoder.encode_patches(images(*shape), **options)
            found, found_grid = engine.encode_patches(images(*shape), **options)
            assert found_grid == grid
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16_engines_are_near_the_encoder(name: str, encoder: HfClip, graphs: Path) -> None:
    engine = build(name, encoder, graphs)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    options: dict[str, Any] = {"kind": "clip", "layer": -1, "stride_px": 4}
    expected, _ = encoder.encode_patches(images(2, 3, 32, 40), **options)
    found, _ = engine.encode_patches(images(2, 3, 32, 40), **options)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.02 * expected.norm()
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.dtype == before[key].dtype


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_kind_and_layer_reach_the_engine(name: str, encoder: HfClip, graphs: Path) -> None:
    engine = build(name, encoder, graphs)
    options: dict[str, Any] = {"kind": "maskclip", "layer": -2, "stride_px": 8}
    expected, _ = encoder.encode_patches(images(1, 3, 32, 32), **options)
    found, _ = engine.encode_patches(images(1, 3, 32, 32), **options)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["torch", "torch-bf16"])
def test_torch_knows_naclip(name: str, encoder: HfClip, graphs: Path) -> None:
    options: dict[str, Any] = {"kind": "naclip", "layer": -1, "stride_px": 8}
    expected, _ = encoder.encode_patches(images(1, 3, 24, 32), **options)
    found, _ = build(name, encoder, graphs).encode_patches(images(1, 3, 24, 32), **options)
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_graph_knows_no_naclip(encoder: HfClip, graphs: Path) -> None:
    engine = build("onnx", encoder, graphs)
    with pytest.raises(InputError, match="naclip"):
        engine.encode_patches(images(1, 3, 32, 32), kind="naclip", layer=-1, stride_px=8)


@pytest.mark.parametrize("wrong", [{"kind": "cllip", "layer": -1}, {"kind": "clip", "layer": 0}])
def test_a_wrong_kind_or_layer_is_refused(wrong: dict[str, Any], encoder: HfClip) -> None:
    with pytest.raises(ValueError, match="must"):
        build_engine("torch", encoder).encode_patches(images(1, 3, 32, 32), **wrong, stride_px=8)


@pytest.mark.slow
def test_a_graph_is_exported_once(
    encoder: HfClip, graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"kind": "clip", "layer": -1, "stride_px": 8}
    first = build("onnx", encoder, graphs).encode_patches(images(1, 3, 32, 32), **options)[0]
    assert [path.name for path in graphs.glob(f"{encoder.fingerprint}-clip-1-*")]

    def refuse(*_: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr(onnx, "_export", refuse)
    again = build("onnx", encoder, graphs).encode_patches(images(1, 3, 32, 32), **options)[0]
    assert torch.equal(first, again)


def test_the_users_cache_holds_the_graphs(
    tmp_path: Path, encoder: HfClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(onnx, "_export", lambda _, path: path.write_bytes(b"graph"))
    blocks = encoder.patch_tower(kind="clip", layer=-1)
    path = onnx.export_tower(blocks, fingerprint="f")
    assert path.is_relative_to(tmp_path / "pacl" / "engines")
    assert path.read_bytes() == b"graph"


# ---- choosing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "missing", "expected"),
    [
        ({"avx512_bf16"}, {"onnx"}, ["torch", "torch-bf16"]),
        ({"amx_bf16"}, {"onnxruntime"}, ["torch", "torch-bf16", "openvino", "openvino-bf16"]),
        ({"avx2"}, set(), ["torch", "onnx", "openvino"]),
        (set(), {"onnxscript"}, ["torch"]),
    ],
)
def test_auto_chooses_from_what_runs_here(
    flags: set[str], missing: set[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "cpu_flags", lambda: flags)
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name in missing else name)
    assert engines.candidates(torch.device("cpu")) == expected


def test_the_shortest_time_wins_and_what_refuses_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, took = [0.0], {"slow": [1, 3, 3, 3], "noisy": [9, 8, 2, 8], "refuses": [0]}

    def run(name: str) -> None:
        clock[0] += took[name].pop(0)
        if name == "refuses":
            raise InputError("not here", fix="another")

    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])
    runs = {name: partial(run, name) for name in took}
    assert choice.fastest(runs, wait=lambda: None) == "noisy"
    assert choice.fastest({}, wait=lambda: None) is None


def test_auto_measures_once_and_keeps_what_it_found(
    encoder: HfClip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured: list[list[str]] = []

    def fastest(runs: dict[str, Any], **_: object) -> str:
        measured.append(list(runs))
        runs["torch-bf16"]()
        return "torch-bf16"

    monkeypatch.setattr(engines, "cpu_flags", lambda: {"avx512_bf16"})
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    monkeypatch.setattr(choice, "fastest", fastest)
    with caplog.at_level(logging.INFO, logger="pacl.modeling.engines"):
        engine = build_engine("auto", encoder, cache_dir=tmp_path)
        assert build_engine("auto", encoder, cache_dir=tmp_path).name == engine.name == "torch-bf16"
    assert measured == [["torch", "torch-bf16"]]
    assert caplog.messages[1] == "engine: torch-bf16 (PyTorch, products in bfloat16), auto's pick"
    build_engine("auto", encoder, layer=-2, cache_dir=tmp_path)  # another tower
    (tmp_path / choice.FILE).write_text("{damaged")
    build_engine("auto", encoder, cache_dir=tmp_path)
    assert len(measured) == 3


def test_a_missing_package_is_named_with_its_remedy(
    encoder: HfClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentProblem, match=r"(?s)bf16 needs .*fix: pip install .*openvino"):
        build_engine("openvino-bf16", encoder)


def test_an_unknown_engine_is_refused(encoder: HfClip) -> None:
    with pytest.raises(InputError, match=r"(?s)'tensorrt'.*auto, torch, torch-bf16"):
        build_engine("tensorrt", encoder)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_graph_needs_the_cpu(name: str, encoder: HfClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfClip, "device", torch.device("cuda"))
    with pytest.raises(InputError, match="CPU only"):
        build_engine(name, encoder)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_without_a_compiler_the_error_says_what_does_not_need_one(
    encoder: HfClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no C++ compiler")

    monkeypatch.setattr(pytorch, "COMPILER", fail)
    engine = build_engine("torch-compiled", encoder)
    with pytest.raises(EnvironmentProblem, match=r"(?s)no C\+\+ compiler.*fix: .*--engine torch"):
        engine.encode_patches(images(1, 3, 32, 32), kind="clip", layer=-1, stride_px=8)


# ---- torch's own settings -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "is_set"),
    [({"avx512f", "avx2"}, True), ({"avx512f", "amx_bf16"}, False), ({"avx2"}, False)],
)
def test_onednn_multiplies_only_where_it_keeps_float32(
    flags: set[str], is_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "cpu_flags", lambda: flags)
    backend = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009  (torch leaves it untyped)
    before = backend.fp32_precision
    with contextlib.suppress(KeyError), walk.onednn_products():
        assert (backend.fp32_precision == "bf16") is is_set
        raise KeyError
    assert backend.fp32_precision == before


def test_a_model_takes_an_engine_and_says_so(encoder: HfClip) -> None:
    model = Pacl(encoder=encoder, embedder=None, token_kind="maskclip").eval()
    with torch.no_grad():
        expected = model.patch_embeds(images(1, 3, 32, 48), stride_px=4)
        model.use_engine("torch")
        assert "engine" not in model.describe()
        found = model.patch_embeds(images(1, 3, 32, 48), stride_px=4)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
        model.use_engine("torch-bf16")
        assert "engine torch-bf16" in model.describe()
        assert not torch.equal(model.patch_embeds(images(1, 3, 32, 48), stride_px=4), found)


@pytest.mark.slow
def test_only_a_compiled_engine_imports_dynamo() -> None:
    """It takes seconds; transformers, which imports it by itself, is not loaded here."""
    code = (
        "import sys, torch\n"
        "import pacl.api\n"
        "from pacl.modeling.engines import pytorch\n"
        "from pacl.modeling.compatibility import patch_compatibility\n"
        "from pacl.modeling.loss import contrastive_loss, sigmoid_loss\n"
        "patches = torch.ones(2, 3, 4, requires_grad=True)\n"
        "for name in ('naive', 'tiled'):\n"
        "    scores = patch_compatibility(patches, torch.ones(2, 4), implementation=name)\n"
        "    pairs = sigmoid_loss(scores, 9.0, -9.0, positives=torch.eye(2).bool())\n"
        "    (contrastive_loss(scores, 9.0) + pairs).backward()\n"
        "assert 'torch._dynamo' not in sys.modules, 'imported'\n"
        "pytorch.Compiled(torch.nn.Identity())\n"
        "assert 'torch._dynamo' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_engine_is_tested() -> None:
    assert {*FLOAT32, *BFLOAT16} == set(ENGINES)


def test_the_command_line_offers_every_engine() -> None:
    offered = get_args(get_type_hints(ModelOptions)["engine"])
    assert offered == ("auto", *ENGINES)
