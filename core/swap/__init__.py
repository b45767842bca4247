"""A candidate becomes the live agent, or what was live comes back."""
