"""Who takes part in a benchmark: ours by precision and device, and the peers that a user asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from fusedbert.engine.errors import OptionError

from ..cli.options import Shared
from ..engines.registry import Job, Kind, groups, kind_of, select
from .interleave import AGAIN
from .subject import Subject, find_subject, need_checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contest:
    """A model and those that run it.

    Attributes:
        subject: The model.
        job: What each contender is given.
        ours: Our entries.
        peers: All others.
    """

    subject: Subject
    job: Job
    ours: tuple[Kind, ...]
    peers: tuple[Kind, ...]

    @property
    def everyone(self) -> tuple[Kind, ...]:
        """Ours first."""
        return (*self.ours, *self.peers)

    @property
    def our_names(self) -> tuple[str, ...]:
        """The names of ours."""
        return tuple(kind.name for kind in self.ours)


def open_contest(shared: Shared, *, max_length: int | None = None, without: Collection[str] = ()) -> Contest:
    """Find the model and its contenders.

    A contender of ours that is named among those to compare with runs a second time, as ``NAME-again``: how far two runs
    of the same thing differ says what a difference means.

    Args:
        shared: The user's options.
        max_length: Tokens at which texts are cut; None for what the model takes.
        without: Contenders that cannot take part; those that come with a group are left out.

    Raises:
        OptionError: A name is unknown, does not run on the device, or needs a checkpoint that is not at hand.
        FusedBertError: MODEL cannot be had.
    """
    options = shared.options()
    if options.device.index:  # engines differ in how they name a second GPU; the driver's variable is the same for all
        number = options.device.index
        raise OptionError(f"a benchmark runs on the first GPU in sight: set CUDA_VISIBLE_DEVICES={number}, and --device cuda")
    for name in shared.against:  # before anything is exported
        if name not in groups():
            kind_of(name)
    subject = find_subject(shared.model, shared.checkpoint, options)
    ours = tuple(kind_of(name) for name in subject.ours(options.precision, both=bool(shared.against)))
    named = set(shared.against)
    peers = []
    for kind in select(shared.against, device=subject.device):
        if kind.name in without and kind.name not in named:
            continue
        if kind in ours:
            if kind.name in named:
                peers.append(dataclasses.replace(kind, name=kind.name + AGAIN, title=f"{kind.title}, again"))
            continue
        if kind.engine == "fusedbert" and kind.name not in named:
            continue
        peers.append(kind)
    if converting := [kind.name for kind in peers if kind.needs_checkpoint]:
        need_checkpoint(subject, converting, shared.model)
    job = Job.make(
        checkpoint=subject.checkpoint,
        artifact=subject.artifact,
        device=subject.device,
        threads=subject.threads,
        max_length=max_length or subject.manifest.max_length,
    )
    return Contest(subject=subject, job=job, ours=ours, peers=tuple(peers))
