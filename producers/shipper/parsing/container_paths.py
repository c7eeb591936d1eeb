"""Names that the path of a container's log contains.

kubelet and the runtimes of Kubernetes write the log of a container to one path, and link another to it.
"""

import re
from typing import Final, NamedTuple

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_POD: Final = r"(?P<pod>[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)"
_NAMESPACE: Final = rf"(?P<namespace>{_LABEL})"
_CONTAINER: Final = rf"(?P<container>{_LABEL})"
# The UID of a pod, which for a static pod is a hash.
_UID: Final = r"(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})"
_ROTATED: Final = r"(?:\.[0-9]{8}-[0-9]{6})?"

# The folder of logs may be mounted below another one, such as /host.
_FORMS: Final = (
    re.compile(
        rf"(?:/.*)?/var/log/containers/{_POD}_{_NAMESPACE}_{_CONTAINER}-[0-9a-f]{{64}}\.log", re.DOTALL
    ),
    re.compile(
        rf"(?:/.*)?/var/log/pods/{_NAMESPACE}_{_POD}_{_UID}/{_CONTAINER}/[0-9]+\.log{_ROTATED}", re.DOTALL
    ),
)


class ContainerNames(NamedTuple):
    """Names of a container in Kubernetes; metadata of its events."""

    pod: str
    namespace: str
    container: str


def container_names(path: str) -> ContainerNames | None:
    """Return the names in the path of a container's log; None for every other absolute path."""
    for form in _FORMS:
        match = form.fullmatch(path)
        if match is not None:
            return ContainerNames(match["pod"], match["namespace"], match["container"])
    return None
