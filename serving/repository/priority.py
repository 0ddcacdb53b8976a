"""Which threads the system runs first."""

import os
import sys
import threading

_BACKGROUND = 10  # of nice's 0 to 19: about a tenth of the processor time of a thread that is as it was


def lower_priority() -> None:
    """Lets the other threads of the process go first, for as long as this one lives; threads that it starts inherit it.

    Linux knows a priority for each thread. Elsewhere nothing changes.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND)
