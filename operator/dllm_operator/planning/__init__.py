"""What should be: pools, replicas and engine settings of a resource."""
