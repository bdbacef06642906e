"""From settings to a target: imports the application and tells its kind, or parses the upstream's address.

Every error is one line that an operator can act upon, and shows the application's own error where it has one.
"""

import importlib
import re
import sys
import traceback
from pathlib import Path

from rabbitbal.worker.targets.asgi import AsgiTarget
from rabbitbal.worker.targets.contract import Target, TargetError
from rabbitbal.worker.targets.kinds import VARIABLE, kind_of
from rabbitbal.worker.targets.upstream import UpstreamTarget, parse_address
from rabbitbal.worker.targets.wsgi import WsgiTarget

_APP = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
MIB = 1024 * 1024


def load_target(
    app: str | None,
    app_dir: str,
    upstream: str | None,
    slots: int,
    *,
    kind: str = "auto",
    streams: int = 256,
    websocket_limit: int = 16 * MIB,
) -> Target:
    """The target that RABBITBAL_APP or RABBITBAL_UPSTREAM describes. Raises TargetError."""
    if app and upstream:
        raise TargetError("RABBITBAL_APP and RABBITBAL_UPSTREAM are both set; set one of them")
    if upstream:
        return UpstreamTarget(parse_address(upstream), slots=slots, streams=streams)
    if not app:
        raise TargetError("set RABBITBAL_APP=module:attribute or RABBITBAL_UPSTREAM=http://host:port")
    if kind not in ("auto", "asgi", "wsgi"):
        raise TargetError(f"{VARIABLE}={kind!r} is not auto, asgi or wsgi")
    found = load_app(app, app_dir)
    if not callable(found):
        raise TargetError(f"RABBITBAL_APP={app} is of type {type(found).__name__}, which cannot be called")
    if (kind_of(found, app) if kind == "auto" else kind) == "asgi":
        return AsgiTarget(found, slots=slots, streams=streams, websocket_limit=websocket_limit)
    return WsgiTarget(found, slots=slots)


def load_app(app: str, app_dir: str) -> object:
    """The object that ``module:attribute`` names; ``app_dir`` is the first place where it is looked for."""
    match = _APP.fullmatch(app.strip())
    if match is None:
        raise TargetError(f"RABBITBAL_APP={app!r} is not of the form module:attribute")
    module_name, attributes = match[1], match[2]
    directory = Path(app_dir).resolve()
    if not directory.is_dir():
        raise TargetError(f"the directory of the application, {app_dir} (RABBITBAL_APP_DIR), does not exist")
    if sys.path[0] != str(directory):
        sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            raise TargetError(f"RABBITBAL_APP={app}: there is no module {error.name} in {app_dir}") from error
        raise TargetError(f"RABBITBAL_APP={app}: importing {module_name} raised {_shown(error)}") from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            shown = module_name if found is sys.modules.get(module_name) else type(found).__name__
            raise TargetError(f"RABBITBAL_APP={app}: {shown} has no attribute {attribute}") from None
    return found


def _is_part(missing: str | None, module_name: str) -> bool:
    """Whether what is missing is the module itself or a package on the way to it, and not something it imports."""
    return missing is not None and (module_name == missing or module_name.startswith(missing + "."))


def _shown(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {text}"
    # The deepest line that is not the import system's own.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
