"""Token buckets shared by processes and machines through a Redis or Valkey server. Needs the extra `redis`.

The server keeps the buckets and its own time decides, so the clocks of those who share them don't matter. One atomic
script refills and takes. The client is redis-py's blocking one on a worker thread, so that asyncio, uvloop and trio
behave alike (redis-py's own asyncio client does not run on trio).
"""

try:
    import redis as _  # noqa: F401
except ModuleNotFoundError as _missing:
    raise ImportError('esockd_ratelimit.redis needs redis-py: pip install "esockd-ratelimit[redis]"') from _missing

from ._bucket import NotEntered, RedisTokenBucket
from ._keyed import KeyedRedisTokenBucket
from ._server import ServerAway, WhenAway

__all__ = ["KeyedRedisTokenBucket", "NotEntered", "RedisTokenBucket", "ServerAway", "WhenAway"]
