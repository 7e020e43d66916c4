"""The same run on Ray Data: a task reads windows, actors that hold the model score and render them, this process commits.

A dataset's row is a whole window, so that Ray cannot cut the input in other places than a local run does; its order is
kept. What an actor did not finish when it died is done again by another. Reading and committing stay on this machine, which
is the one that needs the files; the windows travel.

Actors ask for less than the CPUs that they use: a dataset whose actors hold all of them waits for ever for one to read with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DeviceError, FusedBertError, InferenceError, MissingDependencyError, OptionError
from .files import Form, is_stream
from .model import Model, load
from .options import Ray, check_count
from .tally import Tally
from .work import Chunk, Job, Stages

_READER_CPUS = 0.25
_GPU_ACTOR_CPUS = 0.5
_COLUMN = "window"
_KNOCK_SECONDS = 10


def check_ray(name: str, form: Form) -> None:
    """Find out before the model is loaded whether Ray can be used on an input.

    Raises:
        MissingDependencyError: Ray is not installed.
        OptionError: The input is a stream, which another process cannot read.
    """
    for package in ("ray", "ray.data"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingDependencyError.of(error.name or package, "ray", "score on Ray") from None
    if is_stream(name):
        raise OptionError(f"{name} is a stream, which Ray's reading task cannot see: save it to a {form.kind} file first")


def ray_chunks(job: Job, options: Ray, model: Model, first: int) -> Iterator[Chunk]:
    """Yield the chunks of a run's windows from a row on, in order.

    Args:
        job: What to do.
        options: Cluster and number of actors.
        model: The model, for its device.
        first: The row, from 0.

    Raises:
        DeviceError: The cluster cannot be reached, or has not the CPUs or GPUs for the actors.
        InferenceError: Ray gave up.
    """
    with _quiet(), _cluster(options) as ray:
        data = importlib.import_module("ray.data")
        threads = job.engine.threads or 1
        actors, share = plan_actors(ray.cluster_resources(), model.device, options.actors, threads)
        engine = dataclasses.replace(job.engine, model=_absolute(job.engine.model), threads=threads, device=model.device)
        job = dataclasses.replace(job, name=str(Path(job.name).absolute()), engine=engine)
        with _context(data):
            windows = data.from_items([{"first": first}], override_num_blocks=1).map_batches(
                _Reader(job), batch_size=1, num_cpus=_READER_CPUS, resources=_here(ray)
            )
            scored = windows.map_batches(
                _Actor,
                fn_constructor_args=(job,),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=actors),
                **share,
            )
            yield from _in_order(scored, first)


def plan_actors(found: dict[str, float], device: str, asked: int | None, threads: int) -> tuple[int, dict[str, float]]:
    """Decide how many actors there are, and what each asks of Ray.

    Args:
        found: The cluster's resources.
        device: ``cpu`` or ``cuda``.
        asked: Number of actors, or None for as many as there is room for.
        threads: Threads of each on the CPU.

    Raises:
        DeviceError: There is no room for them; the message has the numbers.

    Example:
        >>> plan_actors({"CPU": 2.0}, "cpu", None, 1)
        (2, {'num_cpus': 0.75})
    """
    cpus, gpus = found.get("CPU", 0.0), found.get("GPU", 0.0)
    if asked is not None:
        check_count("actors", asked)
    # Ray takes fractions below 1, and whole numbers above.
    each = _GPU_ACTOR_CPUS if device == "cuda" else 0.75 if threads == 1 else float(threads - 1)
    actors = asked or max(1, int(gpus) if device == "cuda" else int(cpus // threads))
    if actors * each + _READER_CPUS > cpus or (device == "cuda" and actors > gpus):
        raise DeviceError(
            f"{actors} Ray actors on {device} need {actors * each + _READER_CPUS:g} CPUs"
            f"{f' and {actors} GPUs' if device == 'cuda' else ''}, the cluster has {cpus:g} CPUs and {gpus:g} GPUs: "
            "give fewer with --actors, or a larger cluster"
        )
    return actors, {"num_cpus": each} | ({"num_gpus": 1.0} if device == "cuda" else {})


class _Reader:
    """Reads the windows from a row on; a function that Ray pickles, with the job inside."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.__name__ = "read"

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        first = end = int(batch["first"][0])
        try:
            for raw in self._job.windows(first):
                end = raw.first + len(raw.texts)
                yield {_COLUMN: [pickle.dumps(raw)]}
        except FusedBertError as error:
            yield {_COLUMN: [pickle.dumps(_failed(end, error))]}


class _Actor:
    """Holds the model; Ray makes one for each of the pool."""

    def __init__(self, job: Job) -> None:
        self._stages = Stages(job, load(job.engine))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {_COLUMN: [pickle.dumps(self._chunk(pickle.loads(window))) for window in batch[_COLUMN]]}

    def _chunk(self, raw: Any) -> Chunk:
        if isinstance(raw, Chunk):  # the reader failed
            return raw
        try:
            return self._stages.chunk(raw)
        except FusedBertError as error:
            return _failed(raw.first, error)


def _failed(end: int, error: FusedBertError) -> Chunk:
    return Chunk(end=end, size=0, content=None, errors=b"", tally=Tally(), done=None, failure=error)


def _in_order(scored: Any, first: int) -> Iterator[Chunk]:
    end = first
    try:
        for row in scored.iter_rows():
            chunk: Chunk = pickle.loads(row[_COLUMN])
            if chunk.end - chunk.tally.rows != end and chunk.failure is None:
                raise InferenceError(
                    f"Ray gave row {chunk.end - chunk.tally.rows + 1} where row {end + 1} comes next: go on with --resume"
                )
            end = chunk.end
            yield chunk
    except FusedBertError:
        raise
    except Exception as error:  # Ray's errors share no base but Exception
        detail = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise InferenceError(f"Ray gave up after row {end}: {detail}; go on with --resume") from error


@contextlib.contextmanager
def _cluster(options: Ray) -> Iterator[Any]:
    """Connect to a cluster, or start Ray on this machine and stop it afterwards."""
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray  # the caller's own
        return
    own: dict[str, Any] = {} if options.address else {"include_dashboard": False}
    try:
        _knock(options.address)
        ray.init(address=options.address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # as above
        detail = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        where = options.address or "this machine"
        raise DeviceError(f"Ray on {where} cannot be used ({detail}): give the --ray-address of a running cluster") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Find out in seconds whether anything listens at host:port, where Ray itself tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


@contextlib.contextmanager
def _context(data: Any) -> Iterator[None]:
    """Set what Ray Data reads from its context while a dataset is made: order, one window a block, no progress bars."""
    context = data.DataContext.get_current()
    kept = context.execution_options.preserve_order, context.target_max_block_size, context.enable_progress_bars
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # else windows wait until 128 MiB of them are together
    context.enable_progress_bars = False
    try:
        yield
    finally:
        context.execution_options.preserve_order, context.target_max_block_size, context.enable_progress_bars = kept


def _here(ray: Any) -> dict[str, float]:
    """Return the resource that only this machine has: it keeps a task where the input is."""
    return {f"node:{ray.util.get_node_ip_address()}": 0.001}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's account of itself off stderr: what matters arrives as an exception."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _absolute(model: str | os.PathLike[str] | None) -> str | None:
    """Return a model's path from the root, because actors have another working folder; a hub id as it is."""
    if model is None:
        return None
    return str(Path(model).absolute()) if Path(model).exists() else os.fspath(model)
