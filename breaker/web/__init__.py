"""The HTTP edges: the callers' listener and the admin listener. Nothing is decided here."""
