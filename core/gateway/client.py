"""The client that asks upstreams, with the proxies and certificates that Moss's environment names."""

import http.cookiejar
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from core.model.errors import BadInput

CONNECT_S, SILENCE_S = 10.0, 600.0
"""How long an upstream may take to be reached, and may say nothing."""
UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
"""Nothing of the question has left this machine."""


def made(connections: int) -> httpx.AsyncClient:
    """No cookie goes from one lane to another. Raises BadInput, which names the variable that is wrong."""
    for scheme in ("all", "http", "https"):
        _check_proxy(f"{scheme.upper()}_PROXY", getproxies().get(scheme))
    try:
        return httpx.AsyncClient(
            follow_redirects=False,
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S, pool=CONNECT_S),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=20),
        )
    except OSError:
        raise BadInput(
            "The certificates that SSL_CERT_FILE or SSL_CERT_DIR names in Moss's environment cannot be read; correct "
            "it, or unset it."
        ) from None
    except (httpx.InvalidURL, ValueError):
        raise BadInput("NO_PROXY in Moss's environment holds what is no host; correct it, or unset it.") from None


def _check_proxy(name: str, url: str | None) -> None:
    """Without its address in a sentence: it may hold a password."""
    if not url:
        return
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        httpx.AsyncHTTPTransport(verify=False, proxy=parts.geturl())
        usable = bool(parts.hostname) and parts.port != 0
    except (httpx.InvalidURL, ImportError, ValueError):
        usable = False
    if not usable:
        raise BadInput(f"{name} in Moss's environment is no proxy that Moss can use; name one as `http://HOST:PORT`.")


def why(problem: httpx.HTTPError) -> str:
    """In words that hold nothing of the request, as those of a protocol's error do."""
    reached = isinstance(problem, httpx.ConnectError | httpx.ProxyError)
    return (str(problem) if reached else "") or type(problem).__name__
