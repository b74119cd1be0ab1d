"""What the embedded model is measured on: task families and their held-out questions."""
