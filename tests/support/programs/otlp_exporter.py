"""Program that logs through the SDK of OpenTelemetry and its exporter for OTLP/HTTP.

Arguments: port of the receiver, and number of records. It prints ``half`` when it has logged half of them.
"""

import logging
import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider


def main() -> None:
    """Log the records."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    exporter = OTLPLogExporter(f"http://127.0.0.1:{port}/v1/logs", compression=Compression.Gzip, timeout=60)
    provider = LoggerProvider(resource=Resource.create({"service.name": "oms"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=count))
    logger = logging.getLogger("gate")
    logger.propagate = False
    logger.addHandler(LoggingHandler(logger_provider=provider))
    with TracerProvider().get_tracer("gate").start_as_current_span("order"):
        for number in range(count):
            logger.warning("order %s", number, extra={"desk": "rates"})
            if number == count // 2:
                sys.stdout.write("half\n")
                sys.stdout.flush()
    provider.shutdown()


if __name__ == "__main__":
    main()
