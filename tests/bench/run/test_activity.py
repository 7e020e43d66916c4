import os

import pytest

from fusedbert.bench.run.activity import Reading, others_share, read
from fusedbert.engine.hardware.cpu import affinity


@pytest.fixture
def proc(tmp_path):
    """Write a /proc with CPU times in ticks: busy for every CPU in reach, and for some processes."""

    def write(busy, **processes):
        cpus = "\n".join(f"cpu{cpu} {busy} 0 0 12345 99 0 0 0 0 0" for cpu in affinity())
        (tmp_path / "stat").write_text(f"cpu 1 2 3 4 5\n{cpus}\ncpu4711 999999 0 0 0 0 0 0 0\nintr 1 2 3\n")
        for pid, ticks in processes.items():
            folder = tmp_path / pid.lstrip("p")
            folder.mkdir(exist_ok=True)
            (folder / "stat").write_text(f"7 (a (b) c) S {' '.join(['0'] * 10)} {ticks} 0 0 0")
        return tmp_path

    return write


def test_only_the_cpus_in_reach_count_and_idle_is_not_busy(proc):
    own = f"p{os.getpid()}"
    found = read([], root=proc(200, **{own: 50, "p1": 10}))
    ticks = os.sysconf("SC_CLK_TCK")
    assert found.cpus == len(affinity())
    assert found.busy == pytest.approx(200 * found.cpus / ticks)
    assert found.own == pytest.approx(50 / ticks)
    assert read([1], root=proc(200)).own == pytest.approx(60 / ticks)


def test_others_have_what_neither_we_nor_idling_had():
    before = Reading(at=10.0, busy=100.0, own=30.0, cpus=2)
    after = Reading(at=12.0, busy=103.0, own=32.0, cpus=2)
    assert others_share(before, after) == pytest.approx(1.0 / 4.0)


def test_nothing_is_said_of_a_moment_or_without_an_account(tmp_path):
    one = Reading(at=1.0, busy=1.0, own=1.0, cpus=1)
    assert others_share(one, Reading(at=1.1, busy=1.1, own=1.0, cpus=1)) is None
    assert others_share(None, one) is None
    assert read([], root=tmp_path) is None
