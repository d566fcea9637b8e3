"""How a message is sent. A channel is an entry point of the group `buffer_pipeline.channels`."""
