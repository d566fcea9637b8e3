"""Explain why a hold is held."""

from buffer_pipeline.explain.hold import explain_hold
from buffer_pipeline.explain.reason import Actor, Explanation, Reason, ReasonCode, Way, WayVerb

__all__ = ["Actor", "Explanation", "Reason", "ReasonCode", "Way", "WayVerb", "explain_hold"]
