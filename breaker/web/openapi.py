"""
OpenAPI: the callers' listener as a document, made from the configuration in force.

1. One path per operation, as callers use it, with its contract as the schema of its body.
2. An operation lists the problems that it can really give, and no others.
3. A downstream may answer with any status, any media type, and without a body. So its answers are
   `2XX` and `default` without `content`: a media type there is read as the promise of a body.
4. HEAD is where GET is, because it works there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from breaker.core.circuit_policy import CircuitMode, SlowDown
from breaker.core.config import Config
from breaker.core.job_policy import Durability
from breaker.core.model import Mode, Operation, Overflow
from breaker.gateway.call import Kind
from breaker.gateway.work import SAFE_METHODS
from breaker.web import openapi_jobs as jobs
from breaker.web import openapi_parts as parts
from breaker.web.contract_schema import inlined
from breaker.web.openapi_own import OWN_SCHEMAS, TAG, own_paths
from breaker.web.problem_types import PROBLEMS
from breaker.web.promise import sentences

BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
# No empty value, and nothing that hides `.` or `..`: the router knows no such path.
SEGMENT = {"type": "string", "minLength": 1, "not": {"pattern": r"(^|[/\\])\.{1,2}($|[/\\])|\x00"}}
INTRODUCTION = (
    "Calls go to this gateway instead of to the downstream: the same method and path, below the name of the"
    " pipeline. The gateway holds the capacity of every operation. Over it, a call waits its turn for a moment or is"
    " refused with a time to come back; it never fails silently. `Breaker-Outcome` says whose answer you have."
)


def document(config: Config) -> dict[str, Any]:
    """
    OpenAPI 3.1 of everything that the callers' listener answers, ready for JSON.

    Secrets and the addresses of downstreams do not stand in it.
    """
    is_open = config.gateway.callers is None
    components: dict[str, Any] = {
        "headers": {**parts.HEADERS, **jobs.HEADERS},
        "parameters": {**parts.PARAMETERS, **jobs.PARAMETERS},
        "schemas": {**parts.SCHEMAS, **OWN_SCHEMAS, **jobs.SCHEMAS, **_contracts(config)},
    }
    if not is_open:
        components["securitySchemes"] = {
            parts.SECURITY: {
                "type": "apiKey",
                "in": "header",
                "name": "Breaker-Key",
                "description": "The key of the calling system; never passed on.",
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Breaker ({config.gateway.cluster})",
            "version": config.version,
            "description": INTRODUCTION,
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/", "description": "This gateway"}],
        "security": [] if is_open else [{parts.SECURITY: []}],
        "tags": [
            *_tags(config),
            {"name": jobs.TAG, "description": "Calls that were accepted into a queue"},
            {"name": TAG, "description": "The gateway's own paths"},
        ],
        "paths": {**_paths(config), **jobs.job_paths(is_open=is_open), **own_paths(is_open=is_open)},
        "components": components,
    }


def kinds_of(operation: Operation, *, is_open: bool) -> list[Kind]:
    """The problems that a call of this operation can end in, in the order of `Kind`."""
    capacity = operation.capacity
    enforced = capacity.mode is Mode.ENFORCE
    cost = max(capacity.cost.constant, capacity.cost.max if capacity.cost.header else 1)
    has_body = operation.match.method not in BODILESS
    queue = operation.queue
    has_queue = queue is not None
    bounds_tenants = queue is not None and (queue.tenant_jobs_max or queue.tenant_bytes_max) is not None
    knows_tenants = capacity.per_tenant is not None or bool(capacity.tenants)
    can_give = {
        Kind.UNKNOWN_OPERATION: "{" in operation.match.template,  # for values that hide `..`
        Kind.UNAUTHENTICATED: not is_open,
        Kind.FORBIDDEN: not is_open,
        Kind.BAD_REQUEST: True,
        Kind.REQUEST_TIMEOUT: has_body,
        Kind.PAYLOAD_TOO_LARGE: has_body and operation.body_max is not None,
        Kind.CONTRACT: operation.contract is not None,
        Kind.TOO_COSTLY: enforced and not capacity.is_unlimited and cost > 1,
        # A job that could not start before it expires is refused by the limit that says so.
        Kind.TENANT_LIMIT: bounds_tenants
        or operation.slow_down is SlowDown.TENANT
        or (enforced and knows_tenants and operation.overflow is not Overflow.ALERT),
        Kind.OVER_CAPACITY: True,  # at least when there is no room for another connection
        Kind.DEGRADED: has_queue or not capacity.is_unlimited,
        Kind.DEADLINE: True,
        Kind.OUTCOME_UNKNOWN: operation.match.method not in SAFE_METHODS,
        Kind.DOWNSTREAM_UNREACHABLE: True,
        Kind.DOWNSTREAM_TIMEOUT: True,
        Kind.METHOD_NOT_ALLOWED: False,  # an operation is its method, too
        Kind.QUEUE_FULL: has_queue,
        Kind.PAUSED: not capacity.is_unlimited and not has_queue,
        Kind.DRAINING: has_queue or not capacity.is_unlimited,
        # In shadow by a person's hand; with a queue, what expires before the next probe.
        Kind.CIRCUIT_OPEN: operation.circuit.mode is not CircuitMode.OFF,
        Kind.IDEMPOTENCY_KEY_MISSING: has_queue and operation.idempotency.is_required,
        Kind.IDEMPOTENCY_KEY_REUSED: has_queue,
        Kind.IN_PROGRESS: has_queue,
        Kind.DURABILITY_NOT_MET: queue is not None and queue.durability is not Durability.MEMORY,
        Kind.RESULT_EXPIRED: has_queue,
        Kind.JOB_NOT_FOUND: False,  # those are about jobs, not calls
        Kind.NOT_CANCELLABLE: False,
    }
    return [kind for kind in Kind if can_give[kind]]


def _contracts(config: Config) -> dict[str, Any]:
    return {
        name: inlined(operation.contract, f"#/components/schemas/{name}")
        for name, operation in config.operations.items()
        if operation.contract is not None
    }


def _tags(config: Config) -> Iterator[dict[str, str]]:
    teams: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for operation in config.operations.values():
        teams[operation.pipeline][operation.team] = None
    for pipeline, names in teams.items():
        yield {"name": pipeline, "description": f"Owned by {', '.join(names)}"}


def _paths(config: Config) -> dict[str, Any]:
    """Paths that differ only in the names of their parameters are one path, so they get the first names."""
    is_open = config.gateway.callers is None
    paths: dict[str, Any] = {}
    known: dict[str, str] = {}
    for operation in config.operations.values():
        path = f"/{operation.pipeline}{operation.match.template}"
        shape = "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
        path = known.setdefault(shape, path)
        item = paths.setdefault(path, _path_item(path))
        item[operation.match.method.lower()] = _operation(operation, is_open=is_open)
    for item in paths.values():
        if "get" in item and "head" not in item:
            get = item["get"]
            item["head"] = {
                **get,
                "operationId": f"{get['operationId']}.head",
                "summary": f"{get['summary']}, the head only",
            }
    return paths


def _path_item(path: str) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    if not names:
        return {}
    return {
        "parameters": [{"name": name, "in": "path", "required": True, "schema": SEGMENT} for name in names]
    }


def _operation(operation: Operation, *, is_open: bool) -> dict[str, Any]:
    contract = operation.contract or {}
    said = [f"- {sentence}" for sentence in sentences(operation)]
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.pipeline],
        "summary": str(contract.get("title") or _title(operation.name)),
        "description": "\n\n".join([*filter(None, [contract.get("description")]), "\n".join(said)]),
        "parameters": _parameters(operation),
        "responses": _responses(operation, is_open=is_open),
    }
    if operation.match.method not in BODILESS:
        described["requestBody"] = _body(operation)
    return described


def _title(name: str) -> str:
    """`billing.get-invoice` as `Get invoice`."""
    return name.partition(".")[2].replace("-", " ").capitalize()


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        name.lower(): {"$ref": f"#/components/parameters/{name}"} for name in parts.PARAMETERS
    }
    for parameter in jobs.parameters(operation):
        found[str(parameter.get("name") or parameter["$ref"].rpartition("/")[2]).lower()] = parameter
    tenant, cost = operation.tenant, operation.capacity.cost
    if tenant and tenant.header:
        where = f", or in the body at {tenant.pointer}" if tenant.pointer else ""
        found[tenant.header.lower()] = {
            "name": tenant.header,
            "in": "header",
            "description": f"On whose behalf this is, if the caller may say so{where}; else the caller is the tenant.",
            "schema": {"type": "string"},
            "example": "acme",
        }
    if cost.header:
        found[cost.header.lower()] = {
            "name": cost.header,
            "in": "header",
            "description": f"How much of the rate this call uses; {cost.constant} if it is not sent.",
            "schema": {"type": "integer", "minimum": 1, "maximum": cost.max},
        }
    return list(found.values())


def _body(operation: Operation) -> dict[str, Any]:
    contract = operation.contract
    if contract is None:
        # Without a pointer it is passed on unseen; with one, only the tenant is looked for.
        return {"description": "Passed on as it is.", "content": {"*/*": {}}}
    media: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{operation.name}"}}
    examples = contract.get("examples")
    if examples:
        media["example"] = examples[0]
    described = (
        "JSON that keeps the contract, whatever its Content-Type; checked before any capacity is spent."
    )
    return {"description": described, "required": True, "content": {"application/json": media}}


def _responses(operation: Operation, *, is_open: bool) -> dict[str, Any]:
    limited = not operation.capacity.is_unlimited
    by_status: defaultdict[int, list[Kind]] = defaultdict(list)
    for kind in kinds_of(operation, is_open=is_open):
        by_status[PROBLEMS[kind].status].append(kind)
    ours: Mapping[str, Any] = {
        str(status): parts.problem_response(status, by_status[status], limited=limited)
        for status in sorted(by_status)
    }
    has_queue = operation.queue is not None
    headers = parts.response_headers(limited=limited, retry=False, required=True)
    return {
        "2XX": {
            "description": "The downstream's answer, as it came"
            + (", now or when the same work was done before." if has_queue else "."),
            "headers": {**headers, **jobs.refer(jobs.REPLAYED)} if has_queue else headers,
        },
        **({"202": jobs.accepted(limited=limited)} if has_queue else {}),
        **ours,
        "default": {
            "description": "Any other answer of the downstream, redirects included, as it came.",
            "headers": parts.response_headers(limited=limited, retry=True),
        },
    }
