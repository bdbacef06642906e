bind "unix:///tmp/puma.sock"
# As many as the worker has slots, and some for streams, which outlive their slot.
threads 4, 32
environment "production"
