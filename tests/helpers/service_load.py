"""Twice the load that `fusedbert serve` can bear, with clients that leave and clients that are slow among the others.

python tests/helpers/service_load.py ARTIFACT --seconds 60
"""

import argparse
import asyncio
import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from service_process import Service, running_service

GOOD, LEAVING, SLOW = "good", "leaving", "slow"
CALLERS = 32  # at once, to see how much is answered
WORDS = ("the", "film", "is", "a", "long", "but", "never", "dull", "story", "of", "friends", "who", "lose", "each", "other")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one client; times are seconds from when it was to begin."""

    kind: str
    status: int  # 0 without an answer
    late: float  # until it began
    seconds: float  # until its answer


async def ask(port: int, kind: str, draw: random.Random, due: float) -> Answer:
    """Be one client."""
    body = json.dumps({"inputs": " ".join(draw.choices(WORDS, k=400))}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    request = head.encode() + b"connection: close\r\n\r\n" + body
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    late, status = time.perf_counter() - due, 0
    try:
        if kind == LEAVING:  # half of them before all is sent
            writer.write(request[: draw.randrange(2 * len(request))])
            await asyncio.sleep(draw.uniform(0.0, 0.1))
        else:
            step = len(request) // 10 if kind == SLOW else len(request)
            for start in range(0, len(request), step):
                writer.write(request[start : start + step])
                await asyncio.sleep(0.2 if kind == SLOW else 0.0)
            answer = await reader.read()
            status = int(answer[9:12] or 0)
    except ConnectionError:  # refused while it was sending
        pass
    finally:
        writer.close()
    return Answer(kind=kind, status=status, late=late, seconds=time.perf_counter() - due)


async def saturate(port: int, seconds: float) -> float:
    """Keep the service busy; return how many requests a second it answers."""
    end = time.perf_counter() + seconds

    async def caller(seed: int) -> int:
        draw, done = random.Random(seed), 0
        while time.perf_counter() < end:
            await ask(port, GOOD, draw, time.perf_counter())
            done += 1
        return done

    return sum(await asyncio.gather(*map(caller, range(CALLERS)))) / seconds


async def drive(port: int, rates: dict[str, float], seconds: float, *, seed: int = 0) -> list[Answer]:
    """Let clients of each kind arrive at random, that many a second, whether or not the earlier ones are answered."""
    draw, total, now = random.Random(seed), sum(rates.values()), time.perf_counter()
    end, clients = now + seconds, []
    while (now := now + draw.expovariate(total)) < end:
        await asyncio.sleep(max(0.0, now - time.perf_counter()))
        kind = draw.choices(list(rates), list(rates.values()))[0]
        clients.append(asyncio.create_task(ask(port, kind, random.Random(draw.random()), now)))
    return list(await asyncio.gather(*clients))


def percentile(seconds: Iterable[float], share: float) -> float:
    """Return the milliseconds that a share of the times are within."""
    ordered = sorted(seconds)
    return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(name: str, answers: Sequence[Answer]) -> float:
    """Print what became of the good clients; return p99 of those with a result."""
    good = [each for each in answers if each.kind == GOOD]
    scored = [each.seconds for each in good if each.status == 200]
    p50, p99 = percentile(scored, 0.5), percentile(scored, 0.99)
    everyone, late = percentile((each.seconds for each in good), 0.99), percentile((each.late for each in answers), 0.99)
    print(f"{name}: {dict(Counter(each.status for each in good))}; p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"  p99 with those that were refused {everyone:.0f} ms; p99 of how late clients began {late:.0f} ms")
    return p99


async def measure(service: Service, seconds: float) -> None:
    """Compare twice the load with and without clients that leave and clients that are slow; without them before and after."""
    threads = service.status("Threads")
    rate = 2 * await saturate(service.port, 5.0)
    print(f"at {CALLERS} callers {rate / 2:.0f} requests/s; sent {rate:.0f}/s, for {seconds:g} s with them")
    good = {GOOD: 0.8 * rate}
    without = [report("without them", await drive(service.port, good, seconds / 3))]
    load = asyncio.create_task(drive(service.port, good | {LEAVING: 0.1 * rate, SLOW: 0.1 * rate}, seconds, seed=1))
    await asyncio.sleep(min(10.0, seconds / 2))
    early = service.status("VmRSS")
    answers = await load
    late = service.status("VmRSS")
    among = report("with them", answers)
    without.append(report("without them", await drive(service.port, good, seconds / 3, seed=2)))
    print(f"p99 with them / without them: {among / without[0]:.2f} and {among / without[1]:.2f}")
    print("slow clients:", dict(Counter(each.status for each in answers if each.kind == SLOW)))
    print(f"memory: {early / 1024:.0f} MiB early, {late / 1024:.0f} MiB at the end")
    print(f"threads: {threads} before, {service.status('Threads')} after")
    print("texts:", {name: service.texts(name) for name in ("answered", "refused", "cancelled", "waiting", "running")})


def main() -> None:
    """Start the service and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with running_service(options.artifact) as service:
        asyncio.run(measure(service, options.seconds))


if __name__ == "__main__":
    main()
