"""
Webhook: a message as JSON to any receiver, signed as `core/webhook.py` says.

The body is a contract with those who write receivers: `docs/alert-channels.md`.
"""

from collections.abc import Sequence

from breaker.core.webhook import secret_of, signed_headers
from breaker.signals.alert_text import text_of
from breaker.signals.channel_http import Poster, json_of, rfc3339
from breaker.signals.channels import Answer, Later, Message


class WebhookChannel:
    """
    One receiver.

    Args:
        poster: To its URL.
        secrets: `whsec_<base64>`, the newest first; with none it goes unsigned.

    Raises:
        ValueError: A secret is malformed; the message does not quote it.

    """

    def __init__(self, poster: Poster, secrets: Sequence[str]) -> None:
        for secret in secrets:
            secret_of(secret)
        self._poster, self._secrets = poster, tuple(secrets)

    async def close(self) -> None:
        """Hang up."""
        await self._poster.close()

    async def send(self, message: Message) -> Answer:
        """One attempt. Its answer's body is not told on: it is not known what it may say."""
        body = body_of(message)
        headers = {"webhook-id": message.id}
        if self._secrets:
            headers = signed_headers(
                id=message.id, timestamp_s=int(self._poster.now()), body=body, secrets=self._secrets
            )
        reply = await self._poster.post(body, headers=headers)
        return reply if isinstance(reply, Later) else reply.judged()


def body_of(message: Message) -> bytes:
    """The bytes that are signed and sent: the same in each attempt."""
    return json_of(
        {
            "id": message.id,
            "cluster": message.cluster,
            "kind": str(message.kind),
            "detail": message.detail,
            "made_at": rfc3339(message.made_us),
            "alerts": [
                {
                    "id": notice.id,
                    "labels": dict(notice.labels),
                    "annotations": dict(notice.annotations),
                    "starts_at": rfc3339(notice.since_us),
                    "ends_at": None if notice.ended_us is None else rfc3339(notice.ended_us),
                }
                for notice in message.notices
            ],
            "text": text_of(message),
        }
    )
