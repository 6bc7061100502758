"""
Docs page: the OpenAPI document and the problem types, for people.

One HTML page without scripts and without anything from elsewhere, so that it also opens where only
the gateway can be reached. What stands in it comes from configuration files: all of it is escaped.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from breaker.web.openapi_jobs import TAG as JOBS
from breaker.web.openapi_own import TAG
from breaker.web.problem_types import PROBLEMS

_PAGES = files("breaker.web") / "pages"
_TEMPLATE = Template((_PAGES / "docs.html").read_text(encoding="utf-8"))
_STYLE = (_PAGES / "docs.css").read_text(encoding="utf-8")
_REPEATED = "head"  # HEAD stands nowhere but beside its GET


def page(document: Mapping[str, Any]) -> str:
    """The page for a document of `openapi.document`."""
    info = document["info"]
    operations = [found for found in _operations(document) if not {TAG, JOBS} & {*found[2]["tags"]}]
    return _TEMPLATE.substitute(
        title=escape(info["title"]),
        style=_STYLE,
        introduction=_text(info["description"]),
        key="KEY=the-key-of-your-system"
        if document["security"]
        else "# no key is needed: this gateway is open",
        operations="\n".join(
            _operation(path, method, operation, document) for path, method, operation in operations
        ),
        jobs="\n".join(
            _job(path, method, operation, document)
            for path, method, operation in _operations(document)
            if JOBS in operation["tags"]
        ),
        request_headers=_request_headers(operations, document),
        response_headers="\n".join(
            _row(name, header["description"]) for name, header in document["components"]["headers"].items()
        ),
        problems="\n".join(_problems()),
        version=escape(info["version"]),
    )


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method not in ("parameters", _REPEATED) or (method == _REPEATED and "get" not in item):
                yield path, method, operation


def _operation(path: str, method: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    name = operation["operationId"]
    described, _, promise = operation["description"].rpartition("\n\n")
    lines = [f"<li>{_text(line.removeprefix('- '))}</li>" for line in promise.split("\n")]
    return "\n".join(
        [
            f'<article id="operation-{escape(name)}">',
            f'<h3><a href="#operation-{escape(name)}">{escape(name)}</a></h3>',
            f'<p><code class="route">{escape(f"{method.upper()} {path}")}</code></p>',
            f"<p>{escape(operation['summary'])}. {_text(described)}</p>",
            f"<ul>{''.join(lines)}</ul>",
            f"<pre><code>{escape(curl(path, method, operation, document))}</code></pre>",
            f"<details><summary>Its problems</summary><ul>{_statuses(operation)}</ul></details>",
            "</article>",
        ]
    )


def _job(path: str, method: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"<h3><code>{escape(f'{method.upper()} {path}')}</code></h3>",
            f"<p>{_text(operation['summary'])}</p>",
            f"<pre><code>{escape(curl(path, method, operation, document))}</code></pre>",
            f"<details><summary>Its problems</summary><ul>{_statuses(operation)}</ul></details>",
        ]
    )


def _statuses(operation: Mapping[str, Any]) -> str:
    listed = {
        status: _kinds(answer["description"])
        for status, answer in operation["responses"].items()
        if status.isdigit()
    }
    return "".join(f"<li>{status}: {_text(kinds)}</li>" for status, kinds in listed.items() if kinds)


def curl(path: str, method: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """A call that can be pasted into a shell, once its variables are set."""
    # Parameters as shell variables, in the double quotes of the URL.
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    url = path.replace("$", r"\$").replace("`", r"\`")
    for name in names:
        url = url.replace(f"{{{name}}}", f"${{{name.upper()}}}")
    body = operation.get("requestBody", {}).get("content", {})
    verb = {"get": "", "head": " --head"}.get(method, f" -X {method.upper()}")
    lines = [f'curl -i{verb} "$GATEWAY{url}"']
    if document["security"]:
        lines.append('-H "Breaker-Key: $KEY"')
    if any(parameter.get("name") == "Idempotency-Key" for parameter in operation.get("parameters", ())):
        lines.append('-H "Idempotency-Key: $WORK"')  # only where it is required; else it is a reference
    if "application/json" in body:
        example = body["application/json"].get("example")
        data = "@body.json" if example is None else json.dumps(example, ensure_ascii=False, indent=2)
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(data)}"]
    return " \\\n  ".join(lines)


def _kinds(description: str) -> str:
    """Only the names, as a list: the meanings stand once, under Problems."""
    kinds = [line.split("`")[1] for line in description.split("\n") if line.startswith("- `")]
    return ", ".join(f"`{kind}`" for kind in kinds)


def _request_headers(
    operations: list[tuple[str, str, Mapping[str, Any]]], document: Mapping[str, Any]
) -> str:
    components = document["components"]
    rows: dict[str, str] = {
        scheme["name"]: scheme["description"] for scheme in components.get("securitySchemes", {}).values()
    }
    for _, _, operation in operations:
        for parameter in operation["parameters"]:
            reference = parameter.get("$ref")
            stated = components["parameters"][reference.rpartition("/")[2]] if reference else parameter
            rows.setdefault(stated["name"], stated["description"])
    return "\n".join(_row(name, description) for name, description in rows.items())


def _problems() -> Iterator[str]:
    for kind, problem in PROBLEMS.items():
        yield (
            f'<article id="{kind}"><h3><a href="#{kind}">{kind}</a><span class="status">{problem.status}</span></h3>'
            f"<p><strong>{escape(problem.title)}.</strong> {_text(problem.meaning)}</p>"
            f"<p>{_text(problem.advice)}</p></article>"
        )


def _row(name: str, description: str) -> str:
    return f"<dt><code>{escape(name)}</code></dt><dd>{_text(description)}</dd>"


def _text(text: str) -> str:
    """Escaped, with `code` between backticks; kinds become links to their section."""
    pieces = escape(text).split("`")
    for index in range(1, len(pieces) - 1, 2):
        piece = pieces[index]
        code = f"<code>{piece}</code>"
        pieces[index] = f'<a href="#{piece}">{code}</a>' if piece in PROBLEMS else code
    if len(pieces) % 2 == 0:
        pieces[-1] = f"`{pieces[-1]}"  # one without a partner is only a character
    return "".join(pieces)
