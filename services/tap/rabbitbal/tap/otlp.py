"""Spans go to a collector by OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/).

Imported only where a collector is set. Nothing waits for it: a thread of the SDK sends, and what does not fit into the
queue before it is dropped and counted.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import APIRouter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from rabbitbal.tap.traces import Role, Span, Traces

log = structlog.get_logger()

QUEUE = 8192
BATCH = 512
DELAY = 1.0
# Seconds that a batch is tried, again and again.
PATIENCE = 5.0
# Seconds between two lines that say the same.
SILENCE = 60.0
FAREWELL = 2.0

_KINDS = {Role.SERVER: SpanKind.SERVER, Role.INTERNAL: SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Collector:
    """``endpoint`` is the collector's base address: traces go to `/v1/traces` below it."""

    def __init__(
        self, endpoint: str, instance: str, *, queue: int = QUEUE, delay: float = DELAY, patience: float = PATIENCE
    ) -> None:
        # The client reports each try that failed; `_Counted` says it once.
        for noisy in ("opentelemetry", "urllib3", "requests"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        address = endpoint.rstrip("/") + "/v1/traces"
        self._exporter = _Counted(OTLPSpanExporter(endpoint=address, timeout=patience))
        self._processor = BatchSpanProcessor(
            self._exporter, queue, schedule_delay_millis=delay * 1000, max_export_batch_size=min(BATCH, queue)
        )
        self._queue = queue
        self._resource = Resource({"service.name": "rabbitbal", "service.instance.id": instance})
        self._scope = InstrumentationScope("rabbitbal.tap")
        self._given = 0
        self._dropped = 0

    def take(self, span: Span) -> None:
        """Never waits."""
        if self._given - self._exporter.taken >= self._queue:
            self._dropped += 1
            return
        self._given += 1
        self._processor.on_end(self._readable(span))

    def stats(self) -> dict[str, int]:
        """Spans since the start. ``dropped``: the queue was full. ``lost``: the collector did not take them."""
        exporter = self._exporter
        return {
            "exported": exporter.taken - exporter.lost,
            "waiting": self._given - exporter.taken,
            "dropped": self._dropped,
            "lost": exporter.lost,
        }

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        self._exporter.closing = True
        # Of its own, as the SDK's shutdown may take half a minute; a daemon does not hold up the process.
        thread = threading.Thread(target=self._processor.shutdown, daemon=True)
        thread.start()
        thread.join(FAREWELL)

    def _readable(self, span: Span) -> ReadableSpan:
        parent = (
            None if span.parent is None else SpanContext(span.trace, span.parent, is_remote=True, trace_flags=_SAMPLED)
        )
        return ReadableSpan(
            span.name,
            context=SpanContext(span.trace, span.id, is_remote=False, trace_flags=_SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.role],
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=self._scope,
        )


class _Counted(SpanExporter):
    """Runs in the SDK's thread. Counts what came of each batch, and tells when that changes."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self._told = -SILENCE
        self._said = False
        self.closing = False
        self.taken = 0
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        error: dict[str, Any] = {}
        result = SpanExportResult.FAILURE
        if not (self.closing and self._failing):
            try:
                result = self._exporter.export(spans)
            except Exception as exception:
                error = {"error": repr(exception)[:500]}
        self.lost += len(spans) if result is not SpanExportResult.SUCCESS else 0
        self.taken += len(spans)
        self._tell(error, failing=result is not SpanExportResult.SUCCESS)
        return result

    def _tell(self, error: dict[str, Any], *, failing: bool) -> None:
        self._failing = failing
        now = time.monotonic()
        if failing and now - self._told >= SILENCE:
            log.warning("tap.traces_lost", spans=self.lost, **error)
            self._told, self._said = now, True
        elif not failing and self._said:
            log.info("tap.traces_taken", lost=self.lost)
            self._said = False

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def router(traces: Traces, collector: Collector) -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/traces")
    async def state() -> dict[str, int]:
        """Spans since the start, by what became of them, and the traced requests that are open, or were forgotten."""
        return collector.stats() | {"open": len(traces), "forgotten": traces.forgotten}

    return routes
