"""The gates: a graph is kept only when it computes what the checkpoint computes.

The reference takes each text alone, without padding. The graph gets the same texts in every way that an engine may
batch them: alone, all padded together, at one token and at ``max_length``, and in a batch as large as the number of
heads, where a mask that is broadcast along the wrong axis would go unnoticed by its shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusedbert.engine.artifact import Parity
from fusedbert.engine.artifact.gates import (
    FP32_TOLERANCE,
    GOLDEN_TOLERANCE,
    LABEL_AGREEMENT,
    MEAN_PROBABILITY,
    ORDER,
    by_order,
    passes,
)
from fusedbert.engine.errors import ExportError, MissingDependencyError

from ..checkpoint.architecture import Shape
from ..tokenizer.tokenization import Tokenization
from . import order
from .reference import Encoded
from .texts import CHECK_PAIRS, CHECK_TEXTS, ROUNDING_PAIRS, ROUNDING_TEXTS

REFERENCE = "numpy float64"
OWN_ROUNDING = 64.0  # times what the model's own float32 is off by: another order of summation was seen to be off by ten times
LOAD_ROOM = 16.0  # times what the graph was off by at export: what such a model may be off by on another machine
MOST_ROUNDING = 0.02  # of the logits' spread: where a model is less certain in float32, right and wrong cannot be told apart
ORDINARY = 10.0  # a logit of a classifier with several labels; where some are larger, the tolerance grows with them
FLOAT16_MAX = 65504.0


@dataclasses.dataclass(frozen=True)
class CheckSet:
    """Tokenized check texts, and the batches in which a graph gets them.

    Attributes:
        texts: The texts.
        batches: Rows of ``texts`` that are padded together and run at once.
    """

    texts: tuple[Encoded, ...]
    batches: tuple[tuple[int, ...], ...]


def check_set(a: Shape, tokens: Tokenization, *, rounded: bool = False, pairs: bool = False) -> CheckSet:
    """Tokenize the check texts and lay out their batches.

    Args:
        a: What there is to know of the model.
        tokens: Its tokenizer.
        rounded: Whether to add the texts on which fp16 and int8 are judged as well.
        pairs: Whether to add pairs to those: a reranker tells little of a text without a question.
    """
    texts = tokens.encode_all([*CHECK_TEXTS, *CHECK_PAIRS])
    short = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
    lengths = [n for n in (1, 2, 3, 17) if n < tokens.max_length] + [tokens.max_length]
    made = range(len(texts), len(texts) + len(lengths))
    texts += [tokens.repeat(CHECK_TEXTS[-1], n) for n in lengths]
    as_many_as_heads = tuple(short[: len(short) * 3 // 4][i % (len(short) * 3 // 4)] for i in range(a.heads))
    alone = [(row,) for row in (*made, short[1], short[-1])]
    batches = [tuple(short[i::3]) for i in range(3)] + [as_many_as_heads, (made[-1], made[0]), tuple(made[:-1]), *alone]
    if rounded:
        more = sorted(tokens.encode_all([*ROUNDING_TEXTS, *(ROUNDING_PAIRS if pairs else ())]), key=lambda text: len(text.ids))
        start, texts = len(texts), [*texts, *more]
        batches += [tuple(range(i, min(i + 16, len(texts)))) for i in range(start, len(texts), 16)]
    return CheckSet(tuple(texts), tuple(batches))


def batch_arrays(texts: Sequence[Encoded], padding_id: int) -> dict[str, NDArray[np.int64]]:
    """Pad texts on the right into ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 ``[batch, longest]``."""
    shape = (len(texts), max(len(text.ids) for text in texts))
    ids = np.full(shape, padding_id, dtype=np.int64)
    mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, text in enumerate(texts):
        n = len(text.ids)
        ids[row, :n], mask[row, :n], types[row, :n] = text.ids, 1, text.types
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def open_session(path: Path) -> Any:
    """Open a graph on the CPU, as the engine would."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError.of("onnxruntime", "cpu", "check a graph before it is kept") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Every batch of the check has another shape, so that planned and pooled memory would only add up.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
        )
    except Exception as error:  # onnxruntime's own exceptions share no base but Exception
        raise ExportError(f"ONNX Runtime cannot open {path.name}: {' '.join(str(error).split())}") from None


def run_graph(
    session: Any,
    checks: CheckSet,
    padding_id: int,
    arrange: Callable[[Sequence[Encoded], int], Mapping[str, NDArray[Any]]] = batch_arrays,
) -> list[tuple[int, NDArray[np.float32]]]:
    """Run every batch, laid out by ``arrange``; return the row of each text that was run, with its logits ``[labels]``."""
    declared = {item.name for item in session.get_inputs()}
    results = []
    for batch in checks.batches:
        arrays = arrange([checks.texts[row] for row in batch], padding_id)
        try:
            logits = session.run(["logits"], {name: array for name, array in arrays.items() if name in declared})[0]
        except Exception as error:  # see open_session
            shape = "x".join(map(str, arrays["input_ids"].shape))
            raise ExportError(f"the graph failed on a batch of {shape} tokens: {' '.join(str(error).split())}") from None
        results += list(zip(batch, logits, strict=True))
    return results


def measure(
    results: Sequence[tuple[int, NDArray[np.float32]]],
    reference: NDArray[np.float64],
    problem_type: str,
    terms: NDArray[np.float64] | None = None,
) -> Parity:
    """Compare a graph's logits with the reference's.

    A text that was run in several batches counts once, by the worst of its runs.

    Args:
        results: The row of each text that was run, with its logits ``[labels]``.
        reference: Logits ``[texts, labels]``.
        problem_type: What they mean. A regression and a model with one logit are measured by order too: see ``order``.
        terms: Of each logit the largest sum of its products without their signs, ``[labels]``; None where not known.
    """
    rows = np.asarray([row for row, _ in results])
    found, expected = np.stack([logits for _, logits in results]).astype(np.float64), reference[rows]
    texts = np.unique(rows)
    parity = Parity(
        reference=REFERENCE, texts=len(texts), max_abs_logit=float(np.abs(found - expected).max()), label_agreement=1.0
    )
    if by_order(problem_type, reference.shape[1]):
        parity = dataclasses.replace(parity, **order.figures(rows, found, reference, terms))
    else:
        scale = max(np.abs(reference).max() / ORDINARY, order.noise(reference, terms).max() / FP32_TOLERANCE)
        parity = dataclasses.replace(parity, scale=float(scale) if scale > 1.0 else None)
    if problem_type != "regression":
        moved = np.abs(probabilities(found, problem_type) - probabilities(expected, problem_type))  # [runs, labels]
        kept = same_labels(found, expected, problem_type)
        parity = dataclasses.replace(
            parity,
            label_agreement=float(np.mean([kept[rows == text].all() for text in texts])),
            mean_abs_probability=float(np.mean([moved[rows == text].mean(axis=1).max() for text in texts])),
            max_abs_probability=float(moved.max()),
        )
    return _rounded(parity)


def is_exact(parity: Parity) -> bool:
    """Tell whether an fp32 graph is as close to the reference as its scale asks for; what is no number is not."""
    return parity.max_abs_logit <= FP32_TOLERANCE * (1.0 if parity.scale is None else parity.scale)


def own_room(
    float32: NDArray[np.floating] | None,
    reference: NDArray[np.float64],
    problem_type: str,
    terms: NDArray[np.float64] | None,
) -> float:
    """Return how far an fp32 graph may be from the reference because the model's own arithmetic is no more certain.

    Large weights make attention choose between scores of hundreds: what float32 rounds there comes out as thousandths of a
    logit, in transformers as in any graph. How much it is, the reference computed in float32 shows.

    Args:
        float32: The reference's logits ``[texts, labels]`` in float32; None where they cannot be had.
        reference: The same in float64.
        problem_type: What they mean.
        terms: As in ``measure``.
    """
    if float32 is None:
        return 0.0
    own = measure(list(enumerate(float32)), reference, problem_type, terms).max_abs_logit
    return min(OWN_ROUNDING * own, MOST_ROUNDING * float(np.ptp(reference, axis=0).max()))


def with_room(parity: Parity) -> Parity:
    """Note in ``scale`` that float32 is not certain of a model, so that the replay of its golden texts gets room, too."""
    ordered = parity.rank_correlation is not None
    scale = LOAD_ROOM * parity.max_abs_logit / (FP32_TOLERANCE if ordered else GOLDEN_TOLERANCE["fp32"])
    return _rounded(dataclasses.replace(parity, scale=max(scale, parity.scale or 1.0)))


def _rounded(parity: Parity) -> Parity:
    figures = {name: value for name, value in dataclasses.asdict(parity).items() if isinstance(value, float)}
    rounded: dict[str, Any] = {name: three_digits(value) for name, value in figures.items()}
    if parity.rank_correlation is not None:  # what counts is how much is missing to 1
        rounded["rank_correlation"] = round(parity.rank_correlation, 4)
    return dataclasses.replace(parity, **rounded)


def probabilities(logits: NDArray[np.float64], problem_type: str) -> NDArray[np.float64]:
    """Apply what the problem type asks for: a sigmoid each, or a softmax over the labels."""
    if problem_type == "multi_label_classification" or logits.shape[1] == 1:
        with np.errstate(over="ignore"):  # 1 / (1 + infinity) is 0, as it should be
            return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def same_labels(found: NDArray[np.float64], expected: NDArray[np.float64], problem_type: str) -> NDArray[np.bool_]:
    """Tell for each text whether both choose the same label or labels."""
    if problem_type == "multi_label_classification" or found.shape[1] == 1:
        return np.asarray(((found > 0) == (expected > 0)).all(axis=1))
    return np.asarray(found.argmax(axis=1) == expected.argmax(axis=1))


def three_digits(value: float) -> float:
    """Round to three significant digits, so that a manifest does not change with a summation's order."""
    return float(f"{value:.3g}")


def gate_attention(nodes: Mapping[str, int], ops: Sequence[str], layers: int, file: str) -> int:
    """Hold the number of fused attention nodes against the number of layers; return it.

    Raises:
        ExportError: They differ.
    """
    count = sum(nodes.get(op, 0) for op in ops)
    if count != layers:
        raise ExportError(
            f"{file} has {count} fused attention nodes ({', '.join(ops)}), expected one for each of {layers} layers"
        )
    return count


_MAGNIFIES = "the model's weights magnify rounding, so that float32 does not settle its logits; where that is not so, "


def gate_activations(largest: float, file: str) -> None:
    """Hold what the reference saw against what float16 holds: the CPU computes in wider numbers and would not overflow.

    Raises:
        ExportError: An intermediate result does not fit.
    """
    if not largest < FLOAT16_MAX:
        raise ExportError(f"{file}: an activation reaches {largest:.3g} and float16 ends at {FLOAT16_MAX:g}: use --for cpu")


def gate(parity: Parity, precision: str, file: str, room: float = 0.0) -> None:
    """Hold a graph's figures against what its precision has to reach.

    Args:
        parity: The figures.
        precision: ``fp32``, ``int8`` or ``fp16``.
        file: The graph, for the message.
        room: What a logit in fp32 may be off by in any case, see ``own_room``.

    Raises:
        ExportError: A logit, a probability, an order or too many labels differ, or a figure is not a number.
    """
    if precision == "fp32":
        limit = max(FP32_TOLERANCE * (1.0 if parity.scale is None else parity.scale), room)
        if not parity.max_abs_logit <= limit:
            raise ExportError(
                f"{file} differs from the reference by {parity.max_abs_logit:.2g} in a logit, at most {limit:.2g} is "
                f"accepted: {_MAGNIFIES if room == limit else ''}please report the checkpoint's config.json"
            )
        return
    if passes(parity, precision):
        return
    if parity.rank_correlation is None:
        raise ExportError(
            f"{file} keeps {parity.label_agreement:.1%} of {parity.texts} labels and moves a probability by "
            f"{parity.mean_abs_probability:.2g} on average, expected {LABEL_AGREEMENT:.0%} and at most "
            f"{MEAN_PROBABILITY[precision]:g}: use fp32"
        )
    limits = ORDER[precision]
    raise ExportError(
        f"{file} keeps the order of {parity.texts} texts to a rank correlation of {parity.rank_correlation:.3f} and moves an "
        f"output by {parity.mean_of_spread:.2%} of their spread ({parity.spread:.3g}) on average, {parity.max_of_spread:.2%} "
        f"at most; expected {limits.rank_correlation:g}, {limits.mean_of_spread:.2%} and {limits.max_of_spread:.2%}: use fp32"
    )
