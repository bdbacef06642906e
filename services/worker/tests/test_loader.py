"""`load_target`: from settings to a target, and what the operator reads when that fails."""

import functools
import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rabbitbal.wire.message import Request
from rabbitbal.worker.targets import TargetError, load_target
from rabbitbal.worker.targets.asgi import AsgiTarget
from rabbitbal.worker.targets.kinds import kind_of
from rabbitbal.worker.targets.upstream import UpstreamTarget, parse_address
from rabbitbal.worker.targets.wsgi import WsgiTarget
from tests.harness import answer_of

WriteModule = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def restore_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> WriteModule:
    """Writes a module into the application's directory."""

    def write_module(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    return write_module


def refusal(app: str | None, app_dir: object, upstream: str | None = None, **options: Any) -> str:
    """The text with which these settings are refused: one line."""
    with pytest.raises(TargetError) as caught:
        load_target(app, str(app_dir), upstream, 4, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Applications of every shape. The bodies do not matter: nothing is called.
async def asgi_function(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_function(environ: Any, start_response: Any) -> Any: ...


def asgi_without_async(scope: Any, receive: Any, send: Any) -> Any: ...


def decorated(app: Any) -> Any:
    @functools.wraps(app)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return app(*args, **kwargs)

    return wrapper


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...

    def method(self, environ: Any, start_response: Any) -> Any: ...


class DecoratedAsgi:
    @decorated
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class ChosenWhenMade:
    """As some monitoring middleware does it."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = self._run

    async def _run(self, scope: Any, receive: Any, send: Any) -> None: ...


class AwaitableAsgi:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class IterableWsgi:
    """The second example of PEP 3333."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


def asgi2_function(scope: Any) -> Any: ...


def wsgi_with_default(environ: Any, start_response: Any, config: Any = None) -> Any: ...


def asgi_adapter_of_wsgi() -> Any:
    @functools.wraps(wsgi_function)
    async def adapter(scope: Any, receive: Any, send: Any) -> None: ...

    return adapter


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (asgi_function, "asgi"),
        (wsgi_function, "wsgi"),
        (asgi_without_async, "asgi"),
        (Asgi(), "asgi"),
        (Asgi().method, "asgi"),
        (Wsgi(), "wsgi"),
        (Wsgi().method, "wsgi"),
        (AwaitableAsgi, "asgi"),
        (IterableWsgi, "wsgi"),
        (ChosenWhenMade(), "asgi"),
        (wsgi_with_default, "wsgi"),
        (decorated(asgi_function), "asgi"),
        (decorated(wsgi_function), "wsgi"),
        (decorated(decorated(wsgi_function)), "wsgi"),
        (DecoratedAsgi(), "asgi"),
        (asgi_adapter_of_wsgi(), "asgi"),
        (functools.partial(asgi_function), "asgi"),
        (functools.partial(Asgi()), "asgi"),
        (functools.partial(lambda config, environ, start_response: [], None), "wsgi"),
    ],
)
def test_the_kind_of_an_application_is_found_without_calling_it(app: Any, expected: str) -> None:
    """Functions, methods, instances, classes, partials and decorated ones."""
    assert expected == kind_of(app, "m:app")


@pytest.mark.parametrize(
    ("module", "make", "expected"),
    [
        ("starlette.applications", lambda m: m.Starlette(), "asgi"),
        ("fastapi", lambda m: m.FastAPI(), "asgi"),
        ("quart", lambda m: m.Quart("m"), "asgi"),
        ("falcon.asgi", lambda m: m.App(), "asgi"),
        ("django.core.handlers.asgi", lambda m: object.__new__(m.ASGIHandler), "asgi"),
        ("django.core.handlers.wsgi", lambda m: object.__new__(m.WSGIHandler), "wsgi"),
        ("flask", lambda m: m.Flask("m"), "wsgi"),
        ("bottle", lambda m: m.Bottle(), "wsgi"),
        ("falcon", lambda m: m.App(), "wsgi"),
        ("sentry_sdk.integrations.asgi", lambda m: m.SentryAsgiMiddleware(asgi_function), "asgi"),
        ("a2wsgi", lambda m: m.WSGIMiddleware(wsgi_function), "asgi"),
    ],
)
def test_frameworks_are_told_apart(module: str, make: Callable[[Any], Any], expected: str) -> None:
    """As far as they are installed."""
    assert expected == kind_of(make(importlib.import_module(module)), "m:app")


@pytest.mark.parametrize("app", [Asgi2, asgi2_function])
def test_asgi_2_is_refused_with_its_remedy(app: Any) -> None:
    """A double callable cannot run as it is."""
    with pytest.raises(TargetError, match=r"ASGI 2 application.*guarantee_single_callable"):
        kind_of(app, "m:app")


@pytest.mark.parametrize("app", [Asgi, Wsgi])
def test_a_class_is_refused_where_an_instance_was_meant(app: Any) -> None:
    """Its constructor is no application."""
    with pytest.raises(TargetError, match="is a class, not an application; name an instance of it"):
        kind_of(app, "m:app")


@pytest.mark.parametrize("app", [lambda *args: None, lambda a, b, c=None: None, lambda: None, print])
def test_an_ambiguous_application_is_refused_and_the_setting_named(app: Any) -> None:
    """Guessing wrong would fail at the first request, not at the start."""
    with pytest.raises(TargetError, match="set RABBITBAL_APP_KIND=asgi or RABBITBAL_APP_KIND=wsgi"):
        kind_of(app, "m:app")


def test_an_asgi_application_is_loaded_from_its_directory(write: WriteModule, tmp_path: Path) -> None:
    """`module:attribute`, both of them dotted."""
    write("shop/web.py", "class site:\n    async def app(scope, receive, send): ...\n")
    assert isinstance(load_target("shop.web:site.app", str(tmp_path), None, 4), AsgiTarget)


def test_a_wsgi_application_is_loaded_from_its_directory(write: WriteModule, tmp_path: Path) -> None:
    """The kind is found out."""
    write("flat_app.py", "def app(environ, start_response): ...\n")
    assert isinstance(load_target("flat_app:app", str(tmp_path), None, 4), WsgiTarget)


def test_the_kind_can_be_set(write: WriteModule, tmp_path: Path) -> None:
    """For an application that shows none."""
    write("vague.py", "def app(*args): ...\n")
    assert isinstance(load_target("vague:app", str(tmp_path), None, 4, kind="asgi"), AsgiTarget)
    assert isinstance(load_target("vague:app", str(tmp_path), None, 4, kind="wsgi"), WsgiTarget)
    assert refusal("vague:app", tmp_path, kind="rack") == "RABBITBAL_APP_KIND='rack' is not auto, asgi or wsgi"


@pytest.mark.parametrize(("limit", "code"), [(3, 1009), (4, 1000)])
async def test_the_limit_of_websocket_messages_is_handed_on(
    write: WriteModule, tmp_path: Path, limit: int, code: int
) -> None:
    """The setting is the size of the largest message that passes."""
    write(
        "sockets.py",
        """
        async def app(scope, receive, send):
            await send({"type": "websocket.accept"})
            await receive(), await receive()
        """,
    )
    target = load_target("sockets:app", str(tmp_path), None, 4, streams=1, websocket_limit=limit)
    fields = [(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="), (b"Sec-WebSocket-Version", b"13")]
    # Text of four bytes, and a Close, their masks being zero.
    frames = b"\x81\x84\0\0\0\0four" + b"\x88\x82\0\0\0\0\x03\xe8"
    response = await answer_of(target, Request("GET", b"/", fields, upgrade="websocket"), frames)
    assert response.status == 101
    assert response.body[0] == 0x88
    assert int.from_bytes(response.body[2:4], "big") == code


def test_exactly_one_target_is_set() -> None:
    """Both variables, or neither, stop the worker; an empty one counts as unset."""
    assert refusal("", "/", "") == "set RABBITBAL_APP=module:attribute or RABBITBAL_UPSTREAM=http://host:port"
    assert "both set; set one of them" in refusal("a:b", "/", "http://web:80")


@pytest.mark.parametrize("app", ["demo", "demo:", ":app", "demo.py:app()", "a b:c", "a:b:c", "1:a"])
def test_an_application_is_named_by_module_and_attribute(app: str, tmp_path: Path) -> None:
    """Anything else is refused as it was written."""
    assert f"RABBITBAL_APP={app!r} is not of the form module:attribute" == refusal(app, tmp_path)


def test_a_missing_module_is_told_from_a_failed_import_inside_it(write: WriteModule, tmp_path: Path) -> None:
    """The first is a wrong setting, the second a wrong application."""
    write("half.py", "x = 1\nimport not_installed_anywhere\n")
    assert f"RABBITBAL_APP=nowhere:app: there is no module nowhere in {tmp_path}" == refusal("nowhere:app", tmp_path)
    assert "there is no module nowhere in" in refusal("nowhere.at.all:app", tmp_path)
    text = refusal("half:app", tmp_path)
    assert "importing half raised ModuleNotFoundError: No module named 'not_installed_anywhere'" in text
    assert text.endswith("half.py:2)")


def test_what_an_application_raises_at_import_is_shown(write: WriteModule, tmp_path: Path) -> None:
    """Type, text on one line, and place."""
    write("angry.py", "def f():\n    raise RuntimeError('no\\ndatabase')\nf()\n")
    write("broken.py", "x = = 1\n")
    write("partly.py", "from os import no_such_name\n")
    assert "importing angry raised RuntimeError: no database" in refusal("angry:app", tmp_path)
    assert refusal("angry:app", tmp_path).endswith("angry.py:2)")
    assert "SyntaxError: invalid syntax (broken.py, line 1)" in refusal("broken:app", tmp_path)
    assert "ImportError: cannot import name 'no_such_name'" in refusal("partly:app", tmp_path)


def test_a_missing_attribute_is_named(write: WriteModule, tmp_path: Path) -> None:
    """And so is what does not have it."""
    write("plain.py", "value = 3\n")
    assert refusal("plain:app", tmp_path) == "RABBITBAL_APP=plain:app: plain has no attribute app"
    assert refusal("plain:value.app", tmp_path) == "RABBITBAL_APP=plain:value.app: int has no attribute app"
    assert "is of type int, which cannot be called" in refusal("plain:value", tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """It is usually a mount that was forgotten."""
    assert "RABBITBAL_APP_DIR" in refusal("a:b", tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://web:3000", ("web", 3000, None)),
        ("http://web:3000/", ("web", 3000, None)),
        ("http://web", ("web", 80, None)),
        ("http://[::1]:80", ("::1", 80, None)),
        ("unix:/run/app.sock", ("localhost", 80, "/run/app.sock")),
    ],
)
def test_an_upstream_is_an_address_or_a_socket(text: str, expected: tuple[str, int, str | None]) -> None:
    """The forms that the documentation names."""
    address = parse_address(text)
    assert expected == (address.host, address.port, address.socket)
    assert isinstance(load_target(None, "/", text, 4), UpstreamTarget)


@pytest.mark.parametrize(
    "text",
    ["web:3000", "https://web", "http://", "http://web/app", "http://web:x", "http://web:0", "http://u:p@web",
     "http://web?x", "unix:app.sock", "http://web:99999"],
)  # fmt: skip
def test_other_upstreams_are_refused(text: str) -> None:
    """As they were written."""
    assert f"RABBITBAL_UPSTREAM={text!r} is not of the form http://host:port or unix:/path" == refusal(None, "/", text)
