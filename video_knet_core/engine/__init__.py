"""Engines that run a network."""

import os

# ONNX Runtime's wheels send usage events to their maker, and keep an identifier of this user in the
# home folder, unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
