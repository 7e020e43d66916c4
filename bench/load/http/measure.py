"""The benchmark ``load`` over HTTP: its modes are the numbers of texts in a request, its rates requests a second."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusedbert.engine.errors import OptionError

from ...run.interleave import EngineProcess, Run, RunSettings, Sample, Status
from ...run.machine import family, others_share, read_cpu_time
from ...run.process import EngineFailedError, Worker
from ...run.reference import open_ours
from ...run.setup import Lineup
from ...run.stats import name_some
from ..measure import LATE, SATURATE_SECONDS, Load, Plan, Record
from ..open_loop import Outcome
from ..sweep import RatePoint, RateSweep
from .servers import FACTORY, SERVERS
from .task import SETTLED

TIMED = "from a request's intended arrival to the last byte of its answer, on loopback; the client is a separate process"
MOST_TEXTS = 5000  # of a corpus; of a larger one these are drawn
WARM_SHARE = 0.2  # of a run: its first arrivals, which do not count
ARRIVALS = 300  # that a run has at least, unless it would take LONGEST times as long as asked for
LONGEST = 4.0
AGREEMENT = 0.95  # share of the labels that have to be those of fusedbert's fp32
CLIENT_SHARE = 0.2  # of the CPU time that a request takes in all: a client that takes more is named


@dataclasses.dataclass(frozen=True, kw_only=True)
class HttpOutcome(Outcome):
    """An outcome with what it cost, mean CPU milliseconds of a request, and the labels that were compared."""

    client_ms: float
    server_ms: float
    checked: int
    agreed: int


class Http(Load):
    """The benchmark ``load --http``."""

    timed = TIMED
    again = 1  # a pause of some 50 ms, of whatever cause, is more than 1 % of a short run
    checks_logits = False

    def __init__(self, lineup: Lineup, counts: Sequence[int], about: Mapping[str, Any]) -> None:
        if lineup.model.manifest.heads:
            raise OptionError(
                "the artifact has several heads, which the other servers do not serve: export one of them by itself"
            )
        self.counts = {f"{count} text{'s' if count > 1 else ''}": count for count in counts}
        super().__init__(lineup, Plan(**about, max_length=lineup.job.max_length, modes=tuple(self.counts)))
        self.texts = self.plan.corpus.texts
        if len(self.texts) > MOST_TEXTS:
            drawn = np.random.default_rng(0).choice(len(self.texts), MOST_TEXTS, replace=False)
            self.texts = tuple(self.texts[index] for index in drawn)
        self._client: Worker | None = None
        self._addresses: dict[str, dict[str, Any]] = {}  # port, process and protocol of each server

    def run_settings(self) -> RunSettings:
        """Let the engines' processes start servers."""
        factories = {spec.name: FACTORY for spec in (*SERVERS, *self.lineup.own, *self.lineup.peers)}
        return RunSettings(job=self.lineup.job, factories=factories)

    def measure(self, run: Run) -> None:
        """Label the texts, start the client, and search the rates; only one server has load at a time."""
        with tempfile.TemporaryDirectory(prefix="fusedbert-load-") as folder:
            file = Path(folder) / "texts.json"
            run.progress.step("labelling the texts with fusedbert's fp32")
            file.write_text(json.dumps(self.texts), encoding="utf-8")
            with open_ours(run) as worker:
                labels = worker.call("http-labels", timeout=run.settings.patience.check, path=str(file))["labels"]
            file.write_text(json.dumps({"texts": self.texts, "labels": labels}), encoding="utf-8")
            with Worker(None, run.variables(self.lineup.own[0])) as self._client:
                self._client.call("http-texts", timeout=run.settings.patience.load, path=str(file))
                for process in run.running:
                    self._open(run, process, file)
                self.search(run)

    def _open(self, run: Run, process: EngineProcess, texts: Path) -> None:
        """Compare a server's labels, and keep it busy for a moment, for each number of texts."""
        run.progress.step(f"{process.name}: looking for its saturation")
        self._addresses[process.name] = {name: process.description.pop(name) for name in ("port", "pid", "protocol")}
        record, patience, counted = Record(alone_ms=0.0, callers=self.plan.callers), run.settings.patience, [0, 0]
        for mode, count in self.counts.items():
            opened = self.ask(process, "http-open", patience.load, texts=count)
            sizes = {"connections": self.plan.callers, "seconds": SATURATE_SECONDS}
            found = opened and self.ask(process, "http-saturate", patience.visit, texts=count, **sizes)
            if not opened or not found:
                run.report(process)
                return
            counted = [counted[0] + opened["checked"], counted[1] + opened["agreed"]]
            record.alone[mode] = opened["alone_ms"]
            record.alone_ms = record.alone_ms or opened["alone_ms"]
            record.sweeps[mode] = RateSweep(found["rate"], rates=self.plan.rates)
        share = counted[1] / max(1, counted[0])
        process.check = {"texts": counted[0], "max_abs_logit": None, "tolerance": None, "label_agreement": share}
        process.check["reference"] = "fusedbert's fp32"
        if share < AGREEMENT:
            process.end(Status.WRONG, f"{share:.1%} of {counted[0]} labels are those of fusedbert's fp32, not {AGREEMENT:.0%}")
        else:
            self.records[process.name] = record
        run.report(process)

    def ask(self, process: EngineProcess, task: str, timeout: float, **request: Any) -> dict[str, Any] | None:
        """Request a task of the client about a server; None if either failed, and the server's status says so."""
        assert self._client is not None
        try:
            return self._client.call(task, timeout=timeout, **self._addresses[process.name], **request)
        except EngineFailedError as error:
            process.end(Status.FAILED, str(error))
            return None

    def sample(self, run: Run, process: EngineProcess, mode: str, rate: float, seed: list[int]) -> Sample | None:
        """Let the client send a rate; the client, the server and this process are not the others that had the CPUs."""
        plan = self.plan
        seconds = max(plan.seconds, min(ARRIVALS / rate, LONGEST * plan.seconds))
        limits = {"seconds": seconds, "grace": plan.grace, "give_up": plan.grace + LATE * plan.budget}
        timeout = run.settings.patience.visit + 2.0 * seconds + 2.0 * plan.grace + 2.0 * SETTLED
        assert self._client is not None
        pids = [self._client.pid, *family(self._addresses[process.name]["pid"])]
        before = read_cpu_time(pids)
        request = {"texts": self.counts[mode], "rate": rate, "seed": seed, "warm": WARM_SHARE * seconds, **limits}
        result = self.ask(process, "http-run", timeout, **request)
        run.report(process)
        return None if result is None else Sample(result, others_share(before, read_cpu_time(pids)))

    def outcome(self, fields: dict[str, Any]) -> Outcome:
        """Make the outcome with its costs."""
        return HttpOutcome(**fields)

    def settings(self) -> dict[str, Any]:
        """Return the plan; ``callers`` are the connections that looked for saturation."""
        texts = f"requests of {', '.join(map(str, self.counts.values()))} texts, drawn from {self.plan.corpus.name}"
        more = {"input": f"{texts} ({len(self.texts)})", "texts_per_request": list(self.counts.values()), "unit": "requests"}
        return {**super().settings(), **more}

    def result(self, mode: str, point: RatePoint) -> dict[str, Any]:
        """Add the CPU time of a request, and the share of the labels that are those of fusedbert's fp32."""
        runs = [each for each in point.outcomes if isinstance(each, HttpOutcome)]
        costs = {name: float(np.mean([getattr(each, name) for each in runs])) for name in ("client_ms", "server_ms")}
        checked = sum(each.checked for each in runs)
        agreement = sum(each.agreed for each in runs) / checked if checked else None
        return {**super().result(mode, point), **costs, "label_agreement": agreement, "checked": checked}

    def cautions(self, document: Mapping[str, Any]) -> list[str]:
        """Add what the client cost, and runs whose answers were not those that they should be."""
        found, held = super().cautions(document), []
        for each in document["contenders"]:
            for one in each["results"]:
                name = f"{each['name']} {one['mode']} at {one['rate']:.3g}/s"
                if one["label_agreement"] is not None and one["label_agreement"] < AGREEMENT:
                    found.append(f"Wrong answers: {name}, {one['label_agreement']:.1%} of {one['checked']} labels as expected.")
                if each["capacity"].get(one["mode"]) == one["rate"]:
                    held.append((one["client_ms"], one["client_ms"] + one["server_ms"], f"{each['name']} {one['mode']}"))
        if held:
            low, high = min(held)[0], max(held)[0]
            found.append(f"The client took {low:.3f} to {high:.3f} ms of CPU time a request at the rates that were held.")
        if dear := [f"{name} ({own / both:.0%})" for own, both, name in held if own > CLIENT_SHARE * both]:
            found.append(f"It had more than {CLIENT_SHARE:.0%} of the CPU time of client and server: {name_some(dear)}.")
        return found


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse numbers of texts with commas between, rising.

    Raises:
        OptionError: A part is not a whole number from 1 to 1000; the message names it.

    Example:
        >>> parse_counts("8, 1")
        (1, 8)
    """
    counts = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        if not part.isascii() or not part.isdigit() or not 1 <= int(part) <= 1000:
            raise OptionError(f"{part!r} texts in a request: give whole numbers from 1 to 1000, like 1,8")
        counts.add(int(part))
    return tuple(sorted(counts)) or parse_counts("1,8")
