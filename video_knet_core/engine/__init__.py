"""Engines that run a network."""

import os

# ONNX Runtime's wheels send usage events to their maker, and keep an identifier of this user in the
# home folder, unless they are told before they are loaded. A robot does neither unasked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
