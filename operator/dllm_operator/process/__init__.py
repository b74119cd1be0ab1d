"""The operator as a process: command line, Lease, probes, metrics, and the reconcile that ties the rooms."""
