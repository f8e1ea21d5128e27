"""Redis or Valkey as a cache of device states and rollups: the sink that writes it through, and its verifier."""
