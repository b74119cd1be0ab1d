"""HAProxy's configuration for the front door of a resource. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

PRIORITY_HEADER = "X-Request-Priority"
SERVED_BY_HEADER = "X-Served-By"
BUSY_SECONDS = 5  # Retry-After beyond a full queue, and without an engine
KEY_HEADERS = ("authorization", "x-api-key")  # of requests with both the first counts
KEY_PENALTY_MILLISECONDS = 1000
MARGIN_SECONDS = 30  # engines answer a late request themselves
_HELD = '  http-request return status 200 content-type text/plain lf-string "%[lua.held]" if { path /held }'
RESOLVED_SECONDS = 5  # an address stays that long after the cluster's DNS has ceased to name it


@dataclass(frozen=True, slots=True)
class DoorPool:
    """Pods that get ``limit`` requests at once each: the one at ``address``, or as many as that name has
    addresses, ``slots`` at most. None limits a first door."""

    name: str
    address: str
    port: int
    limit: int
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """While no pod is ready, ``most`` requests wait, each ``seconds`` at most; ``path`` is that of the script
    which has them wait."""

    path: str
    most: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Door:
    """``queue`` requests may wait; ``admin_port`` has /metrics, /stats, /healthz, /ready and, with a
    ``hold``, /held. A door that has a ``first`` one, which has the same ports, leaves all to it as long as
    that is there, so that there is one queue."""

    port: int
    admin_port: int
    queue: int
    timeout_seconds: int
    pools: Sequence[DoorPool]
    connections: int = 4096
    hold: Hold | None = None
    first: DoorPool | None = None


def door_config(door: Door) -> str:
    """What ``haproxy -f`` reads. The text depends on nothing but its argument."""
    return "\n".join(
        [
            *_global(door),
            *_defaults(door),
            *_resolvers(),
            *_keys(),
            *_frontend(door),
            *_admin(door),
            *_backend(door),
            "",
        ]
    )


def _global(door: Door) -> list[str]:
    return [
        "global",
        "  log stdout format raw local0 notice",
        f"  maxconn {door.connections}",
        *([f"  lua-load {door.hold.path}"] if door.hold is not None else []),
        f"  hard-stop-after {door.timeout_seconds + MARGIN_SECONDS}s",
        "",
    ]


def _defaults(door: Door) -> list[str]:
    patience = door.timeout_seconds + MARGIN_SECONDS
    return [
        "defaults",
        "  mode http",
        "  log global",
        "  timeout connect 2s",
        f"  timeout client {patience}s",
        f"  timeout server {patience}s",
        f"  timeout queue {door.timeout_seconds}s",
        "  timeout http-request 30s",
        "  timeout http-keep-alive 75s",
        # A connection for each request: one that cannot be established has reached no engine, and nothing
        # else is tried again.
        "  option http-server-close",
        "  retries 3",
        "  retry-on conn-failure",
        "  option redispatch 1",
        "  option abortonclose",
        # A door that is told to go closes a connection with an answer, never under a request on its way.
        "  option idle-close-on-response",
        "  option forwardfor",
        "  option dontlognull",
        *(
            f"  http-error status {status} content-type application/json string {_error(message, status)}"
            f" hdr Retry-After {BUSY_SECONDS}"
            for status, message in (
                (502, "the engine broke off before it answered"),
                (503, "no engine is ready"),
                (504, "the engine did not answer in time"),
            )
        ),
        "",
    ]


def _resolvers() -> list[str]:
    return [
        "resolvers cluster",
        "  parse-resolv-conf",
        "  accepted_payload_size 8192",
        "  resolve_retries 3",
        "  timeout resolve 1s",
        "  timeout retry 1s",
        # Without an answer the last one is as good as any: the checks tell who is there.
        *(f"  hold {state} 1h" for state in ("nx", "refused", "timeout", "other")),
        "  hold valid 1s",
        f"  hold obsolete {RESOLVED_SECONDS}s",
        "",
    ]


def _keys() -> list[str]:
    """Requests that each key has open, by a digest of the key."""
    return ["backend keys", "  stick-table type binary len 32 size 10k expire 10m store conn_cur", ""]


def _frontend(door: Door) -> list[str]:
    return [
        "frontend door",
        f"  bind :{door.port}",
        "  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid",
        "  http-request set-header X-Request-Id %[unique-id] unless { req.hdr(x-request-id) -m found }",
        # One key's tenth request waits as if it had come ten seconds later, so that it starves no other key.
        *(
            f"  http-request track-sc0 req.hdr({header}),sha2(256) table keys"
            f" if {{ req.hdr({header}) -m found }}"
            for header in KEY_HEADERS
        ),
        f"  http-request set-priority-offset sc0_conn_cur(keys),mul({KEY_PENALTY_MILLISECONDS})"
        " if { sc0_tracked(keys) }",
        f"  http-request set-priority-class int(-1) if {{ req.hdr({PRIORITY_HEADER}) -i high }}",
        f"  http-request set-priority-class int(1) if {{ req.hdr({PRIORITY_HEADER}) -i low }}",
        f"  http-request return status 429 content-type application/json hdr Retry-After {BUSY_SECONDS}"
        f" string {_error('the queue is full', 429)} if {{ queue(engines) ge {door.queue} }}",
        *_holding(door),
        "  default_backend engines",
        "",
    ]


def _holding(door: Door) -> list[str]:
    if door.hold is None:
        return []
    return [
        "  http-request lua.hold unless { lua.has_engine -m bool }",
        f"  http-request return status 429 content-type application/json hdr Retry-After {BUSY_SECONDS}"
        f" string {_error('the queue is full', 429)} if {{ var(txn.is_full) -m bool }}",
    ]


def hold_script(hold: Hold) -> str:
    """Lua that has requests wait for a first pod, and counts them. HAProxy takes a server for up before the
    first check (``nbsrv`` counts it), but says "UP 1/2" of it. What it ends while it waits, as its client has
    left, says nothing of itself: it is no longer counted once it has been silent."""
    return f"""local MOST, SECONDS, SILENT, LOOK = {hold.most}, {hold.seconds}, 2, 0.2
local seen, number = {{}}, 0
local is_there, looked = false, 0

local function has_engine()
  local now = core.now()
  local at = now.sec + now.usec / 1000000
  if at - looked >= LOOK then
    is_there, looked = false, at
    for _, server in pairs(core.backends["engines"].servers) do
      if server:get_stats().status == "UP" then
        is_there = true
        break
      end
    end
  end
  return is_there
end

core.register_fetches("has_engine", has_engine)

local function held()
  local count, now = 0, core.now().sec
  for id, at in pairs(seen) do
    if now - at > SILENT then
      seen[id] = nil
    else
      count = count + 1
    end
  end
  return count
end

core.register_fetches("held", held)

core.register_action("hold", {{ "http-req" }}, function(txn)
  if held() >= MOST then
    txn:set_var("txn.is_full", true)
    return
  end
  number = number + 1
  local id, ends = number, core.now().sec + SECONDS
  while not has_engine() and core.now().sec < ends do
    seen[id] = core.now().sec
    core.msleep(LOOK * 1000)
  end
  seen[id] = nil
end)
"""


def _admin(door: Door) -> list[str]:
    return [
        "frontend admin",
        f"  bind :{door.admin_port}",
        "  stats enable",
        "  stats uri /stats",
        "  http-request use-service prometheus-exporter if { path /metrics }",
        "  http-request return status 200 if { path /healthz } or { path /ready }",
        *([_HELD] if door.hold is not None else []),
        "  http-request return status 404 unless { path_beg /stats }",
        "",
    ]


def _backend(door: Door) -> list[str]:
    rank = "" if door.first is None else " backup"
    return [
        "backend engines",
        "  balance leastconn",
        "  option httpchk",
        "  http-check send meth GET uri /ready ver HTTP/1.1 hdr Host door",
        "  http-check expect status 200",
        "  default-server check inter 1s fall 2 rise 1",
        f"  http-response set-header {SERVED_BY_HEADER} %s/%si"
        f" unless {{ res.hdr({SERVED_BY_HEADER}) -m found }}",
        *(_first(door.first, door.admin_port) if door.first is not None else []),
        *(f"{_servers(pool)} maxconn {pool.limit} slowstart 15s{rank}" for pool in door.pools),
    ]


def _first(first: DoorPool, admin_port: int) -> list[str]:
    """Of which a connection that fails says as much as a check."""
    check = f"port {admin_port} inter 500ms fall 1 observe layer4 error-limit 1 on-error mark-down"
    return ["  option allbackups", f"{_servers(first)} {check}"]


def _servers(pool: DoorPool) -> str:
    where = f"{pool.address}:{pool.port}"
    if pool.slots is None:
        return f"  server {pool.name} {where}"
    return f"  server-template {pool.name}- {pool.slots} {where} resolvers cluster init-addr none"


def _error(message: str, status: int) -> str:
    """An error in OpenAI's shape, quoted."""
    kind = "rate_limit_error" if status == 429 else "server_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})
    return f"'{body}'"
