"""The fixtures with which tests of the callers' listener start a gateway."""

from tests.gateway.gateway_process import start_gateway, start_gateway_child

__all__ = ["start_gateway", "start_gateway_child"]
