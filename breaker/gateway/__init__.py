"""The runtime: the path of a call (`path.py`, start there), the downstream client, who a call belongs to."""
