"""What recorded experiments say: bands over seeds, the theorem's average, its envelope, verdicts."""

from vaebench.summary.bands import Band, Line, Summary
from vaebench.summary.record import Record, read_record
from vaebench.summary.summarising import summarise

__all__ = ["Band", "Line", "Record", "Summary", "read_record", "summarise"]
