"""The number of Ray actors and the resources that each asks for; needs no Ray."""

from __future__ import annotations

import pytest

from fusedbert.engine import DeviceError, OptionError
from fusedbert.engine.scoring.ray import plan_actors


@pytest.mark.parametrize(
    ("resources", "device", "requested", "threads", "actors", "share"),
    [
        ({"CPU": 2.0}, "cpu", None, 1, 2, {"num_cpus": 0.75}),
        ({"CPU": 2.0}, "cpu", 1, 2, 1, {"num_cpus": 1.0}),
        ({"CPU": 64.0}, "cpu", None, 4, 16, {"num_cpus": 3.0}),
        ({"CPU": 8.0, "GPU": 4.0}, "cuda", None, 1, 4, {"num_cpus": 0.5, "num_gpus": 1.0}),
        ({"CPU": 1.0}, "cpu", None, 1, 1, {"num_cpus": 0.75}),
    ],
)
def test_actors_leave_a_cpu_for_the_reader(resources, device, requested, threads, actors, share) -> None:  # type: ignore[no-untyped-def]
    assert plan_actors(resources, device, requested, threads) == (actors, share)
    assert actors * share["num_cpus"] + 0.25 <= resources["CPU"]


@pytest.mark.parametrize(
    ("resources", "device", "requested", "said"),
    [
        ({"CPU": 2.0}, "cpu", 3, "3 Ray actors on cpu need 2.5 CPUs, the cluster has 2 CPUs"),
        ({"CPU": 8.0}, "cuda", None, "1 Ray actors on cuda need 0.75 CPUs and 1 GPUs, the cluster has 8 CPUs and 0 GPUs"),
        ({}, "cpu", None, "the cluster has 0 CPUs"),
    ],
)
def test_more_actors_than_the_cluster_can_hold_are_refused(resources, device, requested, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DeviceError, match=said):
        plan_actors(resources, device, requested, 1)


@pytest.mark.parametrize("requested", [0, -1, True])
def test_a_number_of_actors_is_positive(requested: int) -> None:
    with pytest.raises(OptionError, match="actors is"):
        plan_actors({"CPU": 2.0}, "cpu", requested, 1)
