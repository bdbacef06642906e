"""What routes compare: hosts without ports, paths without dots and needless escapes."""

import pytest

from rabbitbal.routes.question import host_of, path_of, question


@pytest.mark.parametrize(
    ("field", "host"),
    [
        (b"Example.COM:8080", "example.com"),
        (b"example.com.", "example.com"),
        (b"[::1]:80", "[::1]"),
        (b"", ""),
        (b"a\xffb", "a\xffb"),
        (b":80", ""),
    ],
)
def test_hosts(field: bytes, host: str) -> None:
    assert host_of(field) == host


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a/b?c=/d", "/a/b"),
        (b"/%61%2Db%2F%zz", "/a-b%2F%zz"),
        (b"/%7euser%20x", "/~user%20x"),
        (b"/a/./b/../c", "/a/c"),
        (b"/../../x", "/x"),
        (b"/a/..", "/"),
        (b"/a/b/.", "/a/b/"),
        (b"/%2e%2e/x", "/x"),
        (b"//a//b", "//a//b"),
        (b"/.hidden", "/.hidden"),
        (b"*", "*"),
        (b"/\xe9", "/\xe9"),
    ],
)
def test_paths(target: bytes, path: str) -> None:
    assert path_of(target) == path


def test_a_question_is_made_of_the_request_and_leaves_it_alone() -> None:
    fields = [(b"Host", b"A.b:1"), (b"X-Y", b"z")]
    asked = question("GET", b"/a/../b?q", fields)
    assert (asked.method, asked.host, asked.path) == ("GET", "a.b", "/b")
    assert asked.fields is fields
