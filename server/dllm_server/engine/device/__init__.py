"""What runs on the device: a step's inputs, the forward pass, the commit, and the pages of K/V."""
