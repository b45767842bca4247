"""Moss without its faces: the nouns, the tools and the verbs."""
