"""Invented documents of every kind of benchmark, for the tests of the report: plausible, reproducible, with all statuses."""

import numpy as np

# name: (engine, precision, its time over that of fusedbert int8)
PEERS = {
    "fusedbert-fp32": ("fusedbert", "fp32", 2.9),
    "fusedbert-int8": ("fusedbert", "int8", 1.0),
    "openvino-fp32": ("openvino", "fp32", 2.95),
    "openvino-bf16": ("openvino", "bf16", 1.6),
    "openvino-int8": ("openvino", "int8", 1.08),
    "openvino-int8-bf16": ("openvino", "int8+bf16", 1.01),
    "optimum-fp32": ("optimum", "fp32", 3.1),
    "optimum-int8": ("optimum", "int8", 1.5),
    "onnxruntime-optimized": ("onnxruntime", "fp32", 3.2),
    "transformers-fp32": ("transformers", "fp32", 7.5),
    "transformers-bf16": ("transformers", "bf16", 2.5),
    "transformers-compile-fp32": ("transformers", "fp32", 4.6),
    "ctranslate2-int8": ("ctranslate2", "int8", 1.7),
}
FEW = ("fusedbert-int8", "openvino-int8", "transformers-fp32")
SHAPES = ((1, 16), (1, 128), (8, 128), (16, 32), (1, 512))
HOSTILE = '<script>alert("x")</script>&\u202e\x00\ud800' + "W" * 300


def _head(kind, **settings):
    return {
        "schema": "fusedbert.bench/2",
        "kind": kind,
        "command": ["fusedbert", "bench", kind, "--against", "all", "--report", "report"],
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 754.0,
        "machine": {
            "cpu": "A processor of some make, 2.90 GHz",
            "features": ["avx512f", "avx512_vnni"],
            "cores": 2,
            "quota": None,
            "versions": {"onnxruntime": "1.32.0", "numpy": "2.3.4"},
            "load_average": {"before": [0.1, 0.2, 0.3], "after": [1.9, 1.1, 0.5]},
            "gpus": [{"name": "A graphics card", "driver": "570.1", "memory": "80 GB"}],
        },
        "model": {"name": "bert-base", "source": {"id": "bert-base"}, "labels": ["NEGATIVE", "POSITIVE"], "max_length": 512},
        "settings": {"rounds": 9, "seed": 0, **settings},
        "ceiling": {"gemm": {"fp32": 190.2, "int8": 760.4}, "bandwidth_gb_s": 21.3, "how": "MatMul of 1024x768x3072"},
        "cautions": ["Other processes used 14 % of the CPU in round 3 of 8x128."],
    }


def _contender(name, results):
    engine, precision, _ = PEERS[name]
    return {
        "name": name,
        "title": f"{engine.capitalize()} {precision}",
        "engine": engine,
        "precision": precision,
        "device": "cpu",
        "threads": 2,
        "versions": {engine: "1.2.3", "numpy": "2.3.4"},
        "status": "measured",
        "why": "",
        "check": {"texts": 64, "max_abs_logit": 3.2e-5, "tolerance": 1e-4, "label_agreement": 1.0},
        "results": results,
    }


def not_measured(*names):
    """Contenders with each status that has nothing to draw."""
    whys = {
        "wrong": "a logit is off by 3.1, where 0.0001 is allowed",
        "missing": "not installed: fusedbert bench setup optimum",
        "failed": "the process ended with signal 11: Segmentation fault",
    }
    for status, name in zip(whys, names or ("transformers-pipeline", "optimum-o4", "ctranslate2-fp32"), strict=False):
        yield {**_contender("optimum-fp32", []), "name": name, "status": status, "why": whys[status], "check": None}


def latency(names=tuple(PEERS), shapes=SHAPES, *, others=True):
    """A document of ``bench latency``: the cost of a shape, the contender's factor, some noise."""
    random = np.random.default_rng(1)
    contenders = []
    for name in names:
        results = []
        for batch, tokens in shapes:
            cost = 1.2 + 0.13 * batch * tokens + 8e-5 * batch * tokens**2
            p50 = float(cost * PEERS[name][2] ** (0.9 + 0.2 * random.random()))
            p90 = p50 * (1.02 + 0.2 * random.random())
            figures = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p90 * (1.02 + 0.5 * random.random()), "mean_ms": 1.01 * p50}
            figures |= {"samples": 90, "sequences_per_second": 1e3 * batch / (1.01 * p50)}
            results.append({"shape": f"{batch}x{tokens}", "batch": batch, "tokens": tokens, **figures})
            results[-1] |= {"share_of_ceiling": 0.6 / PEERS[name][2], "rounds": [figures] * 2}
        contenders.append(_contender(name, results))
    document = _head("latency", timed="from token ids in memory to logits in memory")
    document["contenders"] = [*contenders, *(not_measured() if others else ())]
    document |= _ratios(contenders, "shape", lambda result: result["p50_ms"])
    return document


def lengths(names=FEW):
    """A document of ``bench latency`` over many lengths and many batches."""
    shapes = [(1, tokens) for tokens in (2, 4, 8, 16, 32, 64, 128, 256, 512)]
    return latency(names, [*shapes, *((batch, 64) for batch in (2, 4, 8, 16, 32, 64))])


def corpus(names=tuple(PEERS), corpus="sst2/dev.tsv"):
    """A document of ``bench corpus``: peers have tried several batch sizes."""
    random = np.random.default_rng(2)
    contenders = []
    for name in names:
        batch_size = None if name.startswith("fusedbert") else 32
        rate = float(320 / PEERS[name][2] * (0.8 + 0.3 * random.random()))
        p50 = 1e3 / rate
        result = {"corpus": corpus, "texts": 872, "batch_size": batch_size, "texts_per_second": rate, "samples": 200}
        result |= {"p50_ms": p50, "p90_ms": 1.4 * p50, "p99_ms": 2.1 * p50, "accuracy": 0.91}
        result["tried"] = {} if batch_size is None else {"8": 0.8 * rate, "16": 0.9 * rate, "32": 1.01 * rate}
        result["rounds"] = [rate * factor for factor in (0.96, 1.0, 1.03)]
        contenders.append(_contender(name, [result]))
    document = _head("corpus", timed="from texts to labels")
    document["contenders"] = [*contenders, *not_measured()]
    document |= _ratios(contenders, "corpus", lambda result: 1 / result["texts_per_second"])
    return document


def load(names=FEW, modes=("plain", "batcher")):
    """A document of ``bench load``: queues that grow as the rate nears the contender's capacity."""
    contenders = []
    for name in names:
        results, capacity = [], {}
        for mode in modes if name.startswith("fusedbert") else modes[:1]:
            most = (560 if mode == "batcher" else 330) / PEERS[name][2]
            capacity[mode] = 0.7 * most
            for rate in (20, 50, 100, 150, 200, 250, 300, 400, 500, 600):
                wait = 1e3 / most / max(1 - rate / most, 0.005)
                row = {"mode": mode, "rate": rate, "achieved": min(rate, most), "p50_ms": wait, "p90_ms": 2.3 * wait}
                row |= {"p99_ms": 4.6 * wait, "errors": 0 if rate < most else 31, "within_budget": 4.6 * wait <= 100}
                results.append(row)
        contenders.append({**_contender(name, results), "capacity": capacity})
    document = _head("load", budget_ms=100.0)
    document["contenders"] = [*contenders, *not_measured()]
    document |= {"ratios": [], "summary": []}
    return document


def startup(names=tuple(PEERS)):
    """A document of ``bench startup``."""
    contenders = []
    for name in names:
        factor = PEERS[name][2]
        row = {"interpreter_s": 0.03, "import_s": 0.06 * factor, "load_s": 0.11 * factor, "first_s": 0.02 * factor}
        row |= {"total_s": 0.03 + 0.19 * factor}
        row |= {"peak_mb": 90 + 40 * factor, "installed_mb": 150 * factor**1.5, "rounds": []}
        contenders.append(_contender(name, [row]))
    document = _head("startup")
    document["contenders"] = [*contenders, *not_measured()]
    document |= _ratios(contenders, "start", lambda result: result["total_s"])
    return document


def hostile(kind):
    """A document with names that look like markup, and null for each figure that may be null."""
    document = {"latency": latency, "corpus": corpus, "load": load, "startup": startup}[kind](FEW)
    first, second, *_ = document["contenders"]
    times = () if kind == "latency" else ("p50_ms", "p90_ms", "p99_ms")
    for name in {"share_of_ceiling", "accuracy", "installed_mb", *times} & set(first["results"][0]):
        first["results"][0][name] = None
    was = second["name"]
    second |= {"name": HOSTILE, "why": HOSTILE, "title": HOSTILE, "versions": {HOSTILE: HOSTILE}, "check": None}
    for each in (*document["ratios"], *document["summary"]):
        each["peer"] = HOSTILE if each["peer"] == was else each["peer"]
    for contender in document["contenders"]:
        for result in contender["results"]:
            result |= {"corpus": HOSTILE} if "corpus" in result else {}
    document["contenders"].append({**_contender("optimum-fp32", []), "name": "stopped", "status": "interrupted", "check": None})
    document["ratios"] = [{**each, **({"corpus": HOSTILE} if "corpus" in each else {})} for each in document["ratios"]]
    document["model"]["name"] = HOSTILE
    document["cautions"].append(HOSTILE)
    document["settings"][HOSTILE] = HOSTILE
    document["command"].append(HOSTILE)
    document["ceiling"] = None
    return document


def _ratios(contenders, field, cost):
    """The ratios of each entry of fusedbert to each peer, with an interval, and their geometric means."""
    ratios, summary = [], []
    ours = [each for each in contenders if each["engine"] == "fusedbert"]
    for mine in ours:
        for peer in (each for each in contenders if each["engine"] != "fusedbert"):
            pairs = [
                (left.get(field, "first answer"), cost(left) / cost(right))
                for left in mine["results"]
                for right in peer["results"]
                if left.get(field) == right.get(field)
            ]
            for index, (what, median) in enumerate(pairs):
                entry = {"ours": mine["name"], "peer": peer["name"], field: what, "median": median, "low": 0.97 * median}
                ratios.append({**entry, "high": 1.04 * median, "pairs": 9, "noisy": 6 if index == 2 else 0})
            if not pairs:
                continue
            mean = float(np.exp(np.mean([np.log(median) for _, median in pairs])))
            what, worst = max(pairs, key=lambda pair: pair[1])
            entry = {"ours": mine["name"], "peer": peer["name"], "geometric_mean": mean, "low": 0.98 * mean}
            summary.append({**entry, "high": 1.02 * mean, "worst": {field: what, "median": worst}})
    return {"ratios": ratios, "summary": summary}
