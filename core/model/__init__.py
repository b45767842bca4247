"""Nouns: frozen values, states and moves. Standard library and pydantic only; no input or output."""
