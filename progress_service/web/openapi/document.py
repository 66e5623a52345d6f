"""The OpenAPI document is assembled from the declarations of the routes.

Requests are described as strictly as they are validated. Answers may get new fields, so they are left open.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from inspect import cleandoc
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.routing import Rule

from progress_service.web import problems
from progress_service.web.auth import OWN, Caller, Policy, Reach, Role
from progress_service.web.documents import EventDocument
from progress_service.web.endpoint import READS, Operation
from progress_service.web.headers import POSITION
from progress_service.web.openapi import words
from progress_service.web.openapi.words import Json
from progress_service.web.problems import ProblemDocument, ProblemType
from progress_service.web.requests import PATH_PARTS
from progress_service.web.serialization import Document, json_schemas, reference

EXAMPLES = Path(__file__).with_name("examples.json")
"""Calls that succeed in this order on the demo, each by one of its callers, their answers, and a problem document for
every slug. The lists of an answer may end early. The first call of an operation has the examples of the parameters."""


class Converter(OpenAPIConverter):
    """Adds the docstring and the keywords of a schema to its description."""

    def schema2jsonschema(self, schema: Schema) -> Json:
        docstring = vars(type(schema))["__doc__"]  # its own: a schema without a docstring has None
        described: Json = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        description = {"description": cleandoc(docstring)} if docstring else {}
        return {**description, **described, **getattr(schema, "keywords", {})}

    def field2property(self, field: fields.Field[Any]) -> Json:
        described: Json = super().field2property(field)
        if described.get("default", ...) is None:
            del described["default"]
        return described


class Plugin(MarshmallowPlugin):
    Converter = Converter


def describe(app: Flask) -> Json:
    """Return the OpenAPI document of an application; the first call makes it."""
    if "openapi" not in app.extensions:
        app.extensions["openapi"] = _Document(app).written()
    described: Json = app.extensions["openapi"]
    return described


class _Document:
    """A document while it is made."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.examples = json.loads(EXAMPLES.read_bytes())
        marshmallow = Plugin(schema_name_resolver=lambda schema: type(schema).__name__.removesuffix("Schema"))
        self.spec = APISpec(
            title="Progress service",
            version=version("progress-service"),
            openapi_version="3.1.0",
            info={"description": words.INTRODUCTION},
            plugins=[marshmallow],
            tags=[
                {"name": name, "description": sys.modules[blueprint.import_name].__doc__}
                for name, blueprint in app.blueprints.items()
            ],
        )
        assert marshmallow.converter is not None
        self.converter = marshmallow.converter
        self.components = self.spec.components

    def written(self) -> Json:
        routes = [rule for rule in self.app.url_map.iter_rules() if not rule.endpoint.endswith(".static")]
        self._add_components(_declared(self.app, rule) for rule in routes)
        for rule in routes:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                self.spec.path(shared_template(rule), operations={method.lower(): self._operation(rule, method)})
        body = {"required": True, "content": {"application/cloudevents+json": {"schema": reference(EventDocument)}}}
        written: Json = self.spec.to_dict()
        return {**written, "webhooks": {"change": {"post": {**words.EVENT, "requestBody": body}}}}

    def _add_components(self, operations: Iterable[Operation]) -> None:
        self.components.security_scheme("bearer", words.BEARER)
        documents: list[type[Document]] = [ProblemDocument, EventDocument]
        for operation in operations:
            documents += [answer for answer in operation.answers.values() if isinstance(answer, type)]
        for name, schema in json_schemas(documents).items():
            self.components.schema(name, schema)
        for name, description in words.ANSWER_HEADERS.items():
            self.components.header(name, {"description": description, "schema": {"type": "string"}})
        for name, parameter in words.PARAMETERS.items():
            self.components.parameter(name, parameter["in"], {"name": name, **parameter})

    def _operation(self, rule: Rule, method: str) -> Json:
        operation, view = _declared(self.app, rule), self.app.view_functions[rule.endpoint]
        blueprint, _, name = rule.endpoint.rpartition(".")
        operation_id = _camel(name)
        summary, _, description = cleandoc(view.__doc__ or name).partition("\n\n")
        described: Json = {"operationId": operation_id, "tags": [blueprint], "summary": summary}
        if operation.policy:
            described["description"] = "\n\n".join(filter(None, [description, _roles(operation.policy)]))
        described["security"] = [{"bearer": []}] if operation.policy else []
        described["parameters"] = [
            *(
                self._path_parameter(name, shown, method, operation.policy)
                for name, shown in zip(_PART.findall(rule.rule), _SHOWN.findall(shared_template(rule)), strict=True)
            ),
            *self._query_parameters(operation, operation_id),
            *(["Idempotency-Key"] if method in ("POST", "PUT") else []),
            *([POSITION] if operation.from_replica else []),
            "X-Request-ID",
        ]
        if operation.body:
            # If the body depends on the caller, admins have the widest.
            body = operation.body if isinstance(operation.body, Schema) else operation.body(Caller("", Role.ADMIN))
            schema = self.converter.resolve_nested_schema(body)  # type: ignore[no-untyped-call]
            content = {"schema": schema, **self._shown(operation_id, "request")}
            described["requestBody"] = {"required": operation.body_required, "content": {"application/json": content}}
        answers = {str(status): self._answer(operation_id, operation, method, status) for status in operation.answers}
        described["responses"] = answers | self._refusals(_problems(rule, method, operation))
        return described

    def _path_parameter(self, name: str, shown: str, method: str, policy: Policy | None) -> str:
        """Return the name of the description of a path parameter; the first call makes the description.

        `shown` is the name that the path has for it.
        """
        title = _camel(name)
        schema = self.converter.field2property(fields.UUID() if name == "record_id" else PATH_PARTS[name])
        described = {"schema": schema, "example": self.examples["parameters"][title]}
        component = title
        if name == "user_id" and method == "GET" and policy and policy.student is OWN:
            component = f"{title}OrMe"
            refused = schema["not"]["enum"]
            schema["not"] = {**schema["not"], "enum": [word for word in refused if word != "me"]}
            described["description"] = "The learner; `me` stands for the caller."
        if shown != title:
            component = f"{title}For{shown[0].upper()}{shown[1:]}"
            described["description"] = f"Here the `{title}`."
        if component not in self.components.parameters:
            self.components.parameter(component, "path", {"name": shown, **described})
        return component

    def _query_parameters(self, operation: Operation, operation_id: str) -> list[Json]:
        """Describe the parameters of a query, with the values that the operation's first example gives them.

        Defaults are told in words. A page would fill them in and send them, but some parameters go only with others.
        """
        first = next((call for call in self.examples["calls"] if call["operation"] == operation_id), {"path": ""})
        given = dict(parse_qsl(urlsplit(first["path"]).query))
        parameters: list[Json] = self.converter.schema2parameters(operation.query, location="query")
        for parameter in parameters:
            schema, value = parameter["schema"], given.get(parameter["name"])
            if value is not None:
                parameter["example"] = int(value) if schema["type"] == "integer" else value
            if "default" in schema:
                parameter["description"] += f" `{schema.pop('default')}`, if left out."
        return parameters

    def _answer(self, operation_id: str, operation: Operation, method: str, status: int) -> Json:
        headers = ["Idempotency-Replayed"] if method in ("POST", "PUT") else []
        headers += [] if method in READS else [POSITION]
        described: Json = {"description": words.DESCRIPTIONS[status], "headers": self._headers(*headers)}
        answer = operation.answers[status]
        if answer:
            shown = self._shown(operation_id, "answer", status)
            schema = reference(answer) if isinstance(answer, type) else answer
            content = {operation.content_type: {"schema": schema, **shown}}
            if operation.text:
                content[operation.text] = {"schema": {"type": "string"}}
            described["content"] = content
        if operation.links:
            described["links"] = {target: {"operationId": target, **link} for target, link in operation.links.items()}
        return described

    def _shown(self, operation_id: str, part: str, status: int | None = None) -> Json:
        """Return the examples of an operation's requests or answers."""
        calls = [call for call in self.examples["calls"] if call["operation"] == operation_id and part in call]
        shown = {
            call["name"]: {"summary": f"{call['as']}: {call['name']}", "value": call[part]}
            for call in calls
            if status is None or call["status"] == status
        }
        return {"examples": shown} if shown else {}

    def _refusals(self, kinds: Iterable[ProblemType]) -> dict[str, str]:
        """Return the names of the answers with these problems, by status; the first call describes an answer."""
        refusals, by_status = {}, attrgetter("status")
        for status, group in groupby(sorted(kinds, key=by_status), key=by_status):
            types = list(group)
            refusals[str(status)] = name = "Or".join(kind.slug.title().replace("-", "") for kind in types)
            if name not in self.components.responses:
                examples = {kind.slug: {"value": self.examples["problems"][kind.slug]} for kind in types}
                content = {"schema": reference(ProblemDocument), "examples": examples}
                described = {
                    "description": "; ".join(f"`{kind.slug}`: {kind.when}" for kind in types) + ".",
                    "headers": self._headers(*words.PROBLEM_HEADERS.get(status, [])),
                    "content": {"application/problem+json": content},
                }
                self.components.response(name, described)
        return refusals

    def _headers(self, *names: str) -> Json:
        return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-ID")}


_PART, _SHOWN = re.compile(r"<(\w+)>"), re.compile(r"{(\w+)}")


def _declared(app: Flask, rule: Rule) -> Operation:
    operation: Operation = vars(app.view_functions[rule.endpoint])["operation"]
    return operation


def _problems(rule: Rule, method: str, operation: Operation) -> Iterator[ProblemType]:
    """Yield the problems that an operation can answer with."""
    if operation.policy is None:
        yield from operation.problems
        return
    yield from (problems.MALFORMED_REQUEST, problems.UNAUTHORIZED, problems.FORBIDDEN)
    if rule.arguments:
        yield problems.NOT_FOUND
    if operation.body:
        yield from (problems.PAYLOAD_TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE, problems.VALIDATION_FAILED)
    yield from operation.problems
    if method in ("POST", "PUT"):
        yield problems.IDEMPOTENCY_KEY_REUSED
    yield from (problems.INTERNAL_ERROR, problems.UNAVAILABLE)


def _roles(policy: Policy) -> str:
    reaches: Mapping[str, Reach] = policy._asdict()
    roles = [
        f"{role} ({' or '.join(words.REACHES[part] for part in reach)})" for role, reach in reaches.items() if reach
    ]
    return f"Roles: {', '.join(roles)}."


def template(rule: Rule) -> str:
    return _PART.sub(lambda match: f"{{{_camel(match[1])}}}", rule.rule)


def shared_template(rule: Rule) -> str:
    """Return the path of a rule as the document has it.

    Paths that differ only in the names of their parts are one path to OpenAPI: it has the names of the first rule.
    """
    shape = _PART.sub("", rule.rule)
    return next(template(other) for other in rule.map.iter_rules() if _PART.sub("", other.rule) == shape)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
