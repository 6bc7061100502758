"""
Client: how the commands for people ask the admin listener of a running gateway, and how they end.

Exit statuses of all commands that use it:

    0  done
    1  it could not be done: the gateway cannot be reached, does not know who asks, or says no
    2  the command line is wrong, or asks for what there is not
    3  work on many jobs stopped before its end; what is done stays done
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

import typer

FAILED, WRONG, STOPPED, INTERRUPTED = 1, 2, 3, 130
SILENCE_S = 30.0  # a gateway that works says something at least every second
URL = "http://127.0.0.1:8081"
LAST = ("done", "counted", "stopped")  # stages of a last line

AdminUrl = Annotated[
    str, typer.Option("--admin", metavar="URL", envvar="BREAKER_ADMIN_URL", help="The admin listener.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", envvar="BREAKER_OPERATOR_KEY_FILE", help="Holds your operator's key."
    ),
]
Author = Annotated[
    str,
    typer.Option(
        "--author", envvar="USER", help="Your name in the audit stream, where there are no operators."
    ),
]
Reason = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why, for the audit stream; required.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would be changed.")]


def one_line(text: str) -> str:
    """What others may have written, so that it cannot steer a terminal."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def stop(message: str, status: int = FAILED) -> NoReturn:
    """End the command with one line that says why."""
    print(f"breaker: {one_line(message)}", file=sys.stderr)
    raise typer.Exit(status)


def reason_of(reason: str, *, is_dry: bool = False) -> str:
    if not reason.strip() and not is_dry:
        stop("--reason is missing: say why, for whoever reads the audit stream later", WRONG)
    return reason


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    """
    The gateway said no.

    Args:
        status: Of HTTP.

    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail

    @property
    def exit_status(self) -> int:
        wrong = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)
        return WRONG if self.status in wrong else FAILED


class Admin:
    """
    The admin API at one address.

    Args:
        url: Scheme, host and port; a path before `/admin/v1`, when a proxy has one.
        key_file: With the key of an operator; None where the gateway asks for none.
        author: Who does it, where there are no operators.

    """

    def __init__(self, url: str, key_file: Path | None, author: str) -> None:
        self._url = url.rstrip("/")
        try:
            parts = urlsplit(self._url)
            self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        except ValueError:
            parts, self._host = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not self._host:
            stop(f"--admin: '{url}' is no address: it looks like {URL}", WRONG)
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._headers = {"Accept": "application/json, application/x-ndjson"}
        author = "".join(letter for letter in author if letter.isprintable())
        if author:
            self._headers["Breaker-Author"] = author
        if key_file is not None:
            self._headers["Breaker-Key"] = read_key(key_file)

    def get(self, *path: str, **query: Any) -> dict[str, Any]:
        """
        What stands at this path.

        Raises:
            Refused: The gateway said no.

        """
        asked = {name: value for name, value in query.items() if value not in (None, "", False)}
        where = self._where(path) + ("?" + urlencode(asked) if asked else "")
        with self._ask("GET", where, None) as answer:
            return self._document(answer)

    def post(self, *path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Change something.

        Raises:
            Refused: The gateway said no.

        """
        return self._change("POST", path, body)

    def put(self, *path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Say how something is to be; likewise.

        Raises:
            Refused: The gateway said no.

        """
        return self._change("PUT", path, body)

    def delete(self, *path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Take back what was said; likewise.

        Raises:
            Refused: The gateway said no.

        """
        return self._change("DELETE", path, body)

    def _change(self, method: str, path: tuple[str, ...], body: Mapping[str, Any]) -> dict[str, Any]:
        with self._ask(method, self._where(path), body) as answer:
            return self._document(answer)

    def work(self, *path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """
        Change much; each line tells how far it is, the last has a stage in `LAST`.

        Raises:
            Refused: The gateway said no, and nothing was begun.

        """
        line: dict[str, Any] = {}
        with self._ask("POST", self._where(path), body) as answer:
            try:
                for text in answer:
                    line = json.loads(text)
                    yield line
            except (OSError, HTTPException, ValueError):
                pass  # as for an answer that ends too early: told below
        if line.get("stage") not in LAST:
            yield {**line, "stage": "stopped", "detail": "the connection to the gateway ended"}

    def _where(self, path: tuple[str, ...]) -> str:
        return "/".join([self._path, "admin", "v1", *(quote(part, safe="~") for part in path)])

    @contextmanager
    def _ask(self, method: str, where: str, body: Mapping[str, Any] | None) -> Iterator[HTTPResponse]:
        """One request on a connection of its own, closed on every way out: that is how work is stopped."""
        # No proxy of the environment: the admin listener is near, and its keys are nobody else's.
        connection = self._connection(self._host, self._port, timeout=SILENCE_S)
        headers = {name: value.encode() for name, value in self._headers.items()}
        sent = None
        if body is not None:
            sent = json.dumps({name: value for name, value in body.items() if value is not None})
            headers["Content-Type"] = b"application/json"
        try:
            try:
                connection.request(method, where, sent, headers)
                answer = connection.getresponse()
            except (OSError, HTTPException) as exc:
                self._give_up(
                    f"the admin listener at {self._url} cannot be reached: {str(exc) or type(exc).__name__}. If a gateway"
                    " runs elsewhere, name it with --admin URL or BREAKER_ADMIN_URL"
                )
            with answer:
                if answer.status != HTTPStatus.OK:
                    raise Refused(answer.status, self._why(answer))
                yield answer
        finally:
            connection.close()

    def _give_up(self, detail: str) -> NoReturn:
        """Nobody who can be understood is there."""
        stop(detail)

    def _document(self, answer: HTTPResponse) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            self._give_up(f"the answer of {self._url} cannot be read: is it the admin listener? See --admin")
        return found

    def _why(self, answer: HTTPResponse) -> str:
        try:
            members = json.loads(answer.read())
            detail = str(members["detail"])
        except (OSError, HTTPException, ValueError, TypeError, KeyError):
            return (
                f"{self._url} answered {answer.status}, which is no answer of an admin listener; see --admin"
            )
        if answer.status == HTTPStatus.UNAUTHORIZED:
            detail += "; give it with --key-file FILE or BREAKER_OPERATOR_KEY_FILE"
        return detail


def read_key(file: Path) -> str:
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        stop(f"--key-file: {file} cannot be read: {exc}", WRONG)
    if not key or not key.isprintable():
        stop(f"--key-file: {file} holds no key on a line of its own", WRONG)
    return key
