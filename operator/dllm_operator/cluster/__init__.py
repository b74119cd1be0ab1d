"""The cluster as it is: the client, the kinds, and the picture of what was watched."""
