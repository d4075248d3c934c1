"""How far a judge can be trusted, and rates without its known mistakes."""
