"""The Triton twins. Importing a module here needs ``triton``; nothing outside this package and ``backend``
does."""
