"""Measurements with their baselines, in one run. Claims in the documentation come from here."""
