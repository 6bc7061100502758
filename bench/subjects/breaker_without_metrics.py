"""
`breaker`, whose metrics can be made deaf: no event reaches them. Only for measuring what they cost; the product has no such switch.

SIGUSR2 makes them deaf and SIGUSR1 lets them hear again, in the same process: two processes of one program differ by more
than metrics cost, by where their memory happens to lie. Everything else of them stays: the families, the page, and what is
read from the store once in a while.
"""

import signal

from breaker.cli.app import main
from breaker.core.events import Event
from breaker.signals.metrics import Metrics

HEAR = Metrics.listen


def hear_nothing(_metrics: Metrics, _event: Event) -> None:
    """In place of `Metrics.listen`."""


def switch(number: int, _frame: object) -> None:
    Metrics.listen = HEAR if number == signal.SIGUSR1 else hear_nothing  # type: ignore[method-assign]


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, switch)
    signal.signal(signal.SIGUSR2, switch)
    main()
