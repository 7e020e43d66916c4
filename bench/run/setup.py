"""The options that all benchmarks share, and the lineup of one: MODEL, for fusedbert and for the others, and the engines."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fusedbert.engine.artifact import MANIFEST, Manifest, read_manifest
from fusedbert.engine.errors import OptionError
from fusedbert.engine.hardware.cpu import inspect_machine
from fusedbert.engine.hardware.device import CUDA, choose, import_onnxruntime, inspect_offer
from fusedbert.engine.hardware.storage import cache_root, cached_sha256
from fusedbert.engine.kernels import Kernels, runs
from fusedbert.engine.load import Options, Precision
from fusedbert.engine.load.reranker import LIST, is_reranker
from fusedbert.engine.load.resolve import download, embedded_checkpoint, resolve_model
from fusedbert.engine.load.select import select_variant

from ..engines.base import EngineSpec, Job
from ..engines.batches import Shape
from ..engines.registry import AGAIN, SPECS, groups, select, spec_of
from .machine import need


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """The user's choices, as click validated them; None for the defaults that the help of the options names."""

    model: str | None
    checkpoint: Path | None
    against: tuple[str, ...]  # names and groups; empty for fusedbert only
    threads: int | None
    device: str
    precision: str
    rounds: int | None
    as_json: bool
    report: Path | None

    def options(self) -> Options:
        """Return fusedbert's options; an ``OptionError`` if a value is not valid."""
        return Options.parse(device=self.device, precision=self.precision, threads=self.threads)


def shared_options(*, rounds: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared options, as one ``shared: Shared``; ``rounds`` describes the default of ``--rounds``."""
    model = "Artifact, checkpoint folder or hub id; default: the embedded model."
    against = (
        f"Engines to compare with, with commas between: groups ({', '.join(groups())}), or names; a wrong one lists these."
    )
    checkpoint = "The checkpoint that MODEL was exported from, for engines that convert it themselves."
    precision = "fusedbert's: auto, fp32, int8, bf16 or fp16; auto with --against on a CPU is fp32, bf16 and int8."
    report = "Write results.json, a self-contained page, and its plots into this folder."
    existing = click.Path(exists=True, file_okay=False, path_type=Path)
    options = (
        click.option("-m", "--model", metavar="MODEL", help=model),
        click.option("--checkpoint", metavar="FOLDER", type=existing, help=checkpoint),
        click.option("--against", metavar="LIST", default="", callback=_split, help=against),
        click.option("--threads", type=click.IntRange(1), help="Threads of each engine; default: the cores worth using."),
        click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu or cuda."),
        click.option("--precision", default="auto", show_default=True, metavar="PRECISION", help=precision),
        click.option("--rounds", type=click.IntRange(1, 1000), help=f"How often each engine is measured ({rounds})."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
        click.option("--report", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path), help=report),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            values = {field.name: arguments.pop(field.name) for field in dataclasses.fields(Shared)}
            command(shared=Shared(**values), **arguments)

        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), run)

    return decorate


def _split(_context: click.Context, _parameter: click.Parameter, names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """The sizes that determine the work of an encoder."""

    layers: int
    hidden: int  # width of a token's vector
    intermediate: int  # width of the feed-forward
    gated: bool = False  # whether the feed-forward has a gate (GLU), one more product
    local_layers: int = 0  # of the layers, those whose attention has a window
    window: int = 0  # tokens of it, half to each side
    terms: int = 0  # products with vectors of distances in each score (DeBERTa)

    @classmethod
    def read(cls, config: Path) -> Size | None:
        """Read a ``config.json``; None if it does not have them. A damaged file is reported when the model is loaded."""
        values: Any = None
        with contextlib.suppress(OSError, ValueError):
            values = json.loads(config.read_bytes())
        if not isinstance(values, dict):
            return None
        layers = values.get("num_hidden_layers", values.get("n_layers"))
        hidden = values.get("hidden_size", values.get("dim"))
        intermediate = values.get("intermediate_size", values.get("hidden_dim"))
        if not (layers and hidden and intermediate):
            return None
        kinds = {"modernbert": _modernbert, "deberta-v2": _deberta}
        more = kinds[values["model_type"]](values) if values.get("model_type") in kinds else {}
        return cls(layers=layers, hidden=hidden, intermediate=intermediate, **more)

    def flops(self, shape: Shape) -> float:
        """Count the floating point operations of a batch; a multiplication and an addition are two.

        For ``T`` tokens in all, ``n`` in each sequence, hidden width ``h`` and intermediate width ``i``, a layer takes
        ``8 T h^2`` for query, key, value and output, ``4 T n h`` for attention's two products, ``4 T h i`` for the
        feed-forward, ``6 T h i`` with a gate; a layer with a window counts only the keys in it, and a product with
        distances is ``2 T n h`` more. The head adds ``2 h^2`` a
        sequence. Embeddings, norms and activations are left out.
        """
        tokens, reach = shape.batch * shape.tokens, min(self.window // 2, shape.tokens - 1)
        products = 8 * self.hidden**2 + (6 if self.gated else 4) * self.hidden * self.intermediate
        local = shape.tokens * (2 * reach + 1) - reach * (reach + 1)  # pairs of a token and a key that it sees
        pairs = (self.layers - self.local_layers) * shape.tokens**2 + self.local_layers * local
        attention = (4 + 2 * self.terms) * shape.batch * pairs * self.hidden
        return float(self.layers * tokens * products + attention + 2 * shape.batch * self.hidden**2)


def _modernbert(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ModernBERT adds to a size, from both forms of config."""
    every = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or ["sliding_attention" if i % every else "" for i in range(config["num_hidden_layers"])]
    return {"gated": True, "local_layers": kinds.count("sliding_attention"), "window": config.get("local_attention", 128)}


def _deberta(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many products with distances DeBERTa adds to each score."""
    kinds = config.get("pos_att_type") or ()
    return {"terms": sum(kind in kinds for kind in ("c2p", "p2c")) if config.get("relative_attention") else 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkModel:
    """The model of a benchmark: its artifact, the checkpoint of the artifact if it is known, and where both run."""

    artifact: Path
    checkpoint: Path | None
    manifest: Manifest
    size: Size | None  # for the share of the roofline; None if config.json does not have it
    device: str  # cpu or cuda
    threads: int

    def describe(self) -> dict[str, Any]:
        """Return the document's ``model``."""
        return {
            "name": self.manifest.source.id,
            "source": dict(self.manifest.source.sha256),
            "architecture": self.manifest.architecture,
            "labels": list(self.manifest.labels),
            "max_length": self.manifest.max_length,
            "size": None if self.size is None else dataclasses.asdict(self.size),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lineup:
    """A model, the job of every engine, and the engines: fusedbert's entries, and the others."""

    model: BenchmarkModel
    job: Job
    own: tuple[EngineSpec, ...]
    peers: tuple[EngineSpec, ...]


def open_lineup(
    shared: Shared, *, max_length: int | None = None, without: Collection[str] = (), specs: Sequence[EngineSpec] = SPECS
) -> Lineup:
    """Find the model and its engines among ``specs``.

    An entry of fusedbert's that is named among the engines to compare with runs a second time, as ``NAME-again``: how far two
    equal runs differ says what a difference means.

    Texts are cut at ``max_length`` tokens, None for the model's maximum. Engines in ``without`` cannot take part; they are
    dropped if only their group was named.

    Raises:
        FusedBertError: An option is wrong, a package of the extra ``bench`` is missing, or MODEL is not available.
    """
    options = shared.options()
    if options.device.index:  # engines differ in how they name a second GPU; the driver's variable is the same for all
        number = options.device.index
        raise OptionError(f"a benchmark runs on the first visible GPU: set CUDA_VISIBLE_DEVICES={number}, and --device cuda")
    for name in set(shared.against).difference(groups(specs)):
        spec_of(name, specs)  # a wrong name is reported before anything is exported
    if shared.against:
        need("scipy", "compare engines")
    model = find_model(shared.model, shared.checkpoint, options)
    most = model.manifest.max_length
    if max_length is not None and max_length > most:
        raise OptionError(f"--max-length is {max_length}, the model takes at most {most}: give that or less")
    precisions = _precisions(model, options.precision, both=bool(shared.against))
    own = tuple(spec_of(f"fusedbert-{each}", specs) for each in precisions)
    found = select(shared.against, device=model.device, specs=specs)
    peers = tuple(_peers(found, shared.against, own, without))
    _check_peers(peers, model, shared.model)
    job = Job.make(
        checkpoint=model.checkpoint,
        artifact=model.artifact,
        device=model.device,
        threads=model.threads,
        max_length=max_length or most,
    )
    return Lineup(model=model, job=job, own=own, peers=peers)


def _check_peers(peers: Collection[EngineSpec], model: BenchmarkModel, named: str | None) -> None:
    """Raise ``OptionError`` if an engine cannot read the checkpoint."""
    others = [spec.name for spec in peers if not spec.is_fusedbert]
    if not others:
        return
    if model.checkpoint is None:
        raise OptionError(
            f"{others[0]} converts a checkpoint, and {named} is an artifact: "
            "give the checkpoint as MODEL, or as --checkpoint FOLDER"
        )
    if not is_reranker(model.checkpoint):
        return
    from fusedbert.export.checkpoint.modules import read_parts

    if read_parts(model.checkpoint).has_own_head:
        raise OptionError(
            f"{others[0]} reads what transformers reads, and {model.checkpoint} has its head in sentence-transformers' modules "
            f"({LIST}), in place of which it would have a random one: leave it out of --against"
        )


def _precisions(model: BenchmarkModel, wanted: Precision, *, both: bool) -> list[str]:
    """Return the precisions that fusedbert runs in; with ``both``, auto on a CPU means every one of the artifact."""
    if both and wanted is Precision.AUTO and model.device == "cpu":
        return [each for each in ("fp32", "bf16", "int8") if model.manifest.variant(target="cpu", precision=each)]
    bf16 = runs(Kernels.BF16, None)
    selection = select_variant(model.manifest, target=model.device, precision=wanted, machine=inspect_machine(), bf16=bf16)
    return [selection.variant.precision]


def _peers(
    found: Collection[EngineSpec], against: Collection[str], own: Collection[EngineSpec], without: Collection[str]
) -> Iterator[EngineSpec]:
    for spec in found:
        named = spec.name in against
        if spec in own:
            if named:
                yield dataclasses.replace(spec, name=spec.name + AGAIN, title=f"{spec.title}, again")
        elif named or not (spec.is_fusedbert or spec.name in without):
            yield spec


def find_model(model: str | None, checkpoint: Path | None, options: Options) -> BenchmarkModel:
    """Find or make the artifact of MODEL, with all graphs for the device, and its checkpoint.

    Raises:
        FusedBertError: MODEL, the device or the checkpoint is not available; see ``fusedbert.engine.load.resolve``.
        OptionError: The artifact was not made from the checkpoint.
    """
    cuda = choose(options.device, inspect_offer(import_onnxruntime())).provider == CUDA
    if cuda:
        need("pynvml", "record the GPU")
    folder = resolve_model(model, options, "all" if cuda else "cpu")
    manifest = read_manifest(folder)
    if manifest.by_token:
        raise OptionError(f"{folder} is a token classifier, and benchmarks are of classifiers of texts: give one of these")
    if checkpoint is None:
        checkpoint = _checkpoint(model, options)
    else:
        checkpoint = checkpoint.absolute()
        for name, digest in manifest.source.sha256.items():
            file = checkpoint / name
            if not file.is_file() or cached_sha256(file, cache_root(options.cache_dir)) != digest:
                raise OptionError(f"{file} is not what {folder} was made from: give the checkpoint of {manifest.source.id}")
    return BenchmarkModel(
        artifact=folder.absolute(),
        checkpoint=checkpoint,
        manifest=manifest,
        size=Size.read(folder / "config.json"),
        device="cuda" if cuda else "cpu",
        threads=options.threads or inspect_machine().cores,
    )


def _checkpoint(model: str | None, options: Options) -> Path | None:
    if model is None:
        return embedded_checkpoint()
    path = Path(model).expanduser()
    if path.is_dir():
        return None if (path / MANIFEST).is_file() else path.absolute()
    return download(model, options)  # resolved before, so this reads the hub's cache
