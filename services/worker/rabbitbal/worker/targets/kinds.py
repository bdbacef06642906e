"""Tells an ASGI 3 application from a WSGI one by what it looks like, without calling it."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from rabbitbal.worker.targets.contract import TargetError

VARIABLE = "RABBITBAL_APP_KIND"
_CHOOSE = f"set {VARIABLE}=asgi or {VARIABLE}=wsgi"


def kind_of(app: object, name: str) -> str:
    """Either "asgi" or "wsgi". Raises TargetError, which shows the application as ``name``."""
    if not callable(app):
        raise TargetError(f"RABBITBAL_APP={name} is of type {type(app).__name__}, which cannot be called")
    if inspect.isclass(app):
        return _kind_of_class(app, name)
    # The attribute of the instance: some middleware chooses its __call__ when it is made.
    call = app if inspect.isroutine(app) or isinstance(app, functools.partial) else app.__call__
    # A decorator may change the kind, so its own parameters count before those of what it wraps.
    unwrapped = _unwrap(call)
    for candidate in (call, unwrapped):
        three, two = _accepts(candidate, 3), _accepts(candidate, 2)
        if inspect.iscoroutinefunction(candidate) and three:
            return "asgi"
        if three != two:
            if two and inspect.iscoroutinefunction(candidate):
                break
            return "asgi" if three else "wsgi"
        if three and (named := _named(candidate)):
            return named
    if _accepts(unwrapped, 1) and not _accepts(unwrapped, 2):
        raise TargetError(
            f"RABBITBAL_APP={name} takes one parameter: a factory (name what it makes instead) or an ASGI 2 application"
            " (wrap it in asgiref.compatibility.guarantee_single_callable)"
        )
    raise TargetError(f"RABBITBAL_APP={name} looks neither like ASGI 3 nor like WSGI; {_CHOOSE}")


def _kind_of_class(app: type, name: str) -> str:
    """A class is an application where making an instance is the call (PEP 3333 has an example, ``AppClass``)."""
    if hasattr(app, "__await__") and _accepts(app, 3):
        return "asgi"
    if hasattr(app, "__iter__") and _accepts(app, 2):
        return "wsgi"
    if _accepts(app, 1) and not _accepts(app, 0) and inspect.iscoroutinefunction(vars(app).get("__call__")):
        raise TargetError(
            f"RABBITBAL_APP={name} is an ASGI 2 application; wrap it in asgiref.compatibility.guarantee_single_callable"
        )
    raise TargetError(f"RABBITBAL_APP={name} is a class, not an application; name an instance of it")


def _unwrap(call: Callable[..., Any]) -> Callable[..., Any]:
    """What is under the decorators. Those of a method wrap its function, so it is bound again."""
    if isinstance(call, types.MethodType):
        return types.MethodType(inspect.unwrap(call.__func__), call.__self__)
    unwrapped: Callable[..., Any] = inspect.unwrap(call)
    return unwrapped


def _accepts(call: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    try:
        _signature(call).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _named(call: Callable[..., Any]) -> str | None:
    """What the first parameters' names say where their number says nothing."""
    try:
        names = list(_signature(call).parameters)
    except (TypeError, ValueError):
        return None
    if names[:1] == ["scope"]:
        return "asgi"
    if names[:1] in (["environ"], ["env"]) or names[1:2] == ["start_response"]:
        return "wsgi"
    return None


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(call, follow_wrapped=False)
