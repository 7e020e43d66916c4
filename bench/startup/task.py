"""A fresh process up to its first answer: ``python task.py REQUEST``, JSON in, one line of JSON out on stdout.

It is a script and not a task of the worker, whose imports would count as part of every engine's startup: until the first
answer it imports only what the engine needs, and ``time``. fusedbert starts as in an application. Of another engine the
packages are imported as an application would, then the benchmark's code that loads it, which is not counted.
"""

import sys
import time

BEGUN = time.time()


def main() -> None:
    """Start the engine of the request, and write the times."""
    import json

    request = json.loads(sys.argv[1])
    times, logits = (_fusedbert if request["fusedbert"] else _other)(request)
    answer = {"begun": BEGUN, **times, "logits": logits, "peak_bytes": _peak()}
    if request["sizes"]:
        answer |= _sizes(request["fusedbert"])
    print(json.dumps(answer))


def _fusedbert(request: dict) -> tuple[dict, list]:  # type: ignore[type-arg]
    options = {name: request["job"][name] for name in ("device", "threads", "max_length")}
    started = time.time()
    from fusedbert.engine import Classifier

    imported = time.time()
    classifier = Classifier.from_pretrained(request["job"]["artifact"], precision=request["precision"], **options)
    loaded = time.time()
    classifier(request["text"])
    first = time.time()
    logits = classifier.decision_function([request["text"]]).tolist()
    return _phases(started, imported, imported, loaded, first), logits


def _other(request: dict) -> tuple[dict, list]:  # type: ignore[type-arg]
    import importlib

    started = time.time()
    for name in request["imports"]:
        importlib.import_module(name)
    imported = time.time()
    from fusedbert.bench.engines.base import Job  # absolute: a script is outside its package
    from fusedbert.bench.engines.registry import make_engine

    engine = make_engine(request["engine"], Job.from_json(request["job"]))
    engine.prepare()  # converted before, so this only finds the files
    ready = time.time()
    engine.load()
    loaded = time.time()
    logits = engine.texts([request["text"]], batch_size=1, max_length=request["job"]["max_length"])
    first = time.time()
    return _phases(started, imported, ready, loaded, first), logits.tolist()


def _phases(started: float, imported: float, ready: float, loaded: float, first: float) -> dict[str, float]:
    """Name the moments; ``started`` is when the caller began, after its own imports."""
    return {
        "import_s": imported - started,
        "uncounted_s": (started - BEGUN) + (ready - imported),
        "load_s": loaded - ready,
        "first_s": first - loaded,
        "first_at": first,
    }


def _peak() -> int:
    """Return the peak of this process's resident memory, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
            for line in status:
                if line.startswith("VmHWM:"):  # unlike ru_maxrss, it does not begin with the parent's memory
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _sizes(fusedbert: bool) -> dict[str, float]:
    from fusedbert.bench.startup.size import environment_size, needed_size

    return {"installed_bytes": needed_size(sys.modules, fusedbert=fusedbert), "environment_bytes": environment_size()}


if __name__ == "__main__":
    main()
