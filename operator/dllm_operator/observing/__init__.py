"""The tuning loop's effects: it reads pods and hands what it saw to the policy."""
