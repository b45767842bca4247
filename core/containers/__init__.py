"""Where agents run: Docker containers, or plain processes on a machine without an engine."""
