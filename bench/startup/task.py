"""A fresh process up to its first answer. This file is run as a script, and is no task of a worker.

What a worker imports before it does anything would count as the start of every contender, so a process is started for this
file alone: ``python startup.py REQUEST``, JSON in, one line of JSON out on stdout. Its time is counted from the moment
``spawned`` at which the other side started it. Until the first answer it imports what the contender needs, and ``time``.

Ours is started as an application starts it: ``Classifier.from_pretrained`` and a call. Other engines are imported first,
as an application would, then the code of this benchmark that loads them is, and that is not counted.
"""

import sys
import time

BEGUN = time.time()


def main() -> None:
    """Start the contender that the request names, and write what it took."""
    import json

    request = json.loads(sys.argv[1])
    times, logits = (_ours if request["ours"] else _peer)(request)
    found = {"begun": BEGUN, **times, "answered": time.time(), "logits": logits, "peak_bytes": _peak()}
    if request["sizes"]:
        found |= _sizes(request["ours"])
    print(json.dumps(found))  # the answer


def _ours(request: dict) -> tuple[dict, list]:  # type: ignore[type-arg]
    started = time.time()
    from fusedbert.engine import Classifier

    imported = time.time()
    classifier = Classifier.from_pretrained(
        request["job"]["artifact"],
        device=request["job"]["device"],
        precision=request["precision"],
        threads=request["job"]["threads"],
        max_length=request["job"]["max_length"],
    )
    loaded = time.time()
    classifier(request["text"])
    first = time.time()
    logits = classifier.decision_function([request["text"]]).tolist()
    return _phases(started, imported, imported, loaded, first), logits


def _peer(request: dict) -> tuple[dict, list]:  # type: ignore[type-arg]
    import importlib

    started = time.time()
    for name in request["imports"]:
        importlib.import_module(name)
    imported = time.time()
    from fusedbert.bench.engines.registry import Job, make_contender  # this file runs as a script, outside its package

    contender = make_contender(request["contender"], Job.from_json(request["job"]))
    contender.prepare()  # done before, so there is nothing left of it but to find the files
    ready = time.time()
    contender.load()
    loaded = time.time()
    logits = contender.texts([request["text"]], batch_size=1, max_length=request["job"]["max_length"])
    first = time.time()
    return _phases(started, imported, ready, loaded, first), logits.tolist()


def _phases(started: float, imported: float, ready: float, loaded: float, first: float) -> dict[str, float]:
    """Name the moments; ``started`` is when this function's caller began, after what it needed itself was imported."""
    return {
        "import_s": imported - started,
        "uncounted_s": (started - BEGUN) + (ready - imported),
        "load_s": loaded - ready,
        "first_s": first - loaded,
        "first_at": first,
    }


def _peak() -> int:
    """Return the most memory that this process has had resident, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
            for line in status:
                if line.startswith("VmHWM:"):  # unlike ru_maxrss, it does not begin with what the starting process had
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _sizes(ours: bool) -> dict[str, float]:
    from fusedbert.bench.startup.size import environment_size, needed_size

    return {"installed_bytes": needed_size(sys.modules, ours=ours), "environment_bytes": environment_size()}


if __name__ == "__main__":
    main()
