import numpy as np
import pytest

from training.config import Config
from training.errors import InputError
from training.step.schedules import Plateau, make_schedule


def rates(config, steps, plateau=None):
    schedule = make_schedule(config, plateau)
    return [float(schedule(step)) for step in steps]


def test_cosine_rises_linearly_and_falls_to_zero():
    config = Config(learning_rate=0.2, warmup_steps=10, steps=110)
    falling = 0.1 * (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 1, 1])))
    assert rates(config, [0, 5, 10, 35, 60, 110, 200]) == pytest.approx([0, 0.1, *falling], abs=1e-7)


def test_cosine_without_warmup_starts_at_its_peak():
    assert rates(Config(learning_rate=0.2, warmup_steps=0, steps=100), [0]) == pytest.approx([0.2])


def test_steps_divides_after_each_drop_step():
    config = Config(learning_rate=1.0, warmup_steps=4, schedule="steps", drop_steps=(10, 20), drop_factor=5.0)
    assert rates(config, [0, 2, 4, 9, 10, 19, 20, 900]) == pytest.approx([0, 0.5, 1, 1, 0.2, 0.2, 0.04, 0.04])


def test_plateau_divides_when_the_error_stays():
    config = Config(learning_rate=1.0, warmup_steps=4, schedule="plateau")
    plateau = Plateau(patience=2, drop_factor=10.0, max_drops=3)
    schedule = make_schedule(config, plateau)
    seen = []
    for error in [0.5, 0.4, 0.4, 0.45, 0.41, 0.39, 0.4, 0.38, 0.38, 0.38, 0.38, 0.38]:
        dropped = plateau.observe(error)
        seen.append((dropped, float(schedule(100))))
    drops = [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 3]
    assert [dropped for dropped, _ in seen] == [bool(step) for step in np.diff([0, *drops])]
    assert [rate for _, rate in seen] == pytest.approx([10.0**-drop for drop in drops])
    assert float(schedule(2)) == pytest.approx(0.5e-3)


def test_plateau_has_the_papers_three_rates():
    config = Config(learning_rate=1e-2, warmup_steps=0, schedule="plateau", patience=1)
    plateau = Plateau(config.patience, config.drop_factor, config.max_drops)
    schedule = make_schedule(config, plateau)
    seen = []
    for _ in range(6):
        plateau.observe(0.5)
        seen.append(float(schedule(100)))
    assert seen == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "steps"}, "drop_steps is empty, but must be ascending steps"),
        ({"schedule": "steps", "drop_steps": (20, 10)}, "drop_steps is 20,10, but must be ascending"),
        ({"warmup_steps": 1000}, "warmup_steps is 1000, but must be below steps, 1000"),
    ],
    ids=["empty", "descending", "warmup"],
)
def test_fields_that_do_not_fit_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        make_schedule(Config(**changes))
