"""
Senders: which class sends to a configured channel. This is the one place where it depends on the channel's type.
"""

from typing import assert_never

from breaker.core.alert_policy import Channel, ChannelType
from breaker.signals.channel_alertmanager import PATH, AlertmanagerChannel
from breaker.signals.channel_http import Poster
from breaker.signals.channel_pagerduty import PagerDutyChannel
from breaker.signals.channel_slack import SlackChannel
from breaker.signals.channel_webhook import WebhookChannel
from breaker.signals.channels import SEND_S, Sender


def sender_of(channel: Channel, *, send_s: float = SEND_S) -> Sender:
    """
    Who sends to this channel. It connects when it first sends.

    Args:
        send_s: Seconds that one attempt may take.

    Raises:
        ValueError: A webhook's secret is malformed.

    """
    match channel.type:
        case ChannelType.ALERTMANAGER:
            return AlertmanagerChannel(Poster(channel.url.rstrip("/") + PATH, send_s=send_s))
        case ChannelType.PAGERDUTY:
            return PagerDutyChannel(Poster(channel.url, send_s=send_s), channel.secrets[0])
        case ChannelType.SLACK:
            return SlackChannel(Poster(channel.url, send_s=send_s))
        case ChannelType.WEBHOOK:
            return WebhookChannel(Poster(channel.url, send_s=send_s), channel.secrets)
        case _:
            assert_never(channel.type)
