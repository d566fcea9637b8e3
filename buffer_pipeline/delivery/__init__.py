"""Delivery of notifications; the only room that touches the network."""
