"""Sandboxes: books whose clock moves only when told, for tests of what takes days."""

from buffer_pipeline.sandbox.clock import SandboxClock, find_clock, require_clock, start_clock

__all__ = ["SandboxClock", "find_clock", "require_clock", "start_clock"]
