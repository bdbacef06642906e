"""What edges, workers and the operator have to say that belongs to no request."""

import json
from typing import Any

from rabbitbal.wire.envelope import Envelope
from rabbitbal.wire.errors import WireError

LONGEST = 64 * 1024
MOST_FIELDS = 30
# The log's own names.
_TAKEN = frozenset(
    {"event", "level", "timestamp", "service", "instance", "self", "args", "kw", "exc_info", "stack_info", "stacklevel"}
    | {"extra", "exception", "positional_args"}
)


def notice(envelope: Envelope, payload: bytes) -> tuple[str, dict[str, Any]]:
    """The name of the event and its fields. Raises WireError for what is no JSON object with a name."""
    if len(payload) > LONGEST:
        raise WireError(f"a notice is larger than {LONGEST} bytes")
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WireError("a notice is not JSON") from error
    if not isinstance(said, dict) or len(said) > MOST_FIELDS or not isinstance(said.get("event"), str):
        raise WireError("a notice is not an object with an event")
    fields = {name[:60]: value for name, value in said.items() if name not in _TAKEN and not name.startswith("_")}
    return said["event"][:100], {"by": envelope.app_id, **fields}
