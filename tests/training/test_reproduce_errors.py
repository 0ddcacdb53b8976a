"""What the studies of errors and slopes make of records."""

from training.reproduce.figures import cost_table


def test_the_cost_counts_failed_runs_and_names_each_machine_and_version_once():
    versions = {"tensorflow": "2.21.0", "keras": "3.15.1"}
    records = [
        {"cpu_seconds": 30.0, "machine": "b, 2 threads", "versions": versions},
        {"cpu_seconds": 45.0, "machine": "a, 1 threads", "versions": versions | {"keras": "3.15.0"}},
        {"cpu_seconds": 15.0, "machine": "b, 2 threads", "versions": versions, "failed": "the loss is nan"},
    ]
    header, _, row = cost_table(records).splitlines()
    assert row == "| 3 | 1 | 1.5 | 30.0 | a, 1 threads; b, 2 threads | 2.21.0 | 3.15.0, 3.15.1 |"
    assert (
        header == "| runs | failed | CPU minutes in all | median CPU seconds per run | machine | TensorFlow | Keras |"
    )
