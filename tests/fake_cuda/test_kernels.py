"""The kernels that ONNX Runtime's CUDA provider chooses, on the fake CUDA device: make test-cuda runs these.

Nothing is computed; tests/engine/run/cuda/test_gpu.py compares logits on a real GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusedbert.bench.engines.random.deberta import DebertaShape
from fusedbert.bench.engines.random.deberta import write_checkpoint as write_deberta
from fusedbert.bench.engines.random.modernbert import ModernShape, write_checkpoint
from fusedbert.bench.run.cuda_candidates import CANDIDATES, PRESENT, PRODUCTS, PackedWhole
from fusedbert.engine.artifact import read_manifest, write_manifest
from fusedbert.engine.run.cuda import flash
from fusedbert.export import export_checkpoint
from fusedbert.export.checkpoint.architecture import describe, read_config
from fusedbert.export.checkpoint.weights import Weights
from fusedbert.export.graph.bert import build

pytestmark = pytest.mark.fake_cuda

Do = Callable[..., Any]

SHAPES = """
clf = Classifier.from_pretrained(artifact, device="cuda")
shapes = [clf.decision_function(texts).shape for texts in (*[TEXTS] * 3, EVEN, *[TEXTS[:1]] * 3, EVEN * 9, TEXTS * 5)]
report(shapes=shapes, layout=clf.runtime.layout, captured=clf.model.open().graphs.captured)
"""


@pytest.mark.parametrize("capability", [75, 80, 89, 90])
def test_small_shapes_are_captured_on_every_processor(do: Do, capability: int) -> None:
    result = do(SHAPES, capability=capability)
    assert result["layout"] == "packed" and result["captured"] >= 2
    assert result["shapes"] == [[n, 2] for n in (4, 4, 4, 12, 1, 1, 1, 108, 20)]
    assert result["stderr"] == ""  # nothing is printed on the user's screen


KERNELS = """
from fusedbert.bench.engines.random.models import open_padded
model = Classifier.from_pretrained(artifact, device="cuda").model
parts = {model.runtime.layout: model.open()}
if "padded" not in parts:  # else there is no packed graph
    parts["padded"] = open_padded(model.source)
LONG = Row(ids=[7] * 100, types=[0] * 100, truncated=False)
batches = {"": [ROW] * 12, "_long": [LONG] * 12, "_one": [LONG]}
report(**{name + size: names(lambda: part.execute(part.prepare(rows))) for size, rows in batches.items()
          for name, part in parts.items()})
"""


def test_roberta(do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path) -> None:
    """Both of its graphs count positions on the device, by running sums that BERT's do not have."""
    sums: dict[str, dict[str, int]] = {}
    for family in ("bert", "roberta"):
        source = checkpoint_at(tmp_path / family, family=family, positions=130)
        export_checkpoint(source, tmp_path / f"{family}-a", required=True)
        assert do(SHAPES, artifact=tmp_path / f"{family}-a")["captured"] >= 2
        names = do(KERNELS, artifact=tmp_path / f"{family}-a")
        sums[family] = {layout: sum("CumSum" in name for name in names[layout]) for layout in ("padded", "packed")}
    # Padded: of the row. Packed: of the row, and of the padding before each text.
    assert sums == {"bert": {"padded": 2, "packed": 0}, "roberta": {"padded": 3, "packed": 2}}


def test_windows_stay_on_the_gpu_and_need_no_plans_of_cudnn(do: Do, repository: Path, tmp_path: Path) -> None:
    """A plan takes 150 ms, for each number of blocks."""
    shape = ModernShape(layers=4, heads=2, hidden=128, inner=64)
    write_checkpoint(tmp_path / "source", shape, repository / "models/sst2-mini/vocab.txt")
    export_checkpoint(tmp_path / "source", tmp_path / "a", required=True)
    result = do(SHAPES, artifact=tmp_path / "a")
    assert result["layout"] == "packed" and result["captured"] >= 2
    script = KERNELS.replace('parts["padded"] = open_padded(model.source)', "pass")  # which no CUDA graph can be made of
    assert script != KERNELS
    for names in (do(script, artifact=tmp_path / "a")[f"packed{size}"] for size in ("", "_long", "_one")):
        assert attention(names) == [FLASH, CUTLASS, CUTLASS, FLASH]  # of all tokens, and of windows
        assert not any("softmax" in name.lower() for name in names)


def test_positions_run_packed_under_a_fused_kernel_and_wait_for_nothing(do: Do, repository: Path, tmp_path: Path) -> None:
    """``RestorePadding`` would check its places on the host, and no CUDA graph could be made."""
    write_deberta(tmp_path / "source", DebertaShape(layers=3, heads=2, hidden=128), repository / "models/sst2-mini/vocab.txt")
    export_checkpoint(tmp_path / "source", tmp_path / "a", required=True)
    result = do(SHAPES, artifact=tmp_path / "a")
    assert result["layout"] == "packed" and result["captured"] >= 2
    launched = do(KERNELS, artifact=tmp_path / "a")
    for names in (launched[f"{layout}{size}"] for layout in ("packed", "padded") for size in ("", "_long", "_one")):
        assert attention(names) == [CUTLASS] * 2
        assert sum("softmax" in name.lower() for name in names) == 1  # the last layer's one query, whose scores are few
        assert not any("validate" in name.lower() for name in names)


CUTLASS, TENSORRT, CUDNN, FLASH = "attention_kernel_batched_impl", "fmha_v2", "cudnn", "flash_fwd"


@pytest.mark.parametrize(("hidden", "spans"), [(32, True), (24, False), (12, False)])
@pytest.mark.parametrize("capability", [80, 90])
def test_heads_that_the_fused_kernel_of_the_last_layer_does_not_take(
    do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path, capability: int, hidden: int, spans: bool
) -> None:
    """Widths that are not a multiple of 8. The unfused one takes the queries' starts for the keys', so it gets only lengths."""
    source = checkpoint_at(tmp_path / "source", heads=2, hidden=hidden, positions=130)
    export_checkpoint(source, tmp_path / "a", required=True)
    padded = do(KERNELS, artifact=tmp_path / "a", capability=capability)["padded"]
    assert any("CumSum" in name for name in padded) == spans  # where the queries and the keys of each text start
    assert any(CUTLASS in name for name in padded) == spans


def attention(names: list[str]) -> list[str]:
    """Return the kinds of the attention kernels among these."""
    return [kind for name in names for kind in (CUTLASS, TENSORRT, CUDNN, FLASH) if kind in name]


@pytest.mark.parametrize(
    ("capability", "padded", "packed", "long"),
    [(75, TENSORRT, TENSORRT, TENSORRT), (80, TENSORRT, TENSORRT, TENSORRT), (90, CUDNN, CUTLASS, FLASH)],
)
def test_every_attention_node_gets_a_fused_kernel(do: Do, capability: int, padded: str, packed: str, long: str) -> None:
    """Texts of 48 and of 100 tokens; from 96 on Flash Attention, where there are no kernels of TensorRT."""
    result = do(KERNELS, capability=capability)
    for size, kernel in (("", packed), ("_long", long), ("_one", long)):
        assert attention(result[f"padded{size}"]) == [padded, padded, CUTLASS]  # the last layer has one query a text
        assert attention(result[f"packed{size}"]) == [kernel] * 3
        launched = result[f"padded{size}"], result[f"packed{size}"]
        assert not any("softmax" in name.lower() for names in launched for name in names)  # nothing is unfused
        assert len(launched[1]) < len(launched[0])


@pytest.mark.parametrize(("family", "hidden"), [("roberta", 64), ("bert", 80), ("bert", 128)])
def test_other_heads_get_flash_attention_for_long_texts(
    do: Do, checkpoint_at: Callable[..., Path], tmp_path: Path, family: str, hidden: int
) -> None:
    """Heads of 32, 40 and 64."""
    source = checkpoint_at(tmp_path / "source", family=family, heads=2, hidden=hidden, positions=130)
    export_checkpoint(source, tmp_path / "a", target="cuda")
    result = do(KERNELS, artifact=tmp_path / "a")
    assert attention(result["packed"]) == [CUTLASS] * 2 and attention(result["packed_long"]) == [FLASH] * 2


def test_an_earlier_artifact_runs_as_before(do: Do, mini: Path, checkpoint: Path, tmp_path: Path) -> None:
    """With ``PackedAttention``, which never runs Flash Attention; the graph that replaced it launches as much."""
    artifact = Path(shutil.copytree(mini, tmp_path / "artifact"))
    a, layout = describe(read_config(checkpoint))
    graph = build(a, Weights(checkpoint, a, layout), PackedWhole)
    graph.write(artifact / PackedWhole.file, "earlier", opset=PackedWhole.opset, metadata={})
    write_manifest(artifact, read_manifest(artifact))  # with this file's bytes
    earlier, now = do(KERNELS, artifact=artifact), do(KERNELS)
    for size in ("", "_long", "_one"):
        assert attention(earlier[f"packed{size}"]) == [CUTLASS] * 3
        assert len(earlier[f"packed{size}"]) == len(now[f"packed{size}"])


def test_a_users_choice_of_attention_kernels_counts(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    only = KERNELS.replace('device="cuda"', 'device="cuda", session_options={"cuda.sdpa_kernel": 2}')  # memory-efficient
    assert attention(do(only)["packed_long"]) == [CUTLASS] * 3
    monkeypatch.setenv(flash.VARIABLE, "40")
    assert attention(do(KERNELS)["packed"]) == [FLASH] * 3


EACH = """
from pathlib import Path
from fusedbert.bench.run.cuda_candidates import open_candidates
from fusedbert.engine.run.batches import FINE, pack, packed_bucket
def batch(lengths):
    rows = [Row(ids=[2, *range(100, 99 + n)], types=[0] * n, truncated=False) for n in lengths]
    return pack(rows, packed_bucket(lengths, fineness=FINE), 0)
batches = {"short": batch([5, 30, 17, 60, 2, 41]), "long": batch([128] * 40), "one": batch([128])}
found = {}
for name, graphs in open_candidates(Path(artifact), Path(os.environ["FAKE_CUDA_TRACE"]).parent, on_cpu=False).items():
    found[name] = {size: names(lambda: graphs.run(each)) for size, each in batches.items()}
    last = [traced(lambda: graphs.run(batches["one"])) for _ in range(3)][-1]
    found[name]["replayed"] = [line.split()[0] for line in last]
report(**found)
"""
LAYERS = 3  # of the embedded checkpoint


def test_candidates_get_the_kernels_that_they_are_named_after(do: Do, checkpoint: Path) -> None:
    """The operators for packed attention that gpu-check compares; a single text is replayed as a CUDA graph."""
    found = do(EACH, artifact=checkpoint)
    assert [attention(found[name]["short"])[0] for name in CANDIDATES] == [CUTLASS, FLASH, CUTLASS, FLASH, FLASH, CUTLASS]
    assert {tuple(found[name]["replayed"]) for name in CANDIDATES} == {("COPY", "REPLAY", "COPY")}


@pytest.mark.parametrize(
    ("capability", "present", "products", "transposed"),
    [(75, TENSORRT, TENSORRT, 1), (80, TENSORRT, FLASH, 0), (86, TENSORRT, FLASH, 0), (90, FLASH, FLASH, 0)],
)
def test_three_products_need_no_transposition(
    do: Do, checkpoint: Path, capability: int, present: str, products: str, transposed: int
) -> None:
    """But four more kernels a layer for the products and the queries' bias; TensorRT's kernels want q, k and v in one."""
    found, memory_efficient = do(EACH, artifact=checkpoint, capability=capability), f"{PRODUCTS}, memory-efficient"
    for size in ("short", "long", "one"):
        now, then, efficient = (found[name][size] for name in (PRESENT, PRODUCTS, memory_efficient))
        shorter = CUTLASS if (capability, size) == (90, "short") else present
        assert [attention(each) for each in (now, then, efficient)] == [[n] * LAYERS for n in (shorter, products, CUTLASS)]
        assert [moving(each) for each in (now, then, efficient)] == [LAYERS, LAYERS * transposed, 0]
        assert len(then) - len(now) == LAYERS * (2 + transposed) and len(efficient) - len(now) == LAYERS * 2


def moving(names: list[str]) -> int:
    """Count the kernels that lay queries, keys and values out for attention."""
    return sum(kind in name for name in names for kind in ("TransposeQKV", "AddBias_"))
