"""Traces: spans in memory, and exported over OTLP to a local receiver."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, url_attributes
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proctor.server.accounting.cost import PriceModel, RequestCost
from proctor.server.app import create_app
from proctor.server.engines.fake import FakeEngine, Script
from proctor.server.telemetry.tracing import NO_TRACE, Tracing, open_tracing
from tests.server.harness import CHAT, Gate, body, client, serve_app, settings, with_timeout

RAW = "/v1/completions"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
TRACED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
PRICES = {"prompt": "1", "thinking": "2", "answer": "4"}
KNOWN = {
    value
    for module in (gen_ai_attributes, http_attributes, url_attributes, error_attributes)
    for name, value in vars(module).items()
    if name.isupper()
}
"""The attributes of OpenTelemetry's semantic conventions."""


class Spans:
    """Collects the spans of a tracer."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracing = Tracing(provider)

    @property
    def all(self) -> list[ReadableSpan]:
        return [*self._kept.get_finished_spans()]

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all if span.name == name]
        return span

    @property
    def root(self) -> ReadableSpan:
        (span,) = [span for span in self.all if span.kind is SpanKind.SERVER]
        return span


Traced = tuple[httpx.AsyncClient, Spans]


@asynccontextmanager
async def traced(
    engine: FakeEngine, **overrides: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Spans]]:
    spans = Spans()
    app = create_app(settings(**overrides), lambda: engine, spans.tracing)
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield http, spans


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_a_span_for_each_part_of_a_request() -> None:
    engine = FakeEngine(Script(("abc",), "de"), cached_tokens=2)
    async with traced(engine, default_tier="auto", prices=PRICES) as (http, spans):
        message = {"role": "user", "content": "Prove that there are infinitely many primes."}
        request = body(temperature=0.5, max_tokens=2000, messages=[message])
        answer = (await http.post(CHAT, json=request, headers=TRACED)).json()

    root, admission = spans.root, spans.named("admission")
    assert root.name == "chat fake"
    assert root.context is not None
    assert f"{root.context.trace_id:032x}" == TRACE_ID
    assert f"{parent(root):016x}" == PARENT_ID
    assert {span.context.trace_id for span in spans.all if span.context} == {root.context.trace_id}
    for name in ("admission", "queue", "thinking", "answer"):
        assert parent(spans.named(name)) == root.context.span_id, name
    assert admission.context is not None
    assert parent(spans.named("routing")) == admission.context.span_id
    times = [root.start_time or 0]
    for name in ("admission", "queue", "thinking", "answer"):
        times += [spans.named(name).start_time or 0, spans.named(name).end_time or 0]
    assert times == sorted(times)
    assert times[-1] <= (root.end_time or 0)
    usage, thinking = answer["usage"], answer["choices"][0]["thinking"]
    attributes = attributes_of(root)
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.provider.name"] == "proctor"
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == "fake"
    assert attributes["gen_ai.response.id"] == answer["id"]
    assert attributes["gen_ai.request.temperature"] == 0.5
    assert attributes["gen_ai.request.max_tokens"] == 2000
    assert attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == thinking["tokens"]
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 2
    assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes["proctor.cost"] == pytest.approx(answer["cost"]["total"])
    assert attributes["http.response.status_code"] == 200
    assert attributes_of(admission)["proctor.tier"] == thinking["tier"]
    assert attributes_of(admission)["proctor.source"] == "router"
    assert attributes_of(spans.named("thinking")) == {
        "proctor.choice": 0,
        "proctor.thinking.tokens": thinking["tokens"],
        "proctor.thinking.forced_tokens": thinking["forced_tokens"],
        "proctor.thinking.continuations": thinking["continuations"],
        "proctor.thinking.loops": thinking["loops"],
        "proctor.thinking.end_reason": thinking["end_reason"],
    }
    assert attributes_of(spans.named("answer"))["proctor.answer.tokens"] == 2


async def test_attributes_follow_the_conventions_and_contain_no_text() -> None:
    async with traced(FakeEngine(Script(("hush",), "secret"))) as (http, spans):
        request = body(
            messages=[{"role": "user", "content": "whisper"}], seed=3, top_p=0.5, top_k=4
        )
        await http.post(CHAT, json=request)
        await http.post(RAW, json={"model": "fake", "prompt": "whisper"})

    for span in spans.all:
        for name, value in attributes_of(span).items():
            assert name in KNOWN or name.startswith("proctor."), name
            assert not re.search("hush|secret|whisper", str(value))
    assert "text_completion fake" in {span.name for span in spans.all}


async def test_each_choice_has_its_own_thinking_and_answer_span() -> None:
    async with traced(FakeEngine()) as (http, spans):
        await http.post(CHAT, json=body(n=2, stream=True))

    choices = [
        attributes_of(span)["proctor.choice"] for span in spans.all if span.name == "thinking"
    ]
    answers = [attributes_of(span)["proctor.choice"] for span in spans.all if span.name == "answer"]
    assert sorted(choices) == sorted(answers) == [0, 1]
    assert attributes_of(spans.root)["gen_ai.response.finish_reasons"] == ("stop", "stop")
    spans.named("queue")


async def test_without_thinking_there_is_no_thinking_span() -> None:
    async with traced(FakeEngine()) as (http, spans):
        await http.post(CHAT, json=body(max_thinking_tokens=0))

    assert "thinking" not in {span.name for span in spans.all}
    spans.named("answer")


async def test_a_refused_request_has_no_span_after_admission() -> None:
    async with traced(FakeEngine()) as (http, spans):
        await http.post(CHAT, json=body(model="other"))

    assert {span.name for span in spans.all} == {f"POST {CHAT}", "admission"}
    assert attributes_of(spans.root)["http.response.status_code"] == 404
    assert (
        spans.root.status.status_code is StatusCode.UNSET
    )  # a client error does not set the error status


async def test_a_request_that_times_out_in_the_queue_has_no_span_after_it() -> None:
    gate = Gate(0)
    async with traced(FakeEngine(before_token=gate), limits={"max_running": 1}) as (http, spans):
        first = asyncio.create_task(http.post(CHAT, json=body()))
        await with_timeout(gate.reached.wait())
        late = await http.post(CHAT, json=body(), headers={"x-request-timeout": "0.05"})
        traced_late = {span.name for span in spans.all if span.kind is not SpanKind.SERVER}
        queued = [span for span in spans.all if span.name == "queue"]
        gate.opened.set()
        await with_timeout(first)

    assert late.status_code == 504
    assert "thinking" not in traced_late
    assert len(queued) == 2


async def test_a_dead_engine_sets_the_error_status() -> None:
    async with traced(FakeEngine(Script(("abcdef",)), die_after=3)) as (http, spans):
        await http.post(CHAT, json=body())

    assert spans.root.status.status_code is StatusCode.ERROR
    assert attributes_of(spans.root)["error.type"] == "503"
    assert attributes_of(spans.named("thinking"))["proctor.thinking.end_reason"] == "cancelled"


async def test_a_client_that_does_not_sample_is_not_traced() -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}
    async with traced(FakeEngine()) as (http, spans):
        await http.post(CHAT, json=body(), headers=headers)
        metrics = await http.get("/metrics", headers={"accept": "application/openmetrics-text"})

    assert spans.all == []
    assert "trace_id" not in metrics.text


async def test_openmetrics_exemplars_have_the_trace_id() -> None:
    async with traced(FakeEngine(), prices=PRICES) as (http, _):
        await http.post(CHAT, json=body(), headers=TRACED)
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        opened = await http.get("/metrics", headers=accept)
        plain = await http.get("/metrics")

    named = {
        family.name
        for family in text_string_to_metric_families(opened.text)
        for sample in family.samples
        if sample.exemplar is not None and sample.exemplar.labels == {"trace_id": TRACE_ID}
    }
    assert named == {
        "proctor_time_to_first_reasoning_seconds",
        "proctor_time_to_first_answer_seconds",
        "proctor_request_seconds",
        "proctor_thinking_tokens",
        "proctor_answer_tokens",
        "proctor_cost_per_answer_usd",
    }
    assert TRACE_ID not in plain.text


async def test_tracing_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    tracing = open_tracing(settings().tracing)

    assert tracing.start({"type": "http"}, RequestCost(PriceModel(None, None))) is NO_TRACE
    async with client(FakeEngine()) as http:
        await http.post(CHAT, json=body(), headers=TRACED)
        accept = {"accept": "application/openmetrics-text"}
        assert "trace_id" not in (await http.get("/metrics", headers=accept)).text


class Receiver(HTTPServer):
    """A receiver of OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Intake)
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Intake(BaseHTTPRequestHandler):
    """Handles the requests to a receiver."""

    server: Receiver

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        request = ExportTraceServiceRequest.FromString(self.rfile.read(size))
        self.server.requests.append((self.path, request))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


@pytest.mark.parametrize("by", ["setting", "variable"])
async def test_traces_are_exported_over_otlp(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        overrides: dict[str, Any] = {}
        if by == "setting":
            overrides["tracing"] = {"endpoint": receiver.url}
        else:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        engine = FakeEngine()
        app = create_app(settings(**overrides), lambda: engine)
        async with serve_app(app) as url, httpx.AsyncClient(base_url=url) as http:
            await app.state.supervisor.loaded()
            await http.post(CHAT, json=body(), headers=TRACED)
        # The server has stopped, and has flushed its spans.

    assert {path for path, _ in receiver.requests} == {"/v1/traces"}
    resources = [item for _, request in receiver.requests for item in request.resource_spans]
    names = {
        attribute.key: attribute.value.string_value
        for item in resources
        for attribute in item.resource.attributes
    }
    assert names["service.name"] == "proctor"
    spans = [span for item in resources for scope in item.scope_spans for span in scope.spans]
    parts = {"admission", "queue", "thinking", "answer"}
    assert {span.name for span in spans} == {"chat fake", *parts}
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}


async def test_an_unreachable_collector_does_not_affect_requests(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with receiving() as receiver:
        endpoint = receiver.url
    async with client(FakeEngine(), tracing={"endpoint": endpoint}) as http:
        assert (await http.post(CHAT, json=body())).status_code == 200

    assert "opentelemetry" in {record.name.partition(".")[0] for record in caplog.records}
