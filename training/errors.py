"""How a run ends that does not end well."""


class InputError(Exception):
    """Something that was given cannot work; the message, one line, says what was given and what would do."""


class TrainingError(Exception):
    """A run that cannot go on, though what was given looked right."""


class NotFiniteError(TrainingError):
    """The loss or the weights are infinite or not numbers.

    Args:
        step: The step by which they were found so.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss or the weights are not finite at step {step}")
        self.step = step


class StoppedError(Exception):
    """A run was asked to stop and has saved its state; the message, one line, says how to go on."""
