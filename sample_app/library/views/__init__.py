"""Views: pages (HTML), api (JSON), probes (what a supervisor and a load generator ask)."""
