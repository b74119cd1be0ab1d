"""Budgets and scheduler settings learned from what pods really use. Pure; effects are the operator's."""
