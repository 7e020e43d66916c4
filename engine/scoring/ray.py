"""Scoring on Ray Data: one task reads chunks, actors score and render them, this process commits.

A row of the dataset is a chunk, cut as in a local run. Reading stays on this machine, which has the file. Actors ask for
fewer CPUs than they use: if they held all, the reader would wait for ever.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DeviceError, FusedBertError, InferenceError, MissingDependencyError, OptionError, check_integer
from .formats import FileFormat
from .formats.files import STDIN
from .options import RayOptions
from .pipeline import Job, Pipeline, Rendered, load_model

_READER_CPUS = 0.25
_GPU_ACTOR_CPUS = 0.5
_COLUMN = "chunk"
_CONNECT_SECONDS = 10


def check_ray(names: Sequence[str], form: FileFormat) -> None:
    """Raise MissingDependencyError without Ray, OptionError for a stream, which Ray cannot read."""
    for package in ("ray", "ray.data"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingDependencyError.of(error.name or package, "ray", "score on Ray") from None
    name = next((each for each in names if each == STDIN or not Path(each).is_file()), None)
    if name is not None:
        raise OptionError(f"{name} is a stream, which Ray's reading task cannot see: save it to a {form.kind} file first")


def score_on_ray(job: Job, options: RayOptions, device: str, first: int) -> Iterator[Rendered]:
    """Yield a job's chunks from row ``first`` on, rendered by actors on ``device``, ``cpu`` or ``cuda``.

    Raises:
        DeviceError: The cluster cannot be reached, or lacks CPUs or GPUs.
        InferenceError: Ray failed.
    """
    with _quiet(), _cluster(options) as ray:
        data = importlib.import_module("ray.data")
        threads = job.model.threads or 1
        actors, share = plan_actors(ray.cluster_resources(), device, options.actors, threads)
        model = dataclasses.replace(job.model, model=_absolute(job.model.model), threads=threads, device=device)
        names = tuple(str(Path(name).absolute()) for name in job.names)
        job = dataclasses.replace(job, names=names, model=model)
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}  # only this machine has it: it keeps the task at the input
        pool = data.ActorPoolStrategy(size=actors)
        with _context(data):
            start = data.from_items([{"first": first}], override_num_blocks=1)
            chunks = start.map_batches(_Reader(job), batch_size=1, num_cpus=_READER_CPUS, resources=here)
            scored = chunks.map_batches(_Actor, fn_constructor_args=(job,), batch_size=1, compute=pool, **share)
            yield from _in_order(scored, first)


def plan_actors(resources: dict[str, float], device: str, requested: int | None, threads: int) -> tuple[int, dict[str, float]]:
    """Return the number of actors (as many as fit, if None is requested), and the resources of each; DeviceError without room.

    Example:
        >>> plan_actors({"CPU": 2.0}, "cpu", None, 1)
        (2, {'num_cpus': 0.75})
    """
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    check_integer("actors", requested, optional=True)
    # Ray takes fractions below 1, and whole numbers above.
    each = _GPU_ACTOR_CPUS if device == "cuda" else 0.75 if threads == 1 else float(threads - 1)
    actors = requested or max(1, int(gpus) if device == "cuda" else int(cpus // threads))
    if actors * each + _READER_CPUS > cpus or (device == "cuda" and actors > gpus):
        raise DeviceError(
            f"{actors} Ray actors on {device} need {actors * each + _READER_CPUS:g} CPUs"
            f"{f' and {actors} GPUs' if device == 'cuda' else ''}, the cluster has {cpus:g} CPUs and {gpus:g} GPUs: "
            "give fewer with --actors, or a larger cluster"
        )
    return actors, {"num_cpus": each} | ({"num_gpus": 1.0} if device == "cuda" else {})


class _Reader:
    """Reads the chunks from a row on; a function for Ray, with its job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.__name__ = "read"

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        first = end = int(batch["first"][0])
        try:
            for rows in self._job.chunks(first):
                end = rows.first + len(rows.texts)
                yield {_COLUMN: [pickle.dumps(rows)]}
        except FusedBertError as error:
            yield {_COLUMN: [pickle.dumps(Rendered(end=end, failure=error))]}


class _Actor:
    def __init__(self, job: Job) -> None:
        self._pipeline = Pipeline(job, load_model(job.model))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {_COLUMN: [pickle.dumps(self._render(pickle.loads(chunk))) for chunk in batch[_COLUMN]]}

    def _render(self, chunk: Any) -> Rendered:
        if isinstance(chunk, Rendered):  # the reader failed
            return chunk
        try:
            return self._pipeline.run_one(chunk)
        except FusedBertError as error:
            return Rendered(end=chunk.first, failure=error)


def _in_order(scored: Any, first: int) -> Iterator[Rendered]:
    end = first
    try:
        for row in scored.iter_rows():
            chunk: Rendered = pickle.loads(row[_COLUMN])
            start = chunk.end - chunk.counts.rows
            if start != end and chunk.failure is None:
                raise InferenceError(f"Ray gave row {start + 1} where row {end + 1} comes next: continue with --resume")
            end = chunk.end
            yield chunk
    except FusedBertError:
        raise
    except Exception as error:  # Ray's errors share no base but Exception
        detail = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise InferenceError(f"Ray failed after row {end}: {detail}; continue with --resume") from error


@contextlib.contextmanager
def _cluster(options: RayOptions) -> Iterator[Any]:
    """Connect to a cluster, or start Ray on this machine."""
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray  # the caller's own
        return
    own: dict[str, Any] = {} if options.address else {"include_dashboard": False}
    try:
        _check_address(options.address)
        ray.init(address=options.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # as above
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        where = options.address or "this machine"
        raise DeviceError(f"Ray on {where} cannot be used ({detail}): give the --ray-address of a running cluster") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Check that something listens at host:port; Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


@contextlib.contextmanager
def _context(data: Any) -> Iterator[None]:
    """Set Ray Data's context: in order, one chunk a block, no progress bars."""
    context = data.DataContext.get_current()
    kept = context.execution_options.preserve_order, context.target_max_block_size, context.enable_progress_bars
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # otherwise chunks wait until they have 128 MiB together
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.execution_options.preserve_order, context.target_max_block_size, context.enable_progress_bars = kept


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's messages off stderr; its errors arrive as exceptions."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _absolute(model: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Return a model's absolute path, for actors in another folder; a hub id unchanged."""
    return str(Path(model).absolute()) if model is not None and Path(model).exists() else model
