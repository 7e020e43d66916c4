"""Engines that behave in known ways, for the real worker process; ``make(name, job)`` is their factory."""

import os
import sys
import time

import numpy as np


class Fake:
    """Computes the same function of the token ids as every other correct fake, in almost no time."""

    name = "fake"

    def __init__(self, name, job):
        self.name = name
        self.job = job
        self.loaded = False

    def prepare(self):
        print("a library that prints to stdout")  # must not reach the answers
        os.write(1, b"and another below Python\n")

    def load(self):
        self.loaded = True

    def logits(self, batch):
        assert self.loaded
        return np.stack([answer(ids[mask == 1]) for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)])

    def describe(self):
        return {"device": "cpu", "threads": self.job.threads, "precision": "fp32", "versions": {"fake": "1"}, "why": "asked"}

    def close(self):
        self.loaded = False


def answer(ids):
    """Two logits that depend on every token."""
    total = float(np.sum(np.asarray(ids) * np.arange(1, len(ids) + 1)))
    return np.array([np.sin(total), 3 * np.cos(total)], dtype=np.float32)


class Wrong(Fake):
    def logits(self, batch):
        return -super().logits(batch)


class IgnoresTheMask(Fake):
    def logits(self, batch):
        return np.stack([answer(ids) for ids in batch.input_ids])


class NotANumber(Fake):
    def logits(self, batch):
        return super().logits(batch) * np.nan


class Crashes(Fake):
    def load(self):
        print("about to go", file=sys.stderr)
        os.abort()


class CrashesLater(Fake):
    """Passes the check, and dies the second time it is timed."""

    timed = 0

    def logits(self, batch):
        if len(batch.input_ids) == 2:
            self.timed += 1
            if self.timed > 40:
                os._exit(7)
        return super().logits(batch)


class Hangs(Fake):
    def load(self):
        time.sleep(600)


class Raises(Fake):
    def prepare(self):
        raise ValueError("no such model\n  of that kind")


class Leaves(Fake):
    def load(self):
        sys.exit(3)


class NeedsAPackage(Fake):
    def load(self):
        import a_package_that_is_not_there  # noqa: F401


class Compiled(Fake):
    """Notes the process and the shape of each batch, one a line, in the file ``seen``."""

    def logits(self, batch):
        rows, tokens = batch.input_ids.shape
        with (self.job.work / "seen").open("a") as file:
            file.write(f"{os.getpid()} {rows}x{tokens} {self.job.shape}\n")
        return super().logits(batch)


class CompilesSome(Compiled):
    """Fails for batches of two."""

    def load(self):
        if self.job.shape.batch == 2:
            raise RuntimeError(f"no graph of {self.job.shape}")
        super().load()


class SlowStart(Fake):
    def load(self):
        time.sleep(0.3)
        super().load()


class Slow(Fake):
    """Takes 2 ms longer for each batch."""

    def logits(self, batch):
        time.sleep(0.002)
        return super().logits(batch)


FAKES = {
    "right": Fake,
    "wrong": Wrong,
    "no-mask": IgnoresTheMask,
    "nan": NotANumber,
    "crashes": Crashes,
    "crashes-later": CrashesLater,
    "hangs": Hangs,
    "raises": Raises,
    "leaves": Leaves,
    "needs": NeedsAPackage,
    "compiled": Compiled,
    "compiles-some": CompilesSome,
    "slow-start": SlowStart,
    "slow": Slow,
}


def make(name, job):
    return FAKES[name](name, job)
