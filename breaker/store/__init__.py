"""The shared state: everything that speaks to Redis or Valkey. One verb of the product, one script."""
