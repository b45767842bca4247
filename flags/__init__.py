"""Complaints become batches."""
