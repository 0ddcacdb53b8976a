"""What TF_CONFIG and Slurm's variables say, and what they say wrong."""

import json

import pytest

from training.distribute.cluster import Cluster, is_loopback, read_cluster, split_address
from training.errors import InputError


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


SLURM = {
    "SLURM_JOB_ID": "40007",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[08-09],big1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"TF_CONFIG": ""}, None),
        (tf_config({"worker": ["a:1"]}), None),
        (tf_config({"worker": ["a:1", "b:1"]}, index=1), Cluster(("a:1", "b:1"), 1)),
        (tf_config({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, index=1), Cluster(("a:1", "b:1", "c:1"), 2)),
        (tf_config({"worker": ["b:1"], "chief": ["a:1"]}, kind="chief"), Cluster(("a:1", "b:1"), 0)),
        (SLURM, Cluster(("gpu08:10007", "gpu08:10008", "gpu09:10007", "gpu09:10008", "big1:10007"), 3)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (
            SLURM
            | {
                "SLURM_PROCID": "0",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_STEP_NODELIST": "n[9-10]",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            },
            Cluster(("n9:10007", "n10:10007"), 0),
        ),
        (
            SLURM
            | {
                "SLURM_PROCID": "0",
                "SLURM_STEP_NUM_TASKS": "4",
                "SLURM_STEP_NODELIST": "r[1-2]n[3,7]",
                "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
                "SLURM_DISTRIBUTION": "cyclic",
            },
            Cluster(("r1n3:10007", "r1n7:10007", "r2n3:10007", "r2n7:10007"), 0),
        ),
        (SLURM | tf_config({"worker": ["a:1", "b:1"]}), Cluster(("a:1", "b:1"), 0)),
    ],
    ids=[
        "alone",
        "empty",
        "one",
        "workers",
        "chief-first",
        "chief",
        "slurm",
        "no-srun",
        "order",
        "brackets",
        "tf-config-first",
    ],
)
def test_cluster_is_what_the_environment_says(environment, expected):
    assert read_cluster(environment) == expected


WORKERS = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"TF_CONFIG": "{'cluster'"},
            r"TF_CONFIG cannot be read \(JSONDecodeError: Expecting property.*\); it must be as {\"cluster",
        ),
        ({"TF_CONFIG": "[]"}, r"TF_CONFIG cannot be read \(TypeError: .*; it must be as"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, r"TF_CONFIG cannot be read \(KeyError: 'task'\); it must"),
        ({"TF_CONFIG": '{"cluster": [], "task": {"type": "worker", "index": 0}}'}, "but the cluster has no worker"),
        (tf_config(WORKERS | {"ps": ["c:1"]}), "has a 'ps', but this trainer has only chief and worker"),
        (tf_config({"worker": "a:1"}), "TF_CONFIG's worker is 'a:1', but must be a list of host:port"),
        (tf_config({"chief": ["a:1", "b:1"]}), "has several chiefs"),
        (tf_config(WORKERS, kind="evaluator"), "task is evaluator 0, but the cluster has only worker 0, worker 1"),
        (tf_config(WORKERS, kind="chief"), "task is chief 0, but the cluster has only worker 0, worker 1"),
        (tf_config(WORKERS, index=2), "task is worker 2, but the cluster has only worker 0, worker 1"),
        (tf_config(WORKERS, index="1"), "task is worker '1', but the cluster has only worker 0, worker 1"),
        (tf_config({"worker": ["a:1", "b"]}), "address is 'b', but must be host:port"),
        (tf_config({"worker": ["a:1", "b:70000"]}), "address is 'b:70000', but must be host:port"),
        (tf_config({"worker": ["a:1", "a:1"]}), "two workers have one address in a:1, a:1"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "is set, but not 'SLURM_STEP_NODELIST'; start the workers by srun"),
        (SLURM | {"SLURM_STEP_NODELIST": "n[a-b]"}, "Slurm's variables cannot be read"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, "number of tasks do not fit"),
        (SLURM | {"SLURM_PROCID": "5"}, "number of tasks do not fit"),
        (SLURM | {"SLURM_DISTRIBUTION": "cyclic"}, "srun --distribution=block"),
    ],
)
def test_what_contradicts_itself_is_named_in_one_line(environment, message):
    with pytest.raises(InputError, match=message) as error:
        read_cluster(environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "expected"), [("[::1]:80", ("::1", 80)), ("node-1.example.org:2222", ("node-1.example.org", 2222))]
)
def test_address_is_a_host_and_a_port(address, expected):
    assert split_address(address) == expected


@pytest.mark.parametrize(
    ("addresses", "local"),
    [(("127.0.0.1:1", "localhost:2"), True), (("[::1]:1", "127.0.1.1:2"), True), (("127.0.0.1:1", "n1:2"), False)],
)
def test_local_workers_are_known_by_their_addresses(addresses, local):
    assert Cluster(addresses, 0).is_local is local


def test_a_name_is_not_taken_for_loopback():
    assert not is_loopback("127.example.org")
