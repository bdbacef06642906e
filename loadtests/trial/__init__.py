"""What the measurements of routes, pools and copies share: a deployment of their own, books, figures, pictures."""
