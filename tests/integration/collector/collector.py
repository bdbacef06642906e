"""A collector of traces: OTLP over HTTP on port 4318, each span a JSON line on standard output."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


def plain(value: AnyValue) -> object:
    return getattr(value, value.WhichOneof("value") or "string_value")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    said = {
                        "event": "span",
                        "path": self.path,
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "kind": span.kind,
                        "status": span.status.code,
                        "attributes": {attribute.key: plain(attribute.value) for attribute in span.attributes},
                    }
                    print(json.dumps(said), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Its own lines are the spans."""


ThreadingHTTPServer(("", 4318), Handler).serve_forever()
