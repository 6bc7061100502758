"""
HTTP/1.1 over one connection to a downstream: bytes in, one response at a time out.

Belongs here: what the bytes of one connection mean, and how a call on it ends. Which connection a call
gets, and what a request looks like, is in `downstream.py`.

1. One call at a time. A byte that nobody asked for closes the connection: it could be taken for the
   next call's answer (RFC 9112, section 11.2).
2. A connection is reused only when request and response are both complete and nothing followed.
3. Whatever is wrong ends the call with one `DownstreamError` and closes the connection, at once.
4. Everything is bounded: the head, what is buffered, and the time, by the call's deadline.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from breaker.gateway.response import (
    BodyStream,
    Disconnected,
    DownstreamError,
    Malformed,
    Response,
    TimedOut,
    TooLarge,
)

WHOLE_MAX = 65_536  # bytes of a body that is awaited, not streamed
HEAD_MAX = 65_536  # bytes of response heads, or of trailers: anything that is no body
HEADERS_MAX = 256


class Connection(asyncio.Protocol):
    """
    One connection; its pool is told when it may take the next call, and when it is gone.

    Attributes:
        is_open: The pool counts it. False before `adopt`, and for ever after `close`.
        is_reused: It has already served a call.
        was_heard: The call under way has received at least one byte.
        idle_since: Loop time, seconds.

    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_idle: "Callable[[Connection], None]",
        on_gone: "Callable[[Connection], None]",
    ) -> None:
        self._loop = loop
        self._on_idle = on_idle
        self._on_gone = on_gone
        self._parser = HttpResponseParser(self)
        self._is_spent = False  # the parser waits for a body that cannot come (HEAD): take a new one
        self._answer: asyncio.Future[Response] | None = None  # None: no call is under way
        self._stream: BodyStream | None = None
        self._pump: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._is_head_done = False
        self._is_complete = False
        self.is_open = self.is_reused = self.was_heard = False
        self.idle_since = 0.0

    def ask(
        self, request: bytes, *, is_head: bool, is_whole: bool, response_max: int | None, deadline: float
    ) -> asyncio.Future[Response]:
        """
        Write a request (or the head of one, if not `is_whole`); the future is its answer.

        Whoever stops waiting for the answer calls `forsake`.
        """
        if self._is_spent:
            self._parser = HttpResponseParser(self)
            self._is_spent = False
        self._answer = answer = self._loop.create_future()
        self._headers: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._status = 0
        self._is_head = is_head
        self._is_request_done = is_whole
        self._is_head_done = self._is_complete = self._is_interim = self._is_chunked = self._keep = False
        self._length: int | None = None
        self._body: list[bytes] = []
        self._size = self._barren = 0
        self._response_max = response_max
        self._problem: DownstreamError | None = None
        self._deadline = deadline
        self.was_heard = False
        self._transport.write(request)
        # One timer serves many calls: it is only ever moved forward, and asks for the deadline when it rings.
        timer = self._timer
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_deadline)
        return answer

    def forsake(self, answer: asyncio.Future[Response], error: BaseException | None = None) -> None:
        """Give up this answer: close, unless it is complete already and the connection may be serving others."""
        if self._answer is answer:
            self.fail(error or Disconnected("the call was given up"))

    def fail(self, error: BaseException) -> None:
        """End the call under way, if any, and the connection."""
        answer, stream = self._answer, self._stream
        self._answer = self._stream = None
        self.close()
        if stream is not None:
            if not isinstance(error, DownstreamError):
                reason, error = error, Disconnected("the request body broke off")
                error.__cause__ = reason
            stream.on_end(error)
        elif answer is not None and not answer.done():
            answer.set_exception(error)

    def close(self) -> None:
        """Close at once and give the place in the pool back."""
        if self.is_open:
            self.retire()
            self._on_gone(self)

    def retire(self) -> None:
        """Close at once; whoever asks for this takes over the place in the pool."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._pump is not None:
            self._pump.cancel()
        self._transport.abort()

    def adopt(self) -> bool:
        """From here on the pool counts this connection. False: it is already gone."""
        self.is_open = not self._transport.is_closing()
        return self.is_open

    def _on_deadline(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._on_deadline)
        elif self._is_head_done:
            self.fail(TimedOut("the deadline came before the end of the response body", phase="body"))
        else:
            self.fail(TimedOut("the deadline came before the response", phase="response"))

    # The request body, when it is not sent with the head.

    def start_pump(self, pump: asyncio.Task[None]) -> None:
        """The task that sends the body; it is cancelled when the connection closes."""
        self._pump = pump

    async def write(self, data: bytes) -> None:
        """Send some of the body, and wait while the downstream does not read."""
        self._transport.write(data)
        # One turn of the loop also when nothing is in the way: the downstream may have answered and gone, and
        # a write to a closed connection loses an answer that was not read yet.
        await (self._drained or asyncio.sleep(0))

    def on_request_sent(self) -> None:
        """The body is complete: the connection may be used again after the response."""
        self._is_request_done = True

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._transport.abort()
            self.close()
            return
        self.was_heard = True
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as exc:
            if not self._is_complete:
                self.fail(self._problem or Malformed(f"the downstream's answer is broken: {exc}"))
                return
            self._keep = False  # the answer is whole, what follows it is not: deliver, and close
        if self._is_complete:
            self._finish()
            return
        if self._barren > HEAD_MAX:
            self.fail(Malformed(f"more than {HEAD_MAX} bytes of head or trailers"))
        elif self._is_head_done and self._stream is None:
            length = self._length
            if length is None or length > WHOLE_MAX:
                self._start_stream(self._answer)

    def eof_received(self) -> None:
        is_until_close = self._is_head_done and self._length is None and not self._is_chunked
        if self._answer is not None and is_until_close and self._was_closed_properly():
            self._keep = False
            self._finish()
        else:
            self.connection_lost(None)

    def _was_closed_properly(self) -> bool:
        """Anybody can cut a connection; over TLS only the downstream can say that it was done (RFC 8446, 6.1)."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        try:
            return tls is None or tls.read(1) == b""
        except ssl.SSLError:  # it waits for more: no close_notify has come
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_open:
            where = "in the middle of its answer" if self.was_heard else "before its answer"
            error = Disconnected(f"the downstream closed the connection {where}")
            error.__cause__ = exc
            self.fail(error)

    # What the parser says. It stops when one of these raises; `_problem` then says why.

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise self._refuse("more than one answer")

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head_done:
            return  # a trailer
        self._headers.append((name, value))
        if len(name) == 14 and name.lower() == b"content-length":  # noqa: PLR2004 - comparing lengths first is cheap
            self._length = int(value)  # the parser has refused all but digits
        elif len(name) == 17 and name.lower() == b"transfer-encoding":  # noqa: PLR2004
            # Another coding would have to be undone here: it belongs to this hop.
            if self._is_chunked or value.strip().lower() != b"chunked":
                raise self._refuse("a Transfer-Encoding other than chunked")
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        version = parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._is_chunked):
            raise self._refuse(f"HTTP/{version}")
        if len(self._headers) > HEADERS_MAX:
            raise self._refuse(f"more than {HEADERS_MAX} headers")
        if (
            self._barren > HEAD_MAX
            and sum(len(name) + len(value) for name, value in self._headers) > HEAD_MAX
        ):
            raise self._refuse(f"a head of more than {HEAD_MAX} bytes")
        if status < 200:  # noqa: PLR2004 - interim, RFC 9110 section 15.2
            if status == 101 or self._is_chunked or self._length is not None:  # noqa: PLR2004
                raise self._refuse(f"a {status} that changes the protocol or has a body")
            self._is_interim = True
            return
        self._is_head_done = True
        self._status = status
        self._keep = parser.should_keep_alive()
        if self._is_head or status in (204, 304):
            self._is_complete = self._is_spent = True
            # The parser may still wait for the body that a GET would have had. Of a length it would tell us the
            # first byte; of chunks it would not, so that bytes too many could go unseen.
            self._keep = self._keep and not self._is_chunked
        elif self._response_max is not None and (self._length or 0) > self._response_max:
            self._problem = TooLarge(f"Content-Length {self._length} is over {self._response_max} bytes")
            raise self._problem

    def on_body(self, piece: bytes) -> None:
        if self._is_complete:
            raise self._refuse("a body where there is none")
        self._barren = 0
        self._size += len(piece)
        if self._response_max is not None and self._size > self._response_max:
            self._problem = TooLarge(f"the response is over {self._response_max} bytes")
            raise self._problem
        if self._stream is not None:
            self._stream.on_piece(piece)
        else:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
            self._headers = []
            self._reason = b""
            return
        self._is_complete = True
        self._is_spent = False

    def _refuse(self, what: str) -> Malformed:
        self._problem = Malformed(f"the downstream's answer is broken: {what}")
        return self._problem

    # How a response leaves.

    def _start_stream(self, answer: asyncio.Future[Response]) -> None:
        """The head is here and the body is long, or of unknown length: hand it on as it comes."""
        if answer.done():  # cancelled a moment ago: `forsake` follows
            return
        self._stream = stream = BodyStream(self, self._loop)
        for piece in self._body:
            stream.on_piece(piece)
        answer.set_result(self._response(None, stream))

    def _finish(self) -> None:
        """The response is complete."""
        answer, stream, pump = self._answer, self._stream, self._pump
        self._answer = self._stream = None
        self.is_reused = True
        if pump is not None:
            pump.cancel()
            self._pump = None
        if self._keep and self._is_request_done:
            self._on_idle(self)
        else:
            self.close()
        if stream is not None:
            stream.on_end(None)
        elif answer is not None and not answer.done():
            body = self._body
            answer.set_result(self._response(body[0] if len(body) == 1 else b"".join(body), None))

    def _response(self, body: bytes | None, stream: BodyStream | None) -> Response:
        reason = self._reason.decode("latin-1")
        return Response(status=self._status, reason=reason, headers=self._headers, body=body, stream=stream)
