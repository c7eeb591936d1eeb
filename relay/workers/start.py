"""``tickertape serve``: one relay in this process, or a supervisor with several."""

from collections.abc import Coroutine
from typing import Any

from relay.config import ServeSettings


def serve(settings: ServeSettings) -> Coroutine[Any, Any, int]:
    """Choose how to serve; the supervisor needs no code of a relay's."""
    if settings.workers == 1:
        from relay.app import serve as alone

        return alone(settings)
    from relay.workers.supervisor import supervise

    return supervise(settings)
