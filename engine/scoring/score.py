"""``score_file``: files of rows in, the same rows with labels and scores out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import OptionError, StorageError, check_member
from ..tasks.hypotheses import Hypotheses
from ..text.inputs import Window
from ..text.thresholds import Threshold
from .formats import FileFormat, bare_name
from .formats.base import ReadOptions
from .formats.files import STDIN
from .inputs import check_outside, common_format, expand, given_inputs, path_name
from .journal import error_file
from .options import Columns, ModelOptions, On, OnError, RayOptions, ScoreOptions
from .pipeline import ModelInfo
from .run import Run, is_stream
from .summary import Progress, Summary


def score_file(
    input: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    probabilities: bool = False,
    prefix: str = "",
    function_to_apply: str | None = None,
    threshold: Threshold | None = None,
    top_k: int | None = None,
    candidate_labels: str | Iterable[str] | None = None,
    hypothesis_template: str | None = None,
    multi_label: bool = False,
    aggregation_strategy: str | None = None,
    on_error: str = "fail",
    input_format: str | None = None,
    output_format: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    header: bool = True,
    quotes: bool = True,
    part_rows: int = ScoreOptions.part_rows,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    max_length: int | None = None,
    long_text: str | Window = "truncate",
    split_special_tokens: bool | None = None,
    on: str = "local",
    ray_address: str | None = None,
    actors: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Score tables (csv, tsv, txt, jsonl, json, parquet) into another, in memory that does not grow with them.

    The output has the input's columns and rows in order, plus ``label``, ``score``, with ``probabilities`` ``p_<label>`` for
    each label, and ``truncated``; of a token classifier ``entities``, a list of objects, and ``truncated``. It appears
    complete, by rename.

    Args:
        input: A file, its format by suffix; a folder of files or a pattern; several of these, read one after the other; or
            ``-`` for stdin. A stream cannot be resumed.
        output: The file to write, its format by suffix; a folder, with ``/`` at its end, for a file in it for each input; or
            ``-`` for stdout. A stream has no journal, and its input's format.
        model: An artifact, a checkpoint folder or a hub id; None for the embedded default.
        text_column: Column of the texts; None for the only candidate.
        pair_column: Column of the second texts, for sentence pairs.
        probabilities: Whether to add a column for each label's probability.
        prefix: Put before the names of added columns.
        function_to_apply: ``softmax``, ``sigmoid`` or ``none`` (logits); None for the model's.
        threshold: For a multi-label model the least probability of a label, or one for each label, as a sequence or by name;
            None for the artifact's, else 0.5.
        top_k: Number of labels, the best first, as lists; None for the best one, or all from ``threshold`` on.
        candidate_labels: For zero-shot with an NLI model: the labels, as in ``ZeroShot``; None for the model's own.
        hypothesis_template: As there.
        multi_label: As there; then labels are lists, as those of a multi-label model.
        aggregation_strategy: For a token classifier, as in ``TokenClassifier``; None for ``simple``.
        on_error: For a row that cannot be scored: ``fail``, ``null`` (no score) or ``skip`` (left out).
        input_format: The format, if the input's suffix does not name it.
        output_format: The format, if the output's suffix does not name it.
        delimiter: Character between the cells of a csv; None for a comma, or a tab in a tsv.
        encoding: Encoding of a text format; None for UTF-8, or that of its byte order mark.
        header: Whether the first line of a csv names its columns, which are ``1``, ``2`` and so on if not.
        quotes: Whether ``"`` opens a quoted cell of a csv or tsv.
        part_rows: Rows that are committed together.
        resume: Whether to continue an unfinished run; a finished output stays as it is.
        force: Whether to replace an output, and to drop an unfinished run.
        device: As in ``Classifier.from_pretrained``.
        precision: As there.
        threads: As there; with Ray, of each actor.
        max_length: As there.
        long_text: As there, without a warning; with ``error`` a row whose text is too long cannot be scored.
        split_special_tokens: As there.
        on: ``local`` or ``ray``.
        ray_address: Of a running cluster; None starts Ray on this machine.
        actors: Number of Ray actors.
        progress: Called after each chunk of rows.

    Returns:
        Counts and times of the run.

    Raises:
        FusedBertError: Any of its subclasses; committed parts stay for ``resume``.

    Example:
        >>> summary = score_file("reviews.csv", "scored.csv", resume=True)
        >>> summary.rows, dict(summary.labels)
        (5, {'POSITIVE': 3, 'NEGATIVE': 2})
    """
    given = given_inputs(input)
    names, out = expand(given, input_format), path_name(output, "the output")
    if not is_stream(out):
        check_outside(given, out)
    columns = Columns(
        text=text_column,
        pair=pair_column,
        probabilities=probabilities,
        prefix=prefix,
        function_to_apply=function_to_apply,
        threshold=threshold,
        top_k=top_k,
        hypotheses=Hypotheses.option(candidate_labels, hypothesis_template, multi_label),
        aggregation_strategy=aggregation_strategy,
    )
    options = ScoreOptions(
        columns=columns,
        on_error=check_member(OnError, "on_error", on_error),
        input_format=input_format,
        output_format=output_format,
        read=ReadOptions(quotes=quotes, delimiter=delimiter, encoding=encoding, header=header),
        part_rows=part_rows,
        resume=resume,
        force=force,
    )
    model_options = ModelOptions(
        model=model,
        device=device,
        precision=precision,
        threads=threads,
        max_length=max_length,
        long_text=long_text,
        split_special_tokens=split_special_tokens,
    )
    if check_member(On, "on", on) is On.LOCAL and (ray_address is not None or actors is not None):
        raise OptionError("a Ray address or a number of actors needs on='ray' (--on ray)")
    ray = RayOptions(address=ray_address, actors=actors) if on == On.RAY else None
    with contextlib.ExitStack() as stack:
        loaded: list[ModelInfo] = []

        def load() -> ModelInfo:
            if not loaded:
                loaded.append(ModelInfo.load(model_options, remote=ray is not None))
                if loaded[0].model is not None:
                    stack.callback(loaded[0].model.close)
            return loaded[0]

        def score(names: tuple[str, ...], output: str) -> Summary:
            run = Run(names=names, output=output, model=model_options, options=options, ray=ray, load=load, progress=progress)
            return run.run()

        if not _is_folder(given, out, several=not isinstance(input, (str, os.PathLike))):
            return score(names, out)
        started = time.perf_counter()
        summaries = [score((name,), output) for name, output in _one_each(names, Path(out), options)]
        return Summary.sum(summaries, output=out, seconds=time.perf_counter() - started)


def _is_folder(given: tuple[str, ...], output: str, *, several: bool) -> bool:
    """Return whether each input has an output: with ``/`` at its end, or for several inputs into a folder that is there."""
    if is_stream(output):
        return False
    single = not several and Path(given[0]).is_file()
    return output.endswith(("/", os.sep)) or (Path(output).is_dir() and not single)


def _one_each(names: tuple[str, ...], folder: Path, options: ScoreOptions) -> list[tuple[str, str]]:
    """Return each input with its output, of the same name in a folder, which is made."""
    form = common_format(names, options.input_format)
    outputs: dict[str, str] = {}
    for name in names:
        if name == STDIN:
            raise OptionError(f"stdin has no name for a file in {folder}: give a file as the output")
        target = folder / Path(name).name
        if options.output_format is not None or form.kind == "txt":
            target = folder / f"{bare_name(name)}.{options.output_format or 'csv'}"
        other = outputs.setdefault(str(target), name)
        if other != name:
            raise OptionError(f"{other} and {name} would both be written to {target}: score them into two folders")
        FileFormat.of(str(target), output=True)
    for path, name in outputs.items():
        errors = str(error_file(Path(path)))
        if errors in outputs:
            raise OptionError(f"{outputs[errors]} and the errors of {name} would both be written to {errors}: rename one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror or error}") from None
    return [(name, output) for output, name in outputs.items()]
