"""Faces: what people see and type, and the one place that knows every concrete class (`bot/wiring.py`)."""

VERSION = "0.1.0"
