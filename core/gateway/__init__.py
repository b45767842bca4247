"""The model gateway: programs without keys reach models only through it, on the account of one question.

wire      HTTP/1.1 as far as it is needed, towards a program that may be hostile
apis      which paths of which API pass, how each says no, what a request asks for
reach     what a request may not have the service reach out for
usage     how many tokens an answer took, read as it passes by
prices    what they cost
lane      one question's way: its token, what it may spend, what it has spent
client    the client that asks the upstreams
gateway   the server, and the way to the configured upstream with the real key
"""
