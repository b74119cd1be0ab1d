"""The custom resource: its types, its rules and the CRD generated from both."""
