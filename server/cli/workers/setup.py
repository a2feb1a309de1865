"""What a worker is told by the process that supervises it, and what it answers."""

import secrets
from dataclasses import dataclass
from enum import StrEnum

from pydantic import SecretStr

from proctor.server.config.settings import Settings


class Command(StrEnum):
    """What the supervisor tells a worker."""

    STOP = "stop"


class Progress(StrEnum):
    """What a worker reports to the supervisor.

    Until it is running, it has served nothing, and can be killed.
    """

    RUNNING = "running"
    RECEIVING = "receiving"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """The first message to a worker.

    Attributes:
        slot: the number of the worker, from 0; one that is started again keeps it.
        settings: its settings, with its share of the limits.
        supervisor: the process ID of the supervisor.
        connections: the file descriptor of the socket that connections are handed over by.
        admin: the file descriptors of the sockets of the separate port for metrics.
        at_once: whether to take connections while the engine loads.
        metrics_folder: the folder in which all workers keep their metrics.
        debug: whether errors are shown with their tracebacks.
    """

    slot: int
    settings: Settings
    supervisor: int
    connections: int
    admin: tuple[int, ...]
    at_once: bool
    metrics_folder: str
    debug: bool


def share_settings(settings: Settings) -> list[Settings]:
    """Return the settings of each worker.

    What limits the whole server is divided. What a server without a database would make up for
    itself is made here, for all of them.
    """
    limits, grammars, auth = settings.limits, settings.grammars, settings.auth
    if not auth.record_secrets and not settings.ledger.url.get_secret_value():
        record_secrets = (SecretStr(secrets.token_hex()),)
        auth = auth.model_copy(update={"record_secrets": record_secrets})

    def share(slot: int) -> Settings:
        def divide(total: int) -> int:
            return total // settings.workers + (slot < total % settings.workers)

        running = divide(limits.max_running)
        waiting = divide(limits.max_waiting)
        processes = max(1, divide(grammars.processes))
        waiting_grammars = divide(grammars.max_waiting)
        return settings.model_copy(
            update={
                "auth": auth,
                "limits": limits.model_copy(
                    update={"max_running": running, "max_waiting": waiting}
                ),
                "grammars": grammars.model_copy(
                    update={"processes": processes, "max_waiting": waiting_grammars}
                ),
            }
        )

    return [share(slot) for slot in range(settings.workers)]
