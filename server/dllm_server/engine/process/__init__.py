"""The engine as a process: how it starts, its loop, its client, and what it tells about itself."""
