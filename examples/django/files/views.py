"""The pages. Ordinary views, which Django runs in threads under ASGI; what they stream is of the kind of the server."""

from collections.abc import AsyncIterator, Iterator

import store
from asgiref.sync import sync_to_async
from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, Http404, HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe


class Upload(forms.Form):
    file = forms.FileField()


@require_safe
@login_required
def index(request: HttpRequest) -> HttpResponseBase:
    return render(request, "files/index.html", {"names": store.names(), "form": Upload()})


@require_POST
@login_required
def upload(request: HttpRequest) -> HttpResponseBase:
    form = Upload(request.POST, request.FILES)
    if form.is_valid() and store.add(form.cleaned_data["file"].name, form.cleaned_data["file"]):
        messages.info(request, f"Saved {form.cleaned_data['file'].name}")
    else:
        messages.error(request, "That is no file, or no name for one")
    return redirect("index")


@require_safe
def download(request: HttpRequest, name: str) -> HttpResponseBase:
    if (path := store.find(name)) is None:
        raise Http404
    response = FileResponse(path.open("rb"), as_attachment=True)
    if isinstance(request, ASGIRequest):
        # Django would read an ordinary iterator to its end before it sends.
        response.streaming_content = _pieces(response.streaming_content)
    return response


@require_safe
def stream(request: HttpRequest) -> HttpResponseBase:
    """/stream?names=a,b: a line about each file, sent as soon as the file is there."""
    names = request.GET.get("names", "").split(",")
    lines = _lines_async(names) if isinstance(request, ASGIRequest) else _lines(names)
    return StreamingHttpResponse(lines, content_type="text/plain")


async def _pieces(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await sync_to_async(next)(pieces, None)) is not None:
        yield piece


async def _lines_async(names: list[str]) -> AsyncIterator[str]:
    for name in names:
        yield _line(name, await store.arrives_async(name))


def _lines(names: list[str]) -> Iterator[str]:
    for name in names:
        yield _line(name, store.arrives(name))


def _line(name: str, found: bool) -> str:
    return f"{store.line(name)}\n" if found else f"{name} did not come\n"
