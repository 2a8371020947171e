"""For authors of plugins, stores and embedders: kits, suites, and a host that tests can move."""
