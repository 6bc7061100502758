"""What listens: Prometheus metrics, log lines, and the watch over the store. Nothing here decides."""
