"""Floor 6, serve. In: weights and requests. Out: streamed tokens at low latency over the OpenAI protocol."""
