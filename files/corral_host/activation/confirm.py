"""A generation that passed its gate waits until the controller confirms over a new connection."""

import time

from corral_host.activation.record import RUN, job_name
from corral_host.system.commands import HostError, write_atomic

PAUSE_SECONDS = 0.2


def waiting_file(instance):
    return waiting_of(job_name(instance))


def waiting_of(job):
    return RUN / f"{job}.waiting"


def waits(job):
    """Whether an activation waits for the controller's confirmation."""
    return waiting_of(job).exists()


def confirmed_file(instance):
    return RUN / f"{job_name(instance)}.confirmed"


def await_confirmation(instance, generation, limit_seconds):
    """Raises HostError when nobody confirms within the limit."""
    forget(instance)
    write_atomic(waiting_file(instance), generation)
    deadline = time.monotonic() + limit_seconds
    while not confirmed_file(instance).exists():
        if time.monotonic() > deadline and withdraw(instance):
            raise HostError(f"the controller did not confirm within {limit_seconds} s")
        time.sleep(PAUSE_SECONDS)
    forget(instance)


def withdraw(instance):
    """Stop waiting; False if the controller confirmed first.

    Either this unlink or the rename in `confirm` gets the file, never both.
    """
    try:
        waiting_file(instance).unlink()
    except FileNotFoundError:
        return False
    return True


def confirm(instance, generation):
    """Confirm a generation for the controller. Raises HostError if it does not wait for that."""
    waiting = waiting_file(instance)
    try:
        found = waiting.read_text()
        if found == generation:
            waiting.rename(confirmed_file(instance))
            return {"confirmed": True}
    except FileNotFoundError:
        found = "none"
    raise HostError(
        f"{instance}: generation {generation} waits for no confirmation (waiting: {found})",
        "see how the activation ended: `corral history`",
    )


def forget(instance):
    for path in (waiting_file(instance), confirmed_file(instance)):
        path.unlink(missing_ok=True)
