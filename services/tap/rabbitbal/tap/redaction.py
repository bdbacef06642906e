"""What must not be stored: the values of named header fields, query parameters and members of bodies are replaced.

A name is compared without regard to letter case, `-`, `_` and blanks, so `access_token`, `accessToken` and
`Access-Token` are one; and a part of a structured name counts as the name (`user[password]`, `user.password`). Where
two readers would disagree on where a value ends (`;` in a query, say), the longer one is replaced: a log that says
too little is a nuisance, one that says too much is a leak.
"""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from rabbitbal.tap.bodies import Unreadable, redact_json, redact_multipart
from rabbitbal.wire.fields import Fields

MARK = b"[redacted]"
# What a redacted body may be at most. A larger one is replaced as a whole, where its type is one that has members.
MOST_BODY = 1 << 20

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
RULES = rf"{_NAME}(\s*,\s*{_NAME})*|\+{_NAME}(\s*,\s*\+{_NAME})*"
"""Of a setting: a list of names, or additions to the default list."""

# Credentials and what stands for one. `code` is OAuth's (RFC 6749 §4.1.2 puts it into a query): whoever reads it first
# may log in, and a country's code that is lost with it is not missed. Signatures are those of presigned URLs.
DEFAULT = (
    "authorization,proxy-authorization,cookie,set-cookie,x-api-key,x-auth-token,x-csrf-token,x-xsrf-token,"
    "x-amz-security-token,x-amz-signature,x-goog-signature,signature,sig,"
    "password,passwd,pwd,password1,password2,old_password,new_password,current_password,password_confirmation,"
    "passphrase,otp,secret,client_secret,private_key,credentials,"
    "token,access_token,refresh_token,id_token,auth_token,bearer,jwt,assertion,client_assertion,saml_response,code,"
    "auth,api_key,session,session_id,session_token,jsessionid,phpsessid,sid,"
    "csrf,csrf_token,xsrf_token,csrfmiddlewaretoken,authenticity_token"
)

# Fields whose values are references, with queries of their own. `Refresh` and `Link` hold one among other things.
_REFERENCES = frozenset(
    {
        b"referer",
        b"location",
        b"content-location",
        b"refresh",
        b"link",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"x-forwarded-uri",
    }
)
# RFC 3986 §3.2.1: userinfo stands before the "@" of an authority. Of several the last counts to most readers.
_USERINFO = re.compile(rb"(?<=://)[^/?#]*@")
# A reference may leave the scheme out. (A target that begins with "//" is a path.)
_ANY_USERINFO = re.compile(rb"(?<=//)[^/?#]*@")
# Within what `&` separates: names that some reader would see there, as `;` was a separator once, and as an address that
# was not encoded brings its own `?`.
_PAIR = re.compile(rb"(?:^|[;?#])([^=;?#]*)=")
# Parameters of a path's segments: `/shop;jsessionid=…/cart`.
_MATRIX = re.compile(rb";([^=;/]*)=([^;/]*)")
_SPLIT_NAME = re.compile(rb"[\[\].]")
_IGNORED = b"-_ \t\r\n\0"
# An encoded "=" or "@": the value may be an address, with a query or userinfo. So often it is decoded.
_ENCODED = re.compile(rb"%(?:25)*+(?:3d|40)", re.IGNORECASE)
_DEPTH = 4
_CONTROL = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]")
_FORM = b"application/x-www-form-urlencoded"
_JSON = re.compile(rb"(application|text)/json|[^/]+/[^/]+\+json")
_JSON_LINES = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/x-jsonl"})


class Redactor:
    """Made from a setting (`RULES`); empty means the default list. It is pure, and its work is bounded by the size of
    what it is given."""

    def __init__(self, rules: str = "") -> None:
        names = [name.strip() for name in rules.split(",") if name.strip()]
        if not names or names[0].startswith("+"):
            names += DEFAULT.split(",")
        self._names = frozenset(_plain(name.lstrip("+").encode()) for name in names)
        self._known = lru_cache(2048)(self._is_secret)

    # --- what others use

    def target(self, target: bytes) -> bytes:
        """A request's target, in whatever form (RFC 9112 §3.2)."""
        return self._reference(target, _USERINFO)

    def fields(self, fields: Fields) -> Fields:
        """The same fields in the same order, less what their values must not say."""
        return [(name, self._value(name, value)) for name, value in fields]

    def body(self, content_type: bytes | None, body: bytes) -> bytes:
        """A whole body. One that claims to be a form or JSON, and cannot be read as that (it is cut, or compressed), is
        replaced as a whole: nobody can say where in it a secret ends. Other types stay as they are."""
        kind = re.split(rb"[;,]", content_type or b"", maxsplit=1)[0].strip().lower()
        if not body or not (kind in (_FORM, b"multipart/form-data") or kind in _JSON_LINES or _JSON.fullmatch(kind)):
            return body
        if len(body) > MOST_BODY:
            return MARK
        try:
            if kind == _FORM:
                return self._form(body)
            if kind == b"multipart/form-data":
                return redact_multipart(content_type or b"", body, self._secret, self._part, MARK)
            if kind in _JSON_LINES:
                return b"\n".join(self._json(line) if line.strip() else line for line in body.split(b"\n"))
            return self._json(body)
        except Unreadable:
            return MARK

    # --- how

    def _value(self, name: bytes, value: bytes) -> bytes:
        if self._secret(name):
            return MARK
        if name.lower() in _REFERENCES:
            return self._reference(value, _ANY_USERINFO)
        return value

    def _reference(self, target: bytes, userinfo: "re.Pattern[bytes]", *, decode: bool = True) -> bytes:
        path, question, rest = target.partition(b"?")
        query, hash_, fragment = rest.partition(b"#")
        if not question:
            # A response may be in the fragment (OAuth's implicit grant): it looks like a query then.
            path, hash_, fragment = target.partition(b"#")
        if b"@" in path:
            path = userinfo.sub(MARK + b"@", path)
        if b";" in path:
            path = _MATRIX.sub(self._matrix, path)
        return path + question + self._pairs(query, decode=decode) + hash_ + self._pairs(fragment, decode=decode)

    def _matrix(self, found: "re.Match[bytes]") -> bytes:
        return b";%s=%s" % (found[1], MARK) if self._secret(found[1]) else found[0]

    def _pairs(self, query: bytes, *, decode: bool = True) -> bytes:
        if b"=" not in query:
            return query
        return b"&".join([self._pair(pair, decode=decode) for pair in query.split(b"&")])

    def _pair(self, pair: bytes, *, decode: bool) -> bytes:
        end = 0
        for found in _PAIR.finditer(pair):
            if self._secret(found[1]):
                return pair[: found.end()] + MARK
            end = end or found.end()
        if decode and end and _ENCODED.search(pair, end) and self._hides(pair[end:]):
            return pair[:end] + MARK
        return _USERINFO.sub(MARK + b"@", pair) if b"@" in pair else pair

    def _hides(self, value: bytes) -> bool:
        """Whether a value that is encoded, perhaps more than once, is an address or a query with a secret in it."""
        for _ in range(_DEPTH):
            value = unquote_to_bytes(value)
            redacted = self._reference(self._pairs(value, decode=False), _ANY_USERINFO, decode=False)
            if redacted != value:
                return True
            if not _ENCODED.search(value):
                return False
        # Nobody encodes so often. It is not looked into, so it is not shown.
        return True

    def _form(self, body: bytes) -> bytes:
        if _CONTROL.search(body):
            raise Unreadable
        return self._pairs(body)

    def _part(self, content_type: bytes | None, content: bytes) -> bytes:
        # RFC 7578 §4.3 deprecates parts that have parts; without an end to it they would cost a stack.
        nested = (content_type or b"").lower().startswith(b"multipart/")
        return MARK if nested else self.body(content_type, content)

    def _json(self, body: bytes) -> bytes:
        return redact_json(body, self._secret, MARK)

    def _secret(self, name: bytes) -> bool:
        # Few names make up nearly all that clients send. What is remembered of strange ones is bounded, too.
        return self._known(name) if len(name) <= 64 else self._is_secret(name)

    def _is_secret(self, name: bytes) -> bool:
        if b"%" in name or b"+" in name:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        if _plain(name) in self._names:
            return True
        return any(_plain(part) in self._names for part in _SPLIT_NAME.split(name))


def _plain(name: bytes) -> bytes:
    return name.translate(None, _IGNORED).lower()
