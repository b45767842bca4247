"""Slack: slack-bolt over Socket Mode, or over signed HTTP."""
