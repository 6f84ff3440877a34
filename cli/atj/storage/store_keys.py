"""Keys of the embedded store's inner services: other users of this machine reach its ports, too, and must have none.

SeaweedFS' filer and volume servers take JSON Web Tokens of HS256 (RFC 7519) once they have keys, which its S3 server makes for
itself: https://github.com/seaweedfs/seaweedfs/wiki/Security-Configuration.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping

_READS = "WEED_JWT_FILER_SIGNING_READ_KEY"
_NAMES = ("WEED_JWT_SIGNING_KEY", "WEED_JWT_SIGNING_READ_KEY", "WEED_JWT_FILER_SIGNING_KEY", _READS)
_SECONDS = 60


def new_keys() -> dict[str, str]:
    """Of one start, as environment variables of the server."""
    return {name: secrets.token_hex(32) for name in _NAMES}


def reading(keys: Mapping[str, str], now: float | None = None) -> dict[str, str]:
    """The headers of a question to the filer."""
    claims = {"exp": int(time.time() if now is None else now) + _SECONDS}
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.new(keys[_READS].encode(), signed.encode(), hashlib.sha256).digest()
    return {"Authorization": f"BEARER {signed}.{_encoded(signature)}"}


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
