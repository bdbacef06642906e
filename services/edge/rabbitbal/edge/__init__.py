"""The edge: speaks HTTP to clients and publishes their requests on the broker."""
