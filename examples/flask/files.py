"""A Flask application: sign in, upload, download, and a page that comes in pieces."""

import os
import secrets
from collections.abc import Iterator

import store
from flask import Flask, Response, abort, flash, redirect, render_template, request, send_file, session, url_for
from flask_wtf import CSRFProtect
from werkzeug.wrappers import Response as AnyResponse

app = Flask(__name__)
# The cookie is the session, signed with this: any worker can read it.
app.secret_key = os.environ["SECRET_KEY"]
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
CSRFProtect(app)


@app.get("/")
def index() -> str | AnyResponse:
    if "user" not in session:
        return redirect(url_for("login"))
    return render_template("index.html", names=store.names())


@app.get("/login")
def login() -> str:
    return render_template("login.html")


@app.post("/login")
def sign_in() -> AnyResponse:
    right = secrets.compare_digest(request.form.get("password", "").encode(), os.environ["DEMO_PASSWORD"].encode())
    if not right or request.form.get("user") != "demo":
        flash("Wrong name or password")
        return redirect(url_for("login"), 303)
    session.clear()
    session["user"] = "demo"
    return redirect(url_for("index"), 303)


@app.post("/logout")
def sign_out() -> AnyResponse:
    session.clear()
    return redirect(url_for("login"), 303)


@app.post("/files")
def upload() -> AnyResponse:
    if "user" not in session:
        abort(403)
    file = request.files.get("file")
    if file is None or not store.add(file.filename or "", file.stream):
        flash("That is no file, or no name for one")
    else:
        flash(f"Saved {file.filename}")
    return redirect(url_for("index"), 303)


@app.get("/files/<name>")
def download(name: str) -> Response:
    path = store.find(name) or abort(404)
    return send_file(path, as_attachment=True)


@app.get("/stream")
def stream() -> Response:
    """/stream?names=a,b: a line about each file, sent as soon as the file is there."""
    return Response(_lines(request.args.get("names", "").split(",")), mimetype="text/plain")


def _lines(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f"{store.line(name)}\n" if store.arrives(name) else f"{name} did not come\n"
