"""Coding agents: any program that reads a brief, edits a checkout and replies."""
