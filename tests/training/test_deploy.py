"""The files for clusters: valid, and their commands started for real, as two processes of this machine."""

import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

DEPLOY = pathlib.Path(__file__).parents[2] / "training" / "deploy"
SMALL = [
    *("--dataset=digits", "--network=small", "--image_size=0", "--filters=4,8", "--convolutions=1", "--steps=6"),
    *("--warmup_steps=0", "--batch_size=64", "--evaluate_every=3"),
]
SRUN = """#!/bin/bash
# What Slurm does with two tasks on one machine.
echo "$@" >> srun.log
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2
SLURM_PROCID=1 "$@" & SLURM_PROCID=0 "$@"
status=$?
wait %1 && exit $status
"""


@pytest.fixture
def manifests():
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


@pytest.fixture
def environment(data_dir):
    return {**os.environ, "TFDS_DATA_DIR": str(data_dir), "TF_CPP_MIN_LOG_LEVEL": "2"}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_manifests_are_valid_for_kubernetes(manifests):
    assert [manifest["kind"] for manifest in manifests] == ["Service", "Job"]
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, "1.33", strict=True) == "1.33"


def test_workers_of_the_job_are_those_of_its_cluster(manifests):
    service, job = manifests
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    addresses = re.findall(r'"([\w.-]+):2222"', worker["env"][1]["value"])
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert subdomain == service["metadata"]["name"]
    assert addresses == [f"{name}-{index}.{subdomain}" for index in range(job["spec"]["completions"])]
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}


@pytest.mark.slow
def test_workers_of_the_job_train_together(manifests, environment, tmp_path):
    (worker,) = manifests[1]["spec"]["template"]["spec"]["containers"]
    replaced = {"--workdir": f"--workdir={tmp_path}", "--config": "--config=digits", "--data_dir": "--data_dir="}
    args = [replaced.get(arg.partition("=")[0], arg) for arg in worker["args"]]
    tf_config = worker["env"][1]["value"]
    for name, port in zip(re.findall(r'"([\w.-]+:2222)"', tf_config), free_ports(2), strict=True):
        tf_config = tf_config.replace(name, f"127.0.0.1:{port}")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "training", *args, *SMALL],
            env={**environment, "TF_CONFIG": tf_config.replace("$(WORKER)", str(index))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    shown = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], shown
    assert (tmp_path / "checkpoints" / "6.npz").exists()
    assert "2 x CPU" in shown[0][0]
    assert shown[1] == ("", "")


@pytest.mark.slow
def test_slurm_script_trains_and_queues_what_was_stopped_again(environment, tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$@" >> scontrol.log\n')
    (tmp_path / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    for name in ("srun", "scontrol", "python"):
        (tmp_path / name).chmod(0o755)
    environment |= {
        "PATH": f"{tmp_path}:{environment['PATH']}",
        "PYTHONPATH": str(DEPLOY.parents[1]),
        "SLURM_JOB_ID": str(os.getpid()),  # the workers' ports follow from it
        "CONFIG": "digits",
        "DATA": environment["TFDS_DATA_DIR"],
        "RUNS": str(tmp_path),
        "FLAGS": shlex.join(SMALL),
    }
    script = ["bash", str(DEPLOY / "slurm.sh")]
    process = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert (process.returncode, process.stderr) == (0, "")
    assert "2 x CPU" in process.stdout
    assert (tmp_path / "srun.log").read_text().startswith("--kill-on-bad-exit=0 python -m training fit")
    assert not (tmp_path / "scontrol.log").exists()

    (tmp_path / "srun").write_text("#!/bin/bash\nexit 143\n")
    assert subprocess.run(script, env=environment, cwd=tmp_path, timeout=30).returncode == 143
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {os.getpid()}\n"


def test_container_holds_what_is_installed_from():
    text = (DEPLOY / "Containerfile").read_text()
    for words in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in words.split():
            assert (DEPLOY.parents[1] / name).exists()
    assert "pip install --no-cache-dir '.[training]'" in text
