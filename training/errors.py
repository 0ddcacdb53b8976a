"""The one kind of error that is the user's to mend."""


class InputError(Exception):
    """Something that was given cannot work; the message, one line, says what was given and what would do."""


class TrainingError(Exception):
    """A run that cannot go on, though what was given looked right."""
