"""Tasks of the client's process: requests of texts to a server, one after the other, all at once, or as they arrive.

Every request of a task names the server's ``port``, ``protocol`` and ``pid``, and the number of ``texts`` in a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from ...run.machine import cpu_seconds, family
from ...run.worker import State
from ..open_loop import poisson_schedule
from .client import Client, alone, drive, run, saturate
from .protocols import PROTOCOLS

KEY = "http"
WARM, ALONE = 20, 100  # requests one after the other: thrown away, then timed
ALONE_SECONDS = 3.0
MADE = 2000  # requests that are made before a run; more arrivals send them again
CHECKED = 64  # answers of a run whose labels are compared
SETTLED = 20.0  # seconds that a server may take to work off what an earlier run left


def label_texts(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Return the label of each text of ``path`` (JSON), by the engine of this process."""
    classifier: Any = state.open_engine()
    texts = json.loads(Path(request["path"]).read_bytes())
    return {"labels": [str(found["label"]) for found in classifier.classifier(texts)]}


def open_texts(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Read the texts and their labels from ``path`` (JSON)."""
    kept = json.loads(Path(request["path"]).read_bytes())
    state.kept[KEY] = {**kept, "made": {}}
    return {}


def open_server(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Warm a server up; return ``alone_ms``, the median time of a request, and how many labels ``agreed`` of ``checked``."""
    draws, requests = _requests(state, request)
    run(lambda: alone(request["port"], requests[:WARM], ALONE_SECONDS))
    times, client = run(lambda: alone(request["port"], requests[WARM : WARM + ALONE], ALONE_SECONDS))
    if client.errors:
        raise ValueError(f"the server answered with {next(iter(client.errors.values()))}")
    return {"alone_ms": 1e3 * float(np.median(times)), **_compare(state, request, draws[WARM:], client)}


def saturate_server(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Keep ``connections`` busy for ``seconds``; return ``rate``, answers a second."""
    _, requests = _requests(state, request)
    many = requests * max(1, round(20_000 * request["seconds"] / len(requests)))
    sizes = {"connections": request["connections"], "seconds": request["seconds"]}
    return {"rate": run(lambda: saturate(request["port"], many, **sizes))}


def run_rate(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Send arrivals, and return the fields of ``measure.HttpOutcome``.

    The request has ``rate``, ``seconds``, ``warm``, ``seed``, ``grace`` and ``give_up``, as for ``client.drive``.
    """
    draws, requests = _requests(state, request)
    _settle(request["port"], requests)
    offsets = poisson_schedule(request["rate"], request["warm"] + request["seconds"], np.random.default_rng(request["seed"]))
    order = np.random.default_rng(request["seed"]).integers(0, len(requests), size=len(offsets)).tolist()
    limits = {name: request[name] for name in ("warm", "grace", "give_up")}
    pids = family(request["pid"])
    made: list[Client] = []

    async def work() -> Any:
        made.append(Client(request["port"], [requests[index] for index in order], keep=CHECKED))
        return await drive(offsets, made[0], **limits)

    server, own = cpu_seconds(pids), process_time()
    outcome = run(work)
    own_ms, server_ms = (1e3 * each / len(offsets) for each in (process_time() - own, cpu_seconds(pids) - server))
    compared = _compare(state, request, [draws[index] for index in order], made[0])
    latencies = np.round(outcome.latencies, 7).tolist()
    return {**vars(outcome), "latencies": latencies, "client_ms": own_ms, "server_ms": server_ms, **compared}


def _settle(port: int, requests: list[bytes]) -> None:
    """Wait until a server answers a request about as fast as the next: it has worked off what an earlier run left."""
    run(lambda: alone(port, requests[:1], SETTLED / 4.0))
    run(lambda: alone(port, requests[:WARM], ALONE_SECONDS / 4.0))


def _requests(state: State, request: dict[str, Any]) -> tuple[list[list[int]], list[bytes]]:
    """Return which texts each request has, and its bytes; they are made once."""
    kept, key = state.kept[KEY], f"{request['protocol']} {request['texts']}"
    if key not in kept["made"]:
        random = np.random.default_rng(request["texts"])
        draws = random.integers(0, len(kept["texts"]), size=(MADE, request["texts"])).tolist()
        make: Callable[[list[str]], bytes] = PROTOCOLS[request["protocol"]].request
        kept["made"][key] = (draws, [make([kept["texts"][index] for index in draw]) for draw in draws])
    draws, requests = kept["made"][key]
    return draws, requests


def _compare(state: State, request: dict[str, Any], draws: list[list[int]], client: Client) -> dict[str, int]:
    """Count the texts whose answers were kept, and those of them that got the label they should."""
    labels, read = state.kept[KEY]["labels"], PROTOCOLS[request["protocol"]].labels
    checked = agreed = 0
    for index, answer in client.answers.items():
        found, expected = read(json.loads(answer)), [labels[text] for text in draws[index]]
        checked += len(expected)
        agreed += sum(a == b for a, b in zip(found, expected, strict=False)) if len(found) == len(expected) else 0
    return {"checked": checked, "agreed": agreed}
