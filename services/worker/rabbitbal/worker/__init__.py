"""The worker: pulls requests off its pools' queues, runs them, publishes the responses. Nothing listens here."""
